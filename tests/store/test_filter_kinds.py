"""Warnings about conditions that no stored value can meet, or that are not compared exactly."""

from typing import Any

import pytest

from server.store.filters.kinds import MOST_WARNINGS, Operand, operands, warnings
from server.store.filters.tree import MAX_PART, parse


def test_the_first_ten_conditions_without_a_match_are_named() -> None:
    asked = [Operand(f"k{n}", frozenset(["number"])) for n in range(12)]
    rows = [(each.key, False, True, False, False) for each in asked]
    said = warnings(asked, rows)
    assert len(said) == MOST_WARNINGS == 10
    assert said[0].startswith("no value of 'k0' can match: the filter compares it with a number,")
    assert said[-1].startswith("no value of 'k9' ")


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ({"n": 2**63}, ["9223372036854775808, which has more than 64 bits"]),
        ({"n": {"$nin": [1, -(2**63) - 1]}}, ["-9223372036854775809, which has more than 64 bits"]),
        ({"n": {"$gt": 10**400}}, ["which has more than 64 bits"]),
        ({"n": {"$in": [2**63 - 1, -(2**63), 2.0**70]}}, []),
        ({"t": {"$gt": "x" * (MAX_PART + 1)}}, ["a text of 257 characters, and the order"]),
        ({"t": {"$lte": "x" * MAX_PART}}, []),
        ({"t": "x" * 1_000}, []),
        ({"$id": {"$gt": "x" * 300}}, []),
        # A number that meets no text is named for that alone.
        ({"t": 2**63}, ["no value of 't' can match"]),
    ],
)
def test_values_that_are_compared_by_their_beginning_are_named(
    filter: dict[str, Any], said: list[str]
) -> None:
    rows = [("n", True, False, False, False), ("t", False, True, False, False)]
    found = warnings(list(operands(parse(filter))), rows)
    assert len(found) == len(said)
    assert all(part in one for part, one in zip(said, found, strict=True))
