"""Filters in memory keep what SQLite keeps, through every kind of write."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from server.store.collection import Collection
from server.store.columns import columns as columns_module
from server.store.columns import history, loading
from server.store.columns.segment import MOST_COLUMNS
from server.store.columns.texts import Texts
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.reading import filtered
from server.store.records import ChunkRules, Document, Info, Span

BIG = (1 << 53) + 1
SCALARS: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        1.0,
        -1,
        2.5,
        7,
        BIG,
        BIG - 1,
        float(BIG),
        2**63 - 1,
        2**70,
        -(2**63),
    ),
    *(
        "",
        "a",
        "b",
        "ab",
        "abc",
        "a\0b",
        "深圳",
        "深",
        "\U0010ffff",
        "é",
        "2024",
        "x" * 256,
        "x" * 257,
    ),
    *("x" * 256 + "y", "x" * 300 + "tail", "0", "2024-01-01", "2024-01-01T08:00+08:00"),
    *("2024-02-30", "2024-01-01T00:00:00.5Z"),
]
DATES = [
    {"$date": text} for text in ("2024-01-01", "2024-01-01 00:00:00.5", "2023-12-31T23:59:59Z")
]
BESIDE = ["$id", "$title"]
SIGNS = ["$gt", "$gte", "$lt", "$lte"]
OPERATORS = ["$eq", "$ne", "$in", "$nin", "$exists", "$contains", "$prefix"]
KEYS = ["k", "tags", "n", "o.p", "o"]


def value(random: random.Random) -> Any:
    some = random.random()
    if some < 0.15:
        return [random.choice(SCALARS) for _ in range(random.randint(0, 3))]
    if some < 0.2:
        return {"p": random.choice(SCALARS)} if some < 0.19 else {}
    return random.choice(SCALARS)


def metadata(random: random.Random) -> dict[str, Any]:
    found = {key: value(random) for key in ("k", "tags", "o") if random.random() < 0.7}
    if random.random() < 0.8:
        found["n"] = random.randint(-3, 3)
    return found


def condition(random: random.Random) -> Any:
    operator = random.choice([*OPERATORS, *SIGNS])
    if operator in ("$contains", "$prefix"):
        return {
            operator: random.choice(["a", "b", "x", "2024-01", "深", "x" * 256, "\0", "\U0010ffff"])
        }
    if operator in ("$eq", *SIGNS) and random.random() < 0.2:
        return {operator: random.choice(DATES)}
    if operator in ("$in", "$nin"):
        return {operator: [random.choice([*SCALARS, *DATES]) for _ in range(random.randint(0, 4))]}
    if operator == "$exists":
        return {operator: random.random() < 0.5}
    if operator in ("$eq", "$ne"):
        return {operator: random.choice(SCALARS)}
    comparable = [each for each in SCALARS if each is not None and not isinstance(each, bool)]
    return {operator: random.choice(comparable)}


def filter_of(random: random.Random, depth: int = 0) -> dict[str, Any]:
    some = random.random()
    if depth < 2 and some < 0.3:
        parts = [filter_of(random, depth + 1) for _ in range(random.randint(1, 3))]
        return {"$and" if some < 0.15 else "$or": parts}
    if depth < 2 and some < 0.4:
        return {"$not": filter_of(random, depth + 1)}
    if some < 0.5:
        return {random.choice(BESIDE): beside(random)}
    return {random.choice([*KEYS, "absent"]): condition(random)}


def beside(random: random.Random) -> Any:
    """Return a condition on an id or a title."""
    operator = random.choice(["$in", "$nin", "$contains", "$prefix", "$exists", *SIGNS])
    some = random.choice(["1", "2", "33", "7", "a", "b", "c"])
    if operator == "$exists":
        return {operator: random.random() < 0.5}
    return {operator: [some, "a", "4"] if operator in ("$in", "$nin") else some}


@pytest.fixture(params=[None, ChunkRules(10, 0)], ids=["whole", "in chunks"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    with closing(DataFolder(tmp_path)) as folder:
        yield folder.create(Info("x", "f", 4, request.param))


def write(collection: Collection, ids: list[str], random: random.Random) -> None:
    documents = [
        Document(id, f"text {id}", random.choice([None, "a", "b"]), metadata(random)) for id in ids
    ]
    spans = None
    if collection.info.chunks is not None:
        spans = [
            [Span(0, len(each.text)), *[Span(0, 4)] * random.randint(0, 2)] for each in documents
        ]
    n = len(ids) if spans is None else sum(map(len, spans))
    collection.add(documents, np.ones((n, 4), dtype=np.float32), spans)


def check(collection: Collection, random: random.Random, n: int = 25) -> None:
    for _ in range(n):
        given = filter_of(random)
        tree = parse(given)
        with collection.reading():
            revision = collection.documents.revision()
            made = collection._moments[revision].selection(tree, collection.documents.database)
            expected = collection.documents.labels(tree)
            columns = collection.columns()
            assert columns is not None
            numbers = columns.numbers(tree, collection.documents.database)
            documents = collection.documents.page(0, 1000, tree)
        assert made is not None and numbers is not None
        assert numbers.tolist() == [number for number, _ in documents], given
        assert filtered.count(collection, tree) == len(documents)
        after, limit = random.randint(0, 100), random.randint(1, 9)
        by_sql = collection.documents.page_within(after, limit, tree, 400)
        assert filtered.page(collection, after, limit, tree, 400) == by_sql, given
        assert made.labels.tolist() == expected.tolist(), given
        assert made.count == len(expected)


@pytest.mark.parametrize("seed", range(4))
def test_filters_in_memory_keep_what_sqlite_keeps(
    collection: Collection, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "MOST_PARTS", 3)
    monkeypatch.setattr(columns_module, "LARGE_PART", 8)
    dice = random.Random(seed)
    check(collection, dice, 3)
    write(collection, [f"{n}" for n in range(60)], dice)
    check(collection, dice)
    for _ in range(12):
        for _ in range(dice.randint(1, 3)):
            some = [f"{dice.randint(0, 90)}" for _ in range(dice.randint(1, 6))]
            if dice.random() < 0.3:
                collection.delete(some)
            else:
                write(collection, list(dict.fromkeys(some)), dice)
        check(collection, dice, 12)
    collection.delete([f"{n}" for n in range(100)])
    check(collection, dice, 3)


def test_few_documents_among_many_numbers_are_kept_apart(collection: Collection) -> None:
    dice = random.Random(0)
    for step in range(4):
        write(collection, [f"{n}" for n in range(200)], dice)
        collection.delete([f"{n}" for n in range(200) if n % 50])
        write(collection, [f"last {step}"], dice)
    for moment in (collection._moments, {None: history.Moment()}):
        assert len(moment) == 1
        check(collection, dice)


def test_writes_that_no_filter_follows_are_only_noted(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    write(collection, ["a", "b"], dice)
    (moment,) = collection._moments.values()
    assert moment._before is None, "nothing is in memory, so nothing is noted"
    check(collection, dice, 1)
    write(collection, ["c"], dice)
    collection.delete(["a"])
    (moment,) = collection._moments.values()
    assert moment._columns is None and moment._n_writes == 2
    check(collection, dice, 1)
    assert moment._columns is not None and moment._columns.age == 2
    monkeypatch.setattr(history, "MOST_WRITES", 1)
    for id in "defg":
        write(collection, [id], dice)
    check(collection, dice, 5)


def test_a_write_that_fails_leaves_the_columns_as_they_were(collection: Collection) -> None:
    dice = random.Random(2)
    write(collection, ["a", "b"], dice)
    check(collection, dice, 2)
    vectors = np.full((1, 4), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match="finite"):
        collection.add([Document("c", "text", None, {"k": 1})], vectors)
    check(collection, dice, 5)


def test_a_search_of_an_older_moment_uses_no_column_that_was_read_later(
    collection: Collection,
) -> None:
    dice = random.Random(3)
    write(collection, [f"{n}" for n in range(20)], dice)
    check(collection, dice, 1)
    tree = parse({"fresh": {"$ne": 1}})
    database = collection.documents.database
    with collection.reading():
        moment = collection._moments[collection.documents.revision()]
        before = collection.documents.labels(tree)

        def meanwhile() -> None:
            collection.delete(["3", "4"])
            with collection.reading():
                collection.selection(tree)

        thread = Thread(target=meanwhile)
        thread.start()
        thread.join()
        assert moment.selection(tree, database) is None, "SQLite evaluates it"
        assert len(before) > len(collection.index)


def test_a_key_with_too_many_values_is_left_to_sqlite(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MOST_VALUES", 1)
    dice = random.Random(4)
    write(collection, [f"{n}" for n in range(20)], dice)
    tree = parse({"k": {"$ne": 1}})
    with collection.reading():
        (moment,) = collection._moments.values()
        assert moment.selection(tree, collection.documents.database) is None
        expected = collection.documents.labels(tree)
        assert collection.selection(tree).labels.tolist() == expected.tolist()
    documents = collection.documents.page(0, 100, tree)
    assert filtered.numbers(collection, tree) is None
    assert filtered.count(collection, tree) == len(documents)
    assert filtered.page(collection, 0, 100, tree, 10**9) == (documents, False)


def test_columns_over_their_bound_are_dropped_and_read_again(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "MOST_BYTES", 1)
    monkeypatch.setattr(columns_module, "MOST_BYTES_A_DOCUMENT", 0)
    dice = random.Random(5)
    write(collection, [f"{n}" for n in range(20)], dice)
    check(collection, dice)
    (moment,) = collection._moments.values()
    assert moment._columns is not None and len(moment._columns.loaded.columns) == 1


def test_columns_of_many_keys_are_few_and_those_used_last_stay(collection: Collection) -> None:
    dice = random.Random(6)
    write(collection, [f"{n}" for n in range(20)], dice)
    check(collection, dice)
    write(collection, ["20", "21"], dice)
    with collection.reading():
        for first in range(0, MOST_COLUMNS + 1, 200):
            asked = [{"k": 1}, *({f"key {first + n}": 1} for n in range(200))]
            collection.selection(parse({"$and": asked}))
    moment = list(collection._moments.values())[-1]
    assert moment._columns is not None
    loaded = moment._columns.loaded.columns
    assert len(loaded) == MOST_COLUMNS and "k" in loaded
    assert all(len(each._columns) <= MOST_COLUMNS for each in moment._columns.recent)


def test_texts_are_found_by_their_order_beginnings_and_parts() -> None:
    texts = sorted(
        ["", "a", "ab", "abc", "b\nc", "b", "深圳", "深圳市", "\U0010ffff", "x" * 9 + "yz"]
    )
    kept = Texts(texts)
    assert [kept[place] for place in range(len(kept))] == texts
    for asked in [*texts, "aa", "深", "zz", "y"]:
        assert kept.before(asked) == sum(text < asked for text in texts)
        assert kept.until(asked) == sum(text <= asked for text in texts)
        begin, end = kept.beginning_with(asked)
        assert texts[begin:end] == [text for text in texts if text.startswith(asked)]
        for most in (3, 10, 99) if asked else ():
            expected = [asked in text[:most] for text in texts]
            assert kept.having(asked, most).tolist() == expected
