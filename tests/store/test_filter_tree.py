"""Limits of a filter: every operator counts towards them."""

from typing import Any

import pytest

from server.errors import InvalidRequest
from server.store.filters.tree import MAX_CONDITIONS, MAX_LISTED, MAX_VALUES, AllOf, AnyOf, parse


@pytest.mark.parametrize(
    "condition",
    [
        1,
        {"$ne": 1},
        {"$in": []},
        {"$nin": [1]},
        {"$gt": 1},
        {"$gte": "a"},
        {"$lt": 1},
        {"$lte": 1},
        {"$exists": False},
        {"$not": {"$exists": True}},
    ],
    ids=str,
)
def test_conditions_of_each_operator_are_counted(condition: Any) -> None:
    assert MAX_CONDITIONS == 256
    full = parse({"$or": [{"a": condition}] * MAX_CONDITIONS})
    assert isinstance(full, AnyOf) and len(full.conditions) == MAX_CONDITIONS
    with pytest.raises(InvalidRequest, match="more than 256 conditions"):
        parse({"$or": [{"a": condition}] * MAX_CONDITIONS + [{"b": 1}]})


def test_values_and_fields_of_each_operator_are_counted() -> None:
    assert (MAX_LISTED, MAX_VALUES) == (1_000, 10_000)
    # Each field counts one, and each value that it is compared with.
    lists = [{"a": {"$in": list(range(MAX_LISTED))}}] * 9
    rest = [
        {"a": {"$nin": list(range(982))}},
        {"b": 1},
        {"c": {"$gt": 1}},
        {"d": {"$exists": True}},
    ]
    full = [*lists, *rest, {"e": {"$exists": False}}, {"f": {"$ne": None}}]
    found = parse({"$and": full})
    assert isinstance(found, AllOf) and len(found.conditions) == len(full)
    for more, number in (({"g": {"$exists": True}}, 10_000), ({"g": {"$lte": 1}}, 10_001)):
        counted = [*full[:-2], more, full[-1]]
        if number <= MAX_VALUES:
            parse({"$and": counted})
        else:
            with pytest.raises(InvalidRequest, match=f"{number} values and fields, at most 10000"):
                parse({"$and": counted})
