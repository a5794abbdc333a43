"""Filters on a real SQLite, against a slow and simple reading of them."""

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.store.filters.functions import FUNCTIONS
from server.store.filters.instants import instant
from server.store.filters.kinds import Kind, Operand, operands, stored_kinds, warnings
from server.store.filters.match import matches
from server.store.filters.sql import LONG_TEXT, attributes, where
from server.store.filters.tree import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_LISTED,
    Filter,
    Instant,
    OneOf,
    Scalar,
    fixed,
    parse,
)
from tests.support.toy_index import keeps, ordered, reached, same, when

SCHEMA = """
    CREATE TABLE documents (number INTEGER PRIMARY KEY AUTOINCREMENT);
    CREATE TABLE attributes (
        key TEXT NOT NULL, value NOT NULL, document INTEGER NOT NULL,
        PRIMARY KEY (key, value, document)
    ) WITHOUT ROWID;
"""


def stored(*metadata: Mapping[str, object]) -> sqlite3.Connection:
    """Return a database with these documents, numbered from 0."""
    database = sqlite3.connect(":memory:")
    for name, (n_arguments, function) in FUNCTIONS.items():
        database.create_function(name, n_arguments, function, deterministic=True)
    database.executescript(SCHEMA)
    for number, one in enumerate(metadata):
        database.execute("INSERT INTO documents VALUES (?)", (number,))
        rows = [(*pair, number) for pair in attributes(json.loads(json.dumps(one)))]
        database.executemany("INSERT INTO attributes VALUES (?, ?, ?)", rows)
    return database


def found(database: sqlite3.Connection, filter: Mapping[str, object]) -> list[int]:
    condition, parameters = where(parse(filter), "number")
    query = f"SELECT number FROM documents WHERE {condition} ORDER BY number"
    return [number for (number,) in database.execute(query, parameters)]


def kept(filter: Mapping[str, object], *metadata: Mapping[str, object]) -> list[int]:
    database = stored(*metadata)
    try:
        return found(database, filter)
    finally:
        database.close()


# --- the reading --------------------------------------------------------------------------------


def compared(a: object, operator: str, b: object) -> bool:
    return ordered(a, {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[operator], b)


def holds(filter: Mapping[str, Any], metadata: object) -> bool:
    for key, value in filter.items():
        if key == "$and":
            fits = all(holds(part, metadata) for part in value)
        elif key == "$or":
            fits = any(holds(part, metadata) for part in value)
        elif key == "$not":
            fits = not holds(value, metadata)
        else:
            fits = field_holds(value, list(reached(metadata, key)))
        if not fits:
            return False
    return True


def field_holds(condition: object, values: list[object]) -> bool:
    if not isinstance(condition, dict) or "$date" in condition:
        return has(values, condition)
    return all(operator_holds(name, operand, values) for name, operand in condition.items())


def has(values: list[object], wanted: object) -> bool:
    found = any(same(value, meant(wanted)) for value in values)
    return found or (wanted is None and not values)


def meant(operand: Any) -> Any:
    """Return what an operand stands for: a date is an instant."""
    if not isinstance(operand, dict):
        return operand
    found = instant(operand["$date"])
    assert found is not None
    return Instant(found)


def operator_holds(operator: str, operand: Any, values: list[object]) -> bool:
    if operator == "$eq":
        return has(values, operand)
    if operator == "$ne":
        return not has(values, operand)
    if operator == "$in":
        return any(has(values, one) for one in operand)
    if operator == "$nin":
        return not any(has(values, one) for one in operand)
    if operator == "$exists":
        return operand is bool(values)
    if operator == "$not":
        return not field_holds(operand, values)
    if operator in ("$contains", "$prefix"):
        texts = [value for value in values if isinstance(value, str)]
        if operator == "$prefix":
            return any(text.startswith(operand) for text in texts)
        return any(operand in text[:LONG_TEXT] for text in texts)
    if isinstance(operand, dict):
        found = meant(operand).microseconds
        return any(compared(when(value), operator, found) for value in values)
    return any(compared(value, operator, operand) for value in values)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 1.0, 0.5, -0.0, 2**53, 2**53 + 1, 2.0**53, -(2**63), 1e300])
