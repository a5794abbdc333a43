"""Filters on dates, parts of texts, and fields beside metadata, in a real collection."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from server.errors import InvalidRequest
from server.store.collection import Collection
from server.store.filters.instants import instant
from server.store.filters.match import matches
from server.store.filters.tree import MAX_PART, parse
from server.store.folder import DataFolder
from server.store.records import Document, Info
from server.store.search import Query, search

DOCUMENTS = [
    Document("law-1", "第一条 劳动合同法", "劳动法", {"day": "2024-01-01", "$id": "mine"}),
    Document("law-2", "C# and C", "Languages", {"day": "2024-01-01T07:00:00+08:00"}),
    Document("note-1", "nothing", None, {"day": "first of May", "url": "https://a/" + "b" * 300}),
    Document("note-2", "劳动", "", {"day": 20240101}),
]
ROW = np.eye(4, dtype=np.float32)[0]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with closing(DataFolder(tmp_path_factory.mktemp("data"))) as folder:
        made = folder.create(Info("x", "f", 4))
        made.add(DOCUMENTS, np.ones((len(DOCUMENTS), 4), dtype=np.float32))
        yield made


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"$id": "law-1"}, ["law-1"]),
    ({"$id": {"$in": ["law-1", "note-2", "absent"]}}, ["law-1", "note-2"]),
    ({"$id": {"$prefix": "law-"}}, ["law-1", "law-2"]),
    ({"$id": {"$ne": "law-1"}, "$title": {"$exists": True}}, ["law-2", "note-2"]),
    ({"$id": "mine"}, []),
    ({"$title": None}, ["note-1"]),
    ({"$title": ""}, ["note-2"]),
    ({"$title": {"$contains": "劳动"}}, ["law-1"]),
    ({"$not": {"$title": {"$prefix": "L"}}}, ["law-1", "note-1", "note-2"]),
    ({"$text": {"$contains": "C#"}}, ["law-2"]),
    ({"$text": {"$contains": "c#"}}, []),
    ({"$text": {"$prefix": "劳动"}}, ["note-2"]),
    ({"$text": {"$not": {"$contains": "劳动"}}}, ["law-2", "note-1"]),
    ({"$or": [{"$text": {"$contains": "C#"}}, {"$id": "note-2"}]}, ["law-2", "note-2"]),
    ({"$text": {"$contains": "劳动"}, "day": 20240101}, ["note-2"]),
    ({"day": {"$date": "2024-01-01"}}, ["law-1"]),
    ({"day": {"$lt": {"$date": "2024-01-01T00:00Z"}}}, ["law-2"]),
    ({"day": {"$gte": {"$date": "2024-01-01T06:30:00+08:00"}}}, ["law-1", "law-2"]),
    ({"day": {"$in": [{"$date": "2023-12-31T23:00Z"}, 20240101]}}, ["law-2", "note-2"]),
    ({"day": {"$ne": {"$date": "2024-01-01"}}}, ["law-2", "note-1", "note-2"]),
    ({"url": {"$contains": "b" * MAX_PART}}, []),
    ({"url": {"$contains": "b" * 200}}, ["note-1"]),
    ({"url": {"$prefix": "https://a/" + "b" * 240}}, ["note-1"]),
]


@pytest.mark.parametrize(("filter", "ids"), CASES, ids=[str(filter)[:60] for filter, _ in CASES])
def test_searches_pages_counts_and_metadata_agree(
    collection: Collection, filter: dict[str, Any], ids: list[str]
) -> None:
    tree, documents = parse(filter), collection.documents
    query = Query("dense", 9, ROW, filter=tree)
    assert sorted(hit.id for hit in search(collection, [query])[0]) == ids
    assert [document.id for _, document in documents.page(0, 9, tree)] == ids
    assert documents.count(tree) == len(ids)
    assert sorted(documents.ids(tree)) == ids
    for each in DOCUMENTS:
        beside = {"$id": each.id, "$title": each.title, "$text": each.text}
        assert matches(tree, each.metadata, beside) is (each.id in ids)
        assert matches(tree, each.metadata) in (None, each.id in ids)


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ({"$id": 5}, "'\\$id' is compared with texts, not with 5"),
        ({"$id": None}, "not with None"),
        ({"$title": {"$gt": True}}, "not with True"),
        ({"$text": "a"}, "takes \\$contains or \\$prefix"),
        ({"$text": {"$gt": "a"}}, "takes \\$contains or \\$prefix"),
        ({"$name": "a"}, "fields beside metadata are \\$id, \\$title, \\$text"),
        ({"a": {"$contains": ""}}, "a text of 1 to 256 characters, not one of 0"),
        ({"a": {"$prefix": "x" * 257}}, "not one of 257"),
        ({"a": {"$contains": 5}}, "\\$contains of 'a' takes a text, not 5"),
        ({"a": {"$contains": "\ud800"}}, "lone surrogate"),
        ({"a": {"$date": "yesterday"}}, "the date 'yesterday'; give an object"),
        ({"a": {"$gt": {"$date": 5}}}, "the date 5; give an object"),
        ({"a": {"$gt": {"$date": "2024-01-01", "x": 1}}}, "give an object with \\$date alone"),
    ],
)
def test_what_means_nothing_is_refused(filter: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse(filter)


def test_dates_are_instants() -> None:
    day = 86_400_000_000
    assert instant("1970-01-02") == day
    assert instant("1970-01-02T00:00") == instant("1970-01-02t00:00:00z") == day
    assert instant("1970-01-01 20:00:00-04:00") == instant("1970-01-02T08:00:00.0+0800") == day
    assert instant("1969-12-31T23:59:59.9999999Z") == -1
    assert instant("0001-01-01T00:00+14:00") is not None
    for text in (
        "",
        "1970",
        "1970-1-2",
        "1970-02-30",
        "1970-01-02T25:00",
        "now",
        "1970-01-02 ",
        "١٩٧٠-01-02",
    ):
        assert instant(text) is None
