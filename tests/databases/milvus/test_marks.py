"""Bounds sort as what they stand for, and patterns find parts of texts, in any engine that compares bytes."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.databases.milvus.marks import (
    EDGE,
    bound,
    equals,
    exists,
    instant_bound,
    marks,
    pattern,
    place,
    text_bound,
    whole_bound,
)
from server.store.filters.sql import stored_value
from server.store.records import Document

NUMBERS = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.sampled_from([2**53, 2**53 + 1, 2.0**53, 2**63 - 1, 2.0**63, -(2**63), -0.0, 0, 5e-324])
)
TEXTS = st.text(max_size=8) | st.text("a\0b", max_size=300) | st.text("é甲𠮷%_\\!", max_size=5)


def check_order(write: Callable[[Any], str], first: Any, second: Any) -> None:
    assert (write(first) < write(second)) == (first < second)
    assert (write(first) == write(second)) == (first == second)
    assert write(first).isascii()


@given(NUMBERS, NUMBERS)
def test_numbers_keep_their_order(first: float, second: float) -> None:
    check_order(bound, first, second)


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_instants_keep_their_order(first: int, second: int) -> None:
    check_order(instant_bound, first, second)


@given(TEXTS, TEXTS)
def test_texts_keep_the_order_of_their_code_points(first: str, second: str) -> None:
    check_order(whole_bound, first, second)
    stored = [stored_value(first), stored_value(second)]
    check_order(lambda value: text_bound(str(value)), *stored)


@given(TEXTS, TEXTS)
def test_patterns_are_found_where_the_part_is(text: str, part: str) -> None:
    assert (pattern(part) in whole_bound(text)) == (part in text)
    assert (EDGE + pattern(part) in whole_bound(text)) == text.startswith(part)
    # Of a long value of metadata, only its first characters are looked into.
    if part:
        written = text_bound(str(stored_value(text)))
        assert (pattern(part) in written) == (part in text[:256])


def test_one_value_is_a_bound_and_several_are_the_least_and_the_greatest() -> None:
    read = marks(Document("id", "text", None, {"one": 5, "more": [3, 1, "x", 2.5]}))
    assert read.bounds[place("one", "number")] == bound(5)
    more = place("more", "number")
    assert (read.bounds[f"{more}l"], read.bounds[f"{more}h"]) == (bound(1), bound(3))
    assert more not in read.bounds
    assert read.bounds[place("more", "text")] == text_bound("x")


def test_equal_numbers_have_one_mark_and_other_kinds_another() -> None:
    assert equals("k", 1) == equals("k", 1.0) != equals("k", "1") != equals("k", b"true")
    assert equals("k", 2**53) != equals("k", 2**53 + 1)
    assert exists("k") != exists("k\0") != equals("k", "")
    # Where a path ends and a value begins is told by the path's length.
    assert equals("ab", "c") != equals("a", "bc")


def test_fields_of_metadata_are_none_of_those_beside_it() -> None:
    read = marks(Document("id", "text", None, {"$title": "x"}))
    assert exists("$title") not in {mark for listed in read.marks.values() for mark in listed}