TEXTS = st.sampled_from(
    ["", "a", "b", "1", "深圳", "深", "\0", "a\0", "😀", "\uffff", "true", "{}", "\U0010ffff"]
)
DATES = st.sampled_from(
    ["2024-01-01", "2024-01-01T08:00+08:00", "2024-01-01 00:00:00.5Z", "2024-01-01T00:00:00.500000"]
)
LONG = st.sampled_from(["x" * LONG_TEXT, "x" * LONG_TEXT + "a", "深" * 300 + "a"])
PARTS = st.sampled_from(["a", "深", "\0", "x", "x" * LONG_TEXT, "a\0", "\U0010ffff", "2024", "T"])
OPERANDS = st.one_of(NUMBERS, TEXTS, DATES, st.builds(lambda text: {"$date": text}, DATES))
SCALARS = st.one_of(NUMBERS, TEXTS, DATES, LONG, st.booleans(), st.none())
GIVEN = st.one_of(SCALARS, st.builds(lambda text: {"$date": text}, DATES))
NAMES = st.sampled_from(["a", "b", "a.b"])
PATHS = st.sampled_from(["a", "b", "a.b", "b.a"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=4)
OPERATIONS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.dictionaries(st.sampled_from(["$eq", "$ne"]), GIVEN, min_size=1),
        st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(GIVEN, max_size=3), min_size=1),
        st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), OPERANDS, min_size=1),
        st.dictionaries(st.just("$exists"), st.booleans(), min_size=1),
        st.dictionaries(st.sampled_from(["$contains", "$prefix"]), PARTS, min_size=1),
    ),
    lambda inner: st.dictionaries(st.just("$not"), inner, min_size=1),
    max_leaves=2,
)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(PATHS, st.one_of(GIVEN, OPERATIONS), min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.dictionaries(
            st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1
        ),
        st.dictionaries(st.just("$not"), inner, min_size=1),
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(METADATA, min_size=1, max_size=6), st.lists(FILTERS, min_size=1, max_size=6))
def test_filters_keep_what_their_reading_keeps(
    metadata: list[dict[str, object]], filters: list[dict[str, Any]]
) -> None:
    database = stored(*metadata)
    for filter in filters:
        expected = [place for place, one in enumerate(metadata) if holds(filter, one)]
        assert found(database, filter) == expected, filter
        tree = parse(filter)
        assert [place for place, one in enumerate(metadata) if keeps(tree, one)] == expected
        if (always := fixed(tree)) is not None:
            assert len(expected) == (len(metadata) if always else 0)
        # What a warning names keeps nothing, or inside of a $not everything.
        for operand in unmet(database, tree):
            inner = [keeps(one_of(operand), each) for each in metadata]
            assert not any(inner)
        # As search does it: on metadata as it comes out of the database.
        read = [json.loads(json.dumps(one)) for one in metadata]
        assert [place for place, one in enumerate(read) if matches(tree, one)] == expected
    database.close()


def unmet(database: sqlite3.Connection, tree: Filter) -> list[Operand]:
    """Return the operands of a filter that draw a warning."""
    asked = list(operands(tree))
    rows = list(database.execute(*stored_kinds([each.key for each in asked]))) if asked else []
    return [each for each in asked if warnings([each], rows)]


def one_of(operand: Operand) -> Filter:
    """Return a filter for values that the strategies have, of the operand's kinds."""
    values: dict[Kind, tuple[Scalar, ...]]
    values = {"number": (-1, 0, 1, 2, 0.5), "text": ("", "a", "1"), "true or false": (True, False)}
    return OneOf(operand.key, tuple(value for kind in operand.kinds for value in values[kind]))


# --- single cases, to be read ---------------------------------------------------------------------


def test_several_keys_and_several_operators_must_all_hold() -> None:
    documents: tuple[dict[str, object], ...]
    documents = ({"city": "深圳", "year": 2021}, {"city": "深圳", "year": 2024}, {"city": "北京"})
    assert kept({"city": "深圳", "year": {"$gte": 2020, "$lt": 2024}}, *documents) == [0]
    assert kept({}, *documents) == [0, 1, 2]


