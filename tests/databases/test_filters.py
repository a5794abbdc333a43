"""Filters keep in every database what they keep here, or are refused by name."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.databases.database import Abilities, VectorDatabase
from server.errors import InvalidRequest
from server.store.filters.tree import AllOf, AnyOf, Compared, Filter, Not, parse
from server.store.records import Info
from tests.support.database_model import DatabaseModel
from tests.support.databases import entry, vector

# Small pools, so that conditions meet values; each value has a near twin.
KEYS = ["a", "b", "a.b", "", "a\0", 'q"]', "键"]
NUMBERS: list[Any] = [
    *(0, -0.0, 1, 1.0, -1, 2, 1.5, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2**64, 10**400),
    *(0.1, 0.1 + 2**-55, 1e308, 5e-324, -5e-324, 1704067200000000),
]
TEXTS = [
    *(
        "",
        "a",
        "A",
        "ab",
        "ab\0",
        "abcdef",
        "abcdefg",
        "b",
        "1",
        "1.0",
        "true",
        "null",
        "\0",
        "é",
        "e\u0301",
    ),
    *(
        "甲",
        "甲乙",
        "\uffff",
        "𠮷",
        "\U0010ffff",
        "%",
        "a_c",
        "a%",
        "\\",
        "'",
        "x" * 256,
        "x" * 300,
        "x" * 299,
    ),
    *(
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "2024-01-01T08:00:00+08:00",
        "2024-01-02",
        "2024-13-01",
    ),
    *("2024-01-01T00:00:00.000001Z", "0001-01-01", "9999-12-31T23:59:59.999999Z"),
]
DATES = [each for each in TEXTS if each[:1].isdigit() and "-" in each and "-13" not in each]
SCALARS = st.sampled_from([*NUMBERS, *TEXTS, True, False, None])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2)
    ),
    max_leaves=5,
)
METADATA = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
DATED = st.sampled_from(DATES).map(lambda text: {"$date": text})
OPERANDS = SCALARS | DATED
ORDERED = st.sampled_from([*NUMBERS, *TEXTS]) | DATED
PARTS = st.sampled_from([each for each in TEXTS if 1 <= len(each) <= 256])
FIELDS = st.sampled_from([*KEYS, "a.b.b", "b.", "c"])
TESTS = st.one_of(
    OPERANDS,
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$eq", "$ne"]), OPERANDS),
    st.builds(
        lambda name, value: {name: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERED
    ),
    st.builds(
        lambda name, values: {name: values},
        st.sampled_from(["$in", "$nin"]),
        st.lists(OPERANDS, max_size=4),
    ),
    st.builds(lambda there: {"$exists": there}, st.booleans()),
    st.builds(lambda name, part: {name: part}, st.sampled_from(["$contains", "$prefix"]), PARTS),
)
OF_TEXTS = st.builds(
    lambda key, test: {key: test},
    st.sampled_from(["$id", "$title"]),
    st.sampled_from(TEXTS)
    | st.builds(
        lambda name, text: {name: text},
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains", "$prefix"]),
        PARTS,
    ),
) | st.builds(
    lambda name, part: {"$text": {name: part}}, st.sampled_from(["$contains", "$prefix"]), PARTS
)
CONDITIONS = st.builds(lambda key, test: {key: test}, FIELDS, TESTS) | OF_TEXTS
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(
            lambda name, inners: {name: inners},
            st.sampled_from(["$and", "$or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda each: {"$not": each}, inner),
    ),
    max_leaves=4,
)
DOCUMENTS = st.tuples(METADATA, st.sampled_from(TEXTS[1:]), st.none() | st.sampled_from(TEXTS))
LABELS = count(1, 10)


def kinds(filter: Filter) -> Iterator[Filter]:
    """Yield every condition of a filter."""
    yield filter
    match filter:
        case AllOf(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from kinds(each)
        case Not(condition):
            yield from kinds(condition)


def may_be_refused(filter: Filter, abilities: Abilities) -> bool:
    """Return whether a database may refuse a filter: of a kind it lacks, or an order of long texts."""
    return any(
        type(each) not in abilities.conditions
        or (isinstance(each, Compared) and isinstance(each.operand, str) and len(each.operand) > 60)
        for each in kinds(filter)
    )


def check(database: VectorDatabase, info: Info, model: DatabaseModel, filter: Filter) -> None:
    """Check that a filter keeps the same documents in every call that takes one."""
    expected = model.entries(filter)
    labels = {row.label for each in expected for row in each.rows}
    try:
        page = database.page(info, -1, 100, filter)
        assert [number for number, _ in page] == [each.number for each in expected], filter
        assert database.count(info, filter) == len(expected), filter
        found = database.nearest(info, vector(0), 100, filter)
        assert {row.label for row in found} == labels, filter
    except InvalidRequest as error:
        assert "cannot be evaluated by" in str(error)
        assert may_be_refused(filter, database.abilities), error


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.lists(FILTERS, min_size=1, max_size=6))
def test_filters_keep_what_they_keep_here(
    database: VectorDatabase,
    info: Info,
    documents: list[tuple[dict[str, object], str, str | None]],
    filters: list[dict[str, object]],
) -> None:
    database.delete(info, [each[:500] for each in TEXTS])
    entries = {
        text: entry(
            next(LABELS), text, text, metadata, title=title, ends=(len(text) // 2, len(text))
        )
        for metadata, text, title in documents
    }
    model = DatabaseModel()
    model.put(list(entries.values()))
    database.put(info, list(entries.values()))
    for each in filters:
        check(database, info, model, parse(each))


@pytest.fixture
def stored(database: VectorDatabase, info: Info) -> tuple[Info, DatabaseModel]:
    """A document for each of the values, alone and in a list."""
    values: list[object] = [*NUMBERS, *TEXTS, True, False, None, [], {}, {"b": 1}]
    entries = [entry(at, f"id {at}", "text", {"a": value}) for at, value in enumerate(values)]
    lists = [
        entry(1_000 + at, f"list {at}", "text", {"a": [value, "other", 77]})
        for at, value in enumerate(values)
    ]
    nothing = entry(2_000, "nothing", "text")
    model = DatabaseModel()
    model.put([*entries, *lists, nothing])
    database.put(info, [*entries, *lists, nothing])
    return info, model


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
def test_every_value_is_compared_with_every_other(
    database: VectorDatabase, stored: tuple[Info, DatabaseModel], operator: str
) -> None:
    info, model = stored
    operands: list[Any] = [*NUMBERS, *TEXTS, *({"$date": date} for date in DATES)]
    operands += [True, False, None] if operator in ("$eq", "$ne") else []
    refused = 0
    for operand in operands:
        filter = parse({"a": {operator: operand}})
        expected = [each.number for each in model.entries(filter)]
        try:
            found = database.page(info, -1, 1_000, filter)
        except InvalidRequest:
            assert may_be_refused(filter, database.abilities), operand
            refused += 1
            continue
        assert [number for number, _ in found] == expected, operand
    assert refused < len(operands) or Compared not in database.abilities.conditions


@pytest.mark.parametrize("operator", ["$contains", "$prefix"])
def test_every_text_is_looked_for_in_every_other(
    database: VectorDatabase, stored: tuple[Info, DatabaseModel], operator: str
) -> None:
    info, model = stored
    for part in [each for each in TEXTS if 1 <= len(each) <= 256]:
        check(database, info, model, parse({"a": {operator: part}}))


def test_a_filter_may_have_the_most_conditions_and_values(
    database: VectorDatabase, info: Info
) -> None:
    values: list[object] = ["ab", "abcdef", "b", 7, "7", True, None]
    given = [entry(at, f"id {at}", "text", {"a": each}) for at, each in enumerate(values)]
    database.put(info, given)
    model = DatabaseModel()
    model.put(given)
    many = {"$or": [{"a": {"$gte": "ab", "$lt": "abcdef"}} for _ in range(128)]}
    check(database, info, model, parse(many))
    check(database, info, model, parse({"a": {"$in": [*range(500), *map(str, range(500))]}}))
    deep: dict[str, object] = {"a": {"$gt": "a"}}
    for at in range(14):
        deep = {"$or": [{"b": at, **deep}, deep]} if at < 5 else {"$not": deep}
    check(database, info, model, parse(deep))


def test_whole_texts_are_searched_beyond_a_chunk(database: VectorDatabase, info: Info) -> None:
    text = "The beginning. " + "middle " * 100 + "The end."
    given = [
        entry(1, "a", text, ends=(100, 300, len(text))),
        entry(4, "b", text[:200], ends=(50, 200)),
        entry(6, "c", "The end."),
    ]
    database.put(info, given)
    model = DatabaseModel()
    model.put(given)
    for test in (
        {"$contains": "The end."},
        {"$contains": "beginning. middle"},
        {"$prefix": "The b"},
        {"$prefix": "middle"},
        {"$contains": text[95:105]},
    ):
        check(database, info, model, parse({"$text": test}))
        check(database, info, model, parse({"$not": {"$text": test}}))
        check(database, info, model, parse({"$or": [{"$text": test}, {"$id": "c"}]}))
