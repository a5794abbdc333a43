"""What was put into a database comes back as it was, once, and in its latest version."""

import json
import sys
from typing import Any

import numpy as np
import pytest

from server.databases.database import Entry, VectorDatabase
from server.store.records import Document, Info
from tests.support.databases import DIMENSION, entry, same

TEXT = "墨池是一个私有的向量服务器。It runs on machines without a GPU."


def all_entries(database: VectorDatabase, info: Info) -> list[Entry]:
    return database.entries(info, -1, 1_000_000)


def check(database: VectorDatabase, info: Info, *expected: Entry) -> None:
    """Check that a database holds these documents and nothing else, in every form it gives them."""
    found = all_entries(database, info)
    assert [each.number for each in found] == [each.number for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert same(one, other), (one, other)
    ids = [each.document.id for each in expected]
    assert database.count(info, None) == len(expected)
    assert database.digests(info, [*ids, "not there"]) == {
        each.document.id: each.digest for each in expected
    }
    documents = database.documents(info, [*ids, "not there"])
    assert documents.keys() == set(ids)
    assert all(each.document.is_same(documents[each.document.id]) for each in expected)
    page = database.page(info, -1, len(expected) + 1, None)
    assert [number for number, _ in page] == [each.number for each in expected]
    assert all(
        each.document.is_same(document) for each, (_, document) in zip(expected, page, strict=True)
    )


def test_documents_come_back_as_they_were_put(database: VectorDatabase, info: Info) -> None:
    given = [
        entry(1, "a", TEXT, {"year": 2024, "tags": ["x", "y"]}, title="墨池"),
        entry(2, "b", TEXT, ends=(10, 20, len(TEXT))),
    ]
    database.put(info, given)
    check(database, info, *given)


def test_nothing_is_there_at_first(database: VectorDatabase, info: Info) -> None:
    check(database, info)
    database.put(info, [])
    database.delete(info, [])
    database.delete(info, ["a"])
    check(database, info)
    assert database.documents(info, []) == {}
    assert database.digests(info, []) == {}


def test_putting_again_changes_nothing(database: VectorDatabase, info: Info) -> None:
    given = [entry(1, "a", TEXT, ends=(10, len(TEXT))), entry(3, "b", TEXT)]
    for _ in range(3):
        database.put(info, given)
    check(database, info, *given)


def test_a_newer_version_replaces_all_rows_of_the_older_one(
    database: VectorDatabase, info: Info
) -> None:
    database.put(info, [entry(1, "a", TEXT, {"v": 1}, ends=(5, 9, len(TEXT))), entry(4, "b", TEXT)])
    newer = entry(7, "a", "Short.", {"v": 2})
    database.put(info, [newer])
    check(database, info, entry(4, "b", TEXT), newer)
    found = database.nearest(info, newer.rows[0].vector, 10, None)
    assert {row.label for row in found} == {4, 7}


def test_an_older_version_that_comes_late_changes_nothing(
    database: VectorDatabase, info: Info
) -> None:
    newer = entry(7, "a", TEXT, {"v": 2})
    database.put(info, [newer])
    other = entry(5, "b", TEXT)
    database.put(info, [entry(1, "a", TEXT, {"v": 1}, ends=(5, len(TEXT))), other])
    check(database, info, other, newer)


def test_deleted_documents_leave_nothing(database: VectorDatabase, info: Info) -> None:
    kept = entry(9, "kept", TEXT)
    database.put(info, [entry(1, "a", TEXT, ends=(5, len(TEXT))), entry(3, "b", TEXT), kept])
    for _ in range(2):
        database.delete(info, ["a", "b", "never there"])
    check(database, info, kept)
    again = entry(20, "a", TEXT)
    database.put(info, [again])
    check(database, info, kept, again)


def test_pages_go_on_where_they_ended(database: VectorDatabase, info: Info) -> None:
    given = [entry(3 * at + 1, f"id {at}", f"text {at}", ends=(2, 6)) for at in range(23)]
    database.put(info, given[::-1])
    found: list[tuple[int, Document]] = []
    after = -1
    while part := database.page(info, after, 5, None):
        assert len(part) == min(5, len(given) - len(found))
        found += part
        after = part[-1][0]
    assert [number for number, _ in found] == [each.number for each in given]
    assert [each.number for each in database.entries(info, 10, 4)] == [13, 16, 19, 22]
    # From labels of later rows, too, which are no numbers of documents.
    assert [number for number, _ in database.page(info, 11, 2, None)] == [13, 16]


IDS = [
    "a",
    "A",
    "a ",
    " a",
    "0",
    "00",
    "\0",
    "a\0b",
    "\n\t\r",
    "é",
    "e\u0301",
    "שלום",
    "\u202egnp.txt",
    "𠮷野家",
    "\U0010ffff",
    "\ufffe",
    "'; DROP TABLE documents; --",
    '"quoted" \\ `back` ${x} %s {0}',
    "a%_*?",
    "path/../to#fragment?query=1&x",
    "null",
    "长" * 512,
    "x" * 511 + "y",
    "x" * 511 + "z",
]


def test_any_text_is_an_id(database: VectorDatabase, info: Info) -> None:
    given = [entry(at, id, id, {"id": id}) for at, id in enumerate(IDS)]
    database.put(info, given)
    check(database, info, *given)
    database.delete(info, IDS[1::2])
    check(database, info, *given[::2])


def nested(depth: int) -> dict[str, object]:
    inner: Any = "at the bottom"
    for at in range(depth):
        inner = {"x": inner} if at % 2 else [inner]
    return {"deep": inner}


METADATA: list[dict[str, object]] = [
    {},
    {"": "", "a.b": 1, "a": {"b": [1, 2.0, True, None, [], {}]}},
    {"int": [2**53 + 1, 2**63 - 1, -(2**63), 2**63, 10**30, -(10**400), 0, -1]},
    {"float": [1e308, -1e308, 5e-324, 0.1, 1e-7, 1.0, -0.0, 123456789.123456789]},
    {"text": ["", "\0", "a\0b", "\U0010ffff", "\\u0000", "שלום", "x" * 100_000]},
    {"$id": "mine", "$title": 1, "$date": "2024", "doc": 1, "facts": [1], "number": -1, "id": 9},
    {'"]; \\ [0] a[].b': {"\n": 1}, "\0": 2, "长" * 300: 3, "$": 4, "*": 5},
    {"x": True, "y": 1, "z": 1.0, "n": None},
    {f"field {at}": at for at in range(500)},
    {"long": list(range(5_000))},
    nested(200),
]


@pytest.mark.parametrize("metadata", METADATA, ids=lambda each: repr(list(each)[:1])[:20])
def test_any_metadata_comes_back(
    database: VectorDatabase, info: Info, metadata: dict[str, object]
) -> None:
    given = entry(1, "a", TEXT, metadata, ends=(10, len(TEXT)))
    database.put(info, [given])
    check(database, info, given)
    (found, *_) = database.nearest(info, given.rows[0].vector, 1, None)
    assert json.dumps(found.chunk.metadata) == json.dumps(metadata)


@pytest.mark.parametrize(
    "text",
    ["\0", "a\0b", "\U0010ffff\ufffe", "\u202eלום", "\r\n\t\x1b[31m", "\\x00 \\u0000 %s ' \" ''"],
    ids=ascii,
)
def test_any_text_and_title_come_back(database: VectorDatabase, info: Info, text: str) -> None:
    given = [
        entry(1, "a", text, title=text),
        entry(2, "b", text * 3, title="", ends=(len(text), 3 * len(text))),
        entry(4, "c", text * 50_000),
    ]
    database.put(info, given)
    check(database, info, *given)
    found = database.nearest(info, given[1].rows[1].vector, 1, None)[0]
    assert (found.label, found.chunk.span) == (3, given[1].rows[1].span)
    assert (found.chunk.text, found.chunk.title, found.chunk.whole) == (text * 2, "", False)


def test_vectors_come_back_to_the_last_bit(database: VectorDatabase, info: Info) -> None:
    basis = np.eye(DIMENSION, dtype=np.float32)
    tiny = np.full(DIMENSION, 1e-20, dtype=np.float32)
    tiny[0] = 1.0
    third = np.full(DIMENSION, 1 / 3, dtype=np.float32)
    vectors = [basis[0], -basis[3], np.zeros(DIMENSION, dtype=np.float32), tiny, third]
    given = entry(1, "a", TEXT, ends=(5, 9, 12, 20, len(TEXT)), vectors=vectors)
    database.put(info, [given])
    check(database, info, given)


def test_rows_of_large_documents_do_not_mix(database: VectorDatabase, info: Info) -> None:
    """More than one request takes, in rows and in bytes."""
    text = "墨" * 300_000
    ends = tuple(range(1_000, len(text) + 1, 1_000))
    given = [entry(1 + at * len(ends), f"id {at}", text, {"n": at}, ends=ends) for at in range(3)]
    assert sum(len(each.rows) for each in given) == 900
    database.put(info, given)
    check(database, info, *given)
    database.put(info, [entry(5_000, "id 1", "short")])
    check(database, info, given[0], given[2], entry(5_000, "id 1", "short"))


def test_the_largest_labels_keep_their_order(database: VectorDatabase, info: Info) -> None:
    given = [entry(number, f"id {number}", TEXT) for number in (0, 2**31, 2**32 + 1, 2**53 - 1)]
    database.put(info, given)
    check(database, info, *given)
    assert sys.maxsize > given[-1].number