def test_a_number_range_does_not_reach_into_texts_nor_the_other_way_round() -> None:
    documents: tuple[dict[str, object], ...]
    documents = ({"x": 5}, {"x": "5"}, {"x": True}, {"x": None}, {"x": {}})
    assert kept({"x": {"$gte": 0}}, *documents) == [0]
    assert kept({"x": {"$lte": 9}}, *documents) == [0]
    assert kept({"x": {"$gt": ""}}, *documents) == [1]
    assert kept({"x": {"$lt": "9"}}, *documents) == [1]


def test_true_is_not_1_and_1_is_1_0() -> None:
    documents: tuple[dict[str, object], ...]
    documents = ({"x": True}, {"x": 1}, {"x": 1.0}, {"x": "1"}, {"x": [1, 1.0, True]})
    assert kept({"x": True}, *documents) == [0, 4]
    assert kept({"x": 1}, *documents) == [1, 2, 4]


def test_a_missing_field_is_unequal_to_every_value_but_null() -> None:
    documents: tuple[dict[str, object], ...] = ({}, {"x": None}, {"x": 1})
    assert kept({"x": {"$ne": 1}}, *documents) == [0, 1]
    assert kept({"x": {"$nin": [1, 2]}}, *documents) == [0, 1]
    assert kept({"$not": {"x": 1}}, *documents) == [0, 1]
    assert kept({"x": {"$not": {"$gt": 0}}}, *documents) == [0, 1]
    assert kept({"x": None}, *documents) == [0, 1]
    assert kept({"x": {"$ne": None}}, *documents) == [2]
    assert kept({"x": {"$exists": True}}, *documents) == [1, 2]
    assert kept({"x": {"$in": [None]}}, *documents) == [0, 1]
    assert kept({"x": {"$in": [None, 1]}}, *documents) == [0, 1, 2]
    assert kept({"x": {"$nin": [None]}}, *documents) == [2]
    assert kept({"x": {"$nin": [None, 1]}}, *documents) == []
    assert kept({"x": {"$not": {"$in": [None]}}}, *documents) == [2]


def test_one_element_of_a_list_is_enough() -> None:
    documents: tuple[dict[str, object], ...]
    documents = ({"tags": ["诗", "词"]}, {"tags": "词"}, {"tags": []}, {"tags": [["词"]]})
    assert kept({"tags": "词"}, *documents) == [0, 1, 3]
    assert kept({"tags": {"$ne": "词"}}, *documents) == [2]
    assert kept({"tags": {"$exists": True}}, *documents) == [0, 1, 2, 3]


def test_a_path_with_dots_leads_into_objects_also_of_a_list() -> None:
    documents: tuple[dict[str, object], ...] = (
        {"author": {"name": "李白", "born": 701}},
        {"author": [{"name": "杜甫"}, {"name": "李白"}]},
        {"author": "李白"},
    )
    assert kept({"author.name": "李白"}, *documents) == [0, 1]
    assert kept({"author": {"$exists": True}}, *documents) == [0, 1, 2]
    assert kept({"author": None}, *documents) == []


def test_an_empty_list_of_values_keeps_nothing() -> None:
    documents: tuple[dict[str, object], ...] = ({"x": 1}, {})
    assert kept({"x": {"$in": []}}, *documents) == []
    assert kept({"x": {"$nin": []}}, *documents) == [0, 1]


def test_long_texts_are_told_apart_by_what_lies_beyond_the_stored_beginning() -> None:
    long = "长" * LONG_TEXT
    documents = ({"x": long + "甲"}, {"x": long + "乙"}, {"x": long})
    assert kept({"x": long + "乙"}, *documents) == [1]
    assert kept({"x": long}, *documents) == [2]
    assert kept({"x": {"$gt": "长"}}, *documents) == [0, 1, 2]
    assert all(len(str(value)) < 2 * LONG_TEXT for _, value in attributes({"x": "长" * 10**6}))


