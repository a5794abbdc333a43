"""Filters on metadata in plain Python: each comparison with the values beside its bound."""

from typing import Any

import pytest

from server.store.filters.match import matches
from server.store.filters.tree import parse


@pytest.mark.parametrize(
    ("sign", "sides"),
    [
        ("$gt", [False, False, True]),
        ("$gte", [False, True, True]),
        ("$lt", [True, False, False]),
        ("$lte", [True, True, False]),
    ],
)
@pytest.mark.parametrize(
    "values", [(1, 2, 3), (0.5, 2.0, 2.5), ("a", "b", "c"), ("乙", "甲", "笔")]
)
def test_a_range_takes_the_side_of_its_sign(
    sign: str, sides: list[bool], values: tuple[Any, ...]
) -> None:
    bound = 2 if values[1] == 2 else values[1]
    assert [matches(parse({"x": {sign: bound}}), {"x": value}) for value in values] == sides


@pytest.mark.parametrize("sign", ["$gt", "$gte", "$lt", "$lte"])
def test_a_range_takes_no_value_of_another_kind(sign: str) -> None:
    others: list[object] = [True, False, None, {}, {"y": 1}, []]
    for bound, other in ((1, "1"), ("1", 1)):
        condition = parse({"x": {sign: bound}})
        assert not any(matches(condition, {"x": value}) for value in [*others, other])
        assert not matches(condition, {})


@pytest.mark.parametrize(
    "metadata",
    [
        {"a.b.c": 1},
        {"a": {"b": {"c": 1}}},
        {"a.b": {"c": 1}},
        {"a": [{"b.c": [0, 1]}]},
        {"a": 5, "a.b": [], "a.b.c": 1},
    ],
    ids=str,
)
def test_a_field_is_found_however_its_name_is_divided(metadata: dict[str, object]) -> None:
    assert matches(parse({"a.b.c": 1}), metadata)
    assert not matches(parse({"a.b.d": 1}), metadata)
    assert not matches(parse({"b.c": 1}), metadata)


def test_fields_that_a_filter_does_not_ask_for_are_not_read() -> None:
    metadata = {"x": 1, "another": object()}  # which would fail, as it is not of JSON
    assert matches(parse({"x": 1}), metadata)