def test_integers_beyond_64_bits_are_stored_as_floats() -> None:
    documents = (
        {"x": 2**63 - 1},
        {"x": 2**64},
        {"x": -(10**30)},
        {"x": 10**400},
        {"x": -(10**400)},
    )
    assert kept({"x": 2**63 - 1}, *documents) == [0]
    assert attributes({"x": 2**63}) == [("x", float(2**63))]
    assert attributes({"x": -(2**63)}) == [("x", -(2**63))]
    assert [type(value) for _, value in attributes({"a": 2**63, "b": -(2**63)})] == [float, int]
    assert kept({"x": {"$in": [2**63, -(2**63)]}}, {"x": 2**63}, {"x": -(2**63)}) == [0, 1]
    assert kept({"x": 2**64}, *documents) == [1]
    assert kept({"x": {"$gt": 2**63 - 1}}, *documents) == [1, 3]
    assert kept({"x": {"$lt": -(2**63)}}, *documents) == [2, 4]
    assert [matches(parse({"x": 2**64}), one) for one in documents] == [False, True, *3 * [False]]


def test_metadata_decides_by_itself_as_the_stored_rows_do() -> None:
    long = "长" * LONG_TEXT
    assert matches(parse({"x": long + "乙"}), {"x": long + "乙"})
    assert not matches(parse({"x": long + "甲"}), {"x": long + "乙"})
    assert matches(parse({"$not": {"a.b": {"$lt": "m"}}}), {"a": [{"b": "z"}, {"b": 1}]})
    assert not matches(parse({"tenant": {"$ne": "a"}}), {"tenant": "a"})


def test_deep_metadata_is_flattened_without_recursion() -> None:
    deep: dict[str, object] = {"x": 1}
    for _ in range(5_000):
        deep = {"": deep}
    assert len(attributes(deep)) == 5_001


def test_a_key_with_quotes_is_only_a_name() -> None:
    key = "x' OR 1=1 --\"?"
    assert kept({key: 1}, {key: 1}, {"x": 1}) == [0]


REFUSED: list[tuple[Any, str]] = [
    ([], "an empty list is not an object"),
    ([1], "a list is not an object"),
    ("city", "'city' is not an object"),
    ({"$and": []}, r"\$and takes a list of one or more filters, not an empty list"),
    ({"$or": []}, r"\$or takes a list of one or more filters, not an empty list"),
    ({"$or": {}}, r"\$or takes a list of one or more filters, not an empty object"),
    ({"$not": []}, "an empty list is not an object"),
    ({"a": []}, r"'a' is compared with an empty list"),
    ({"a": {"$in": {}}}, r"\$in of 'a' takes a list, not an empty object"),
    ({"$or": {"a": 1}}, r"\$or takes a list of one or more filters, not an object"),
    ({"$and": [1]}, "1 is not an object"),
    ({"$not": 1}, "1 is not an object"),
    ({"$and": [{}]}, "an empty object inside a filter keeps every document"),
    ({"$or": [{"a": 1}, {}]}, "an empty object inside a filter"),
    ({"$not": {}}, "an empty object inside a filter"),
    ({"$nor": [{}]}, r"unknown operator '\$nor'"),
    ({"$and": [{"$or": [{"$not": {}}]}]}, "an empty object inside a filter"),
    ({"$and": [{}] * 100_000}, "an empty object inside a filter"),
    ({"$or": [{"$and": [{"a": 1}]}] * 100_000}, "more than 256 conditions"),
    ({"$where": "1"}, r"unknown operator '\$where'.*\$and, \$or, \$not"),
    ({"a": {"$regex": "x"}}, r"unknown operator '\$regex' of 'a'.*\$gte"),
    ({"a": {"b": 1}}, "unknown operator 'b' of 'a'.*path with dots"),
    ({"a": {}}, "'a' has an empty object"),
    ({"a": [1]}, r"'a' is compared with a list.*\$in"),
    ({"a": {"$eq": {"b": 1}}}, "'a' is compared with an object"),
    ({"a": {"$in": [[1]]}}, "'a' is compared with a list"),
    ({"a": {"$in": 1}}, r"\$in of 'a' takes a list, not 1"),
    ({"a": {"$nin": "x"}}, r"\$nin of 'a' takes a list, not 'x'"),
    ({"a": {"$gt": True}}, r"\$gt of 'a' takes a number or a text, not True"),
    ({"a": {"$lt": None}}, r"\$lt of 'a' takes a number or a text, not None"),
    ({"a": {"$lte": [1]}}, "'a' is compared with a list"),
    ({"a": {"$gte": {}}}, "'a' is compared with an empty object"),
    ({"a": {"$exists": 1}}, r"\$exists of 'a' takes true or false, not 1"),
    ({"a": {"$not": 1}}, r"\$not of 'a' takes an object of operators.*\$ne.*not 1"),
    ({"a": float("nan")}, "'a' is compared with nan"),
    ({"a": "\ud800"}, "lone surrogate at character 0"),
    ({"a\ud800": 1}, "lone surrogate at character 1"),
    ({"a": {"$in": ["x", "\ud800"]}}, "lone surrogate at character 0"),
    ({"a" * 100: []}, r"^'a{59}\.\.\. is compared"),
    ({"a": {"$in": list(range(MAX_LISTED + 1))}}, "1001 values, at most 1000"),
    ({str(n): n for n in range(MAX_CONDITIONS + 1)}, "more than 256 conditions"),
    ({"$or": [{"a": 1}] * (MAX_CONDITIONS + 1)}, r"more than 256 conditions.*\$in"),
    (
        {"$or": [{"a": {"$in": list(range(MAX_LISTED))}}] * 10},
        "10010 values and fields, at most 10000",
    ),
]


@pytest.mark.parametrize(("filter", "message"), REFUSED)
def test_what_is_no_filter_is_refused_by_name(filter: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refusal:
        parse(filter)
    assert refusal.value.param == "filter"
    assert "\ud800" not in refusal.value.message


def nested(levels: int, key: str) -> dict[str, Any]:
    filter: dict[str, Any] = {"a": 1} if key != "field" else {"$gt": 1}
    for _ in range(levels - 1):
        filter = {"$not": filter} if key in ("$not", "field") else {key: [filter]}
    return {"a": filter} if key == "field" else filter


@pytest.mark.parametrize("key", ["$and", "$or", "$not", "field"])
def test_depth_is_limited(key: str) -> None:
    parse(nested(MAX_DEPTH, key))
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InvalidRequest, match=f"nested deeper than {MAX_DEPTH} levels"):
            parse(nested(levels, key))


def test_a_filter_at_every_limit_runs() -> None:
    database = stored({"a": 1}, {"b": 2})
    filter: dict[str, Any] = {"a": {"$in": list(range(MAX_LISTED))}}
    assert found(database, {"$or": [filter] * 9}) == [0]
    filter = {"$or": [{"a": n} for n in range(MAX_CONDITIONS)]}
    for _ in range(MAX_DEPTH - 2):
        filter = {"$and": [filter]}
    assert found(database, filter) == [0]
    assert found(database, {"$and": [{"b": {"$ne": n}} for n in range(MAX_CONDITIONS)]}) == [0]
    database.close()


@pytest.mark.parametrize(
    ("filter", "kept_always"),
    [
        ({}, True),
        ({"a": {"$nin": []}}, True),
        ({"$not": {"a": {"$in": []}}}, True),
        ({"$or": [{"a": 1}, {"b": {"$nin": []}}]}, True),
        ({"$and": [{"a": 1}, {"b": {"$nin": []}}]}, None),
        ({"$and": [{"a": 1}, {"b": {"$in": []}}]}, False),
        ({"$or": [{"a": {"$in": []}}, {"b": {"$in": []}}]}, False),
        ({"a": {"$exists": True}}, None),
        ({"a": {"$ne": None}}, None),
    ],
)
def test_a_filter_that_keeps_everything_is_known(filter: Any, kept_always: bool | None) -> None:
    assert fixed(parse(filter)) is kept_always


def warned(filter: Mapping[str, object], *metadata: Mapping[str, object]) -> list[str]:
    database = stored(*metadata)
    asked = list(operands(parse(filter)))
    rows = list(database.execute(*stored_kinds([each.key for each in asked])))
    database.close()
    return warnings(asked, rows)


@pytest.mark.parametrize(
    ("filter", "metadata", "words"),
    [
        ({"x": {"$gte": 2020}}, {"x": "2021"}, "'x'.*with a number, and every stored .* a text"),
        ({"x": 2020}, {"x": "2020"}, "a number, and every stored value is a text"),
        ({"x": {"$ne": 2020}}, {"x": "2020"}, "a number, and every stored value is a text"),
        ({"x": {"$in": [1, True]}}, {"x": "1"}, "a number or true or false, and"),
        ({"x": "2020"}, {"x": 2020}, "a text, and every stored value is a number"),
        ({"x": True}, {"x": ["true", "1"]}, "true or false, and every stored value is a text"),
        ({"x": "李白"}, {"x": {"name": "李白"}}, "is an object or empty list"),
        ({"x.name": 1}, {"x": {"name": "李白"}}, "'x.name'"),
    ],
)
def test_a_condition_that_no_stored_value_can_meet_is_named(
    filter: Any, metadata: Any, words: str
) -> None:
    (said,) = warned({"$or": [filter, {"y": 1}]}, metadata, {"y": 1}, {"x": None})
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("filter", "negated"),
    [
        ({"x": 1}, False),
        ({"x": {"$in": [1, 2]}}, False),
        ({"x": {"$ne": 1}}, True),
        ({"x": {"$nin": [1, 2]}}, True),
        ({"x": {"$not": {"$gt": 1}}}, True),
        ({"$not": {"x": 1}}, True),
        ({"$not": {"$or": [{"x": 1}, {"y": 1}]}}, True),
        ({"x": {"$not": {"$ne": 1}}}, False),
        ({"$not": {"x": {"$nin": [1]}}}, False),
    ],
)
def test_what_is_said_of_a_condition_is_true(filter: Any, negated: bool) -> None:
    documents = {"x": "a"}, {"x": "b"}, {"y": 1}
    (said,) = warned(filter, *documents)
    assert said.startswith(
        "the condition on 'x' excludes no document:" if negated else "no value of 'x' can match:"
    )
    having = [number for number in kept(filter, *documents) if "x" in documents[number]]
    assert having == ([0, 1] if negated else [])


@pytest.mark.parametrize(
    ("filter", "metadata"),
    [
        ({"x": {"$gte": 2020}}, {"x": ["a", 1]}),
        ({"x": 1}, {"x": 2.5}),
        ({"x": {"$in": ["a", 1]}}, {"x": 2}),
        ({"x": None}, {"x": "a"}),
        ({"x": {"$in": [None, 1]}}, {"x": "a"}),
        ({"x": {"$exists": True}}, {"x": "a"}),
        ({"x": {"$in": []}}, {"x": "a"}),
        ({"x": 1}, {"x": None}),
        ({"x": 1}, {}),
    ],
)
def test_a_condition_that_some_value_could_meet_is_not_named(filter: Any, metadata: Any) -> None:
    assert warned({"$or": [filter, {"y": 1}]}, metadata, {"y": 1}) == []


@pytest.mark.parametrize(
    ("condition", "bounds"),
    [
        (1, "key=? AND value=?"),
        ({"$in": [1, "a"]}, "key=? AND value=?"),
        ({"$gt": 1}, "key=? AND value>? AND value<?"),
        ({"$lte": 1}, "key=? AND value<?"),
        ({"$gte": "a"}, "key=? AND value>? AND value<?"),
        ({"$lt": "a"}, "key=? AND value>? AND value<?"),
        ({"$exists": True}, "key=?"),
        ({"$ne": 1}, "key=? AND value=?"),
    ],
)
def test_conditions_are_looked_up_in_the_primary_key(condition: Any, bounds: str) -> None:
    database = stored({"a": 1})
    sql, parameters = where(parse({"a": condition}), "number")
    plan = database.execute(
        f"EXPLAIN QUERY PLAN SELECT number FROM documents WHERE {sql}", parameters
    )
    steps = [row[3] for row in plan]
    assert f"SEARCH attributes USING PRIMARY KEY ({bounds})" in steps
    database.close()
