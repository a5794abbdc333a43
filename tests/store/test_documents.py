"""Documents in real database files: written, replaced, deleted, and read back."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from server.errors import InvalidRequest, RequestTooLarge
from server.store.documents import Documents
from server.store.filters.tree import parse
from server.store.records import Chunk, ChunkRules, Document, Info, Span
from server.store.sqlite import database as database_module
from server.store.sqlite.read_limit import ReadLimit, limited
from server.store.vector_blob import rounded
from tests.support.stored_documents import INFO, add, delete, vectors, within


def test_documents_come_back_as_they_were_stored(documents: Documents) -> None:
    plain = Document("a", "民法典")
    full = Document(
        "b", "a\0b\r\n\ufeff😀", "标题\0", {"年": [2020, 1.5, None, True, {"深": "\0"}]}
    )
    change = add(documents, plain, full)
    assert documents.get(["b", "missing", "a"]) == {"a": plain, "b": full}
    parts = documents.by_labels(change.added)
    assert [parts[label] for label in change.added.tolist()] == [
        Chunk(each.id, each.text, each.title, each.metadata, Span(0, len(each.text)), True)
        for each in (plain, full)
    ]


def test_vectors_come_back_as_float16_in_the_order_asked(documents: Documents) -> None:
    stored = vectors(3)
    stored[1] = [0.0, -0.0, 1e-45, 3e38]
    with documents.transaction():
        change = documents.add([Document(id, id) for id in "abc"], stored)
    found = documents.vectors(change.added[::-1])
    assert found.dtype == np.float32
    assert found.tobytes() == rounded(stored[::-1]).tobytes()
    largest = np.abs(stored[::-1]).max(axis=1, keepdims=True)
    assert (np.abs(found - stored[::-1]) <= largest / 2048).all()


def test_writing_an_id_again_replaces_it_under_a_new_label(documents: Documents) -> None:
    first = add(documents, Document("a", "old"), Document("b", "kept"))
    second = add(documents, Document("a", "new"))
    assert second.removed.tolist() == [first.added[0]]
    assert second.added[0] > first.added.max()
    assert documents.get(["a"])["a"].text == "new"
    assert documents.labels().tolist() == [first.added[1], second.added[0]]


def test_an_id_twice_in_one_write_keeps_the_last(documents: Documents) -> None:
    change = add(documents, Document("a", "first"), Document("a", "last"))
    assert change.removed.tolist() == [change.added[0]]
    assert documents.get(["a"])["a"].text == "last"
    assert documents.count() == 1


def test_a_label_is_never_used_twice(documents: Documents, path: Path) -> None:
    last = add(documents, Document("a", "a")).added[0]
    delete(documents, ["a"])
    assert documents.last_label() == last
    documents.close()
    again = Documents(path, INFO)
    assert add(again, Document("a", "a")).added[0] > last
    again.close()


def test_deleting_skips_ids_that_are_not_there(documents: Documents) -> None:
    change = add(documents, Document("a", "a"), Document("b", "b"))
    gone = delete(documents, ["b", "missing", "b"])
    assert gone.removed.tolist() == [change.added[1]]
    assert not len(gone.added)
    assert documents.by_labels(change.added).keys() == {change.added[0]}


def test_only_the_very_same_document_is_unchanged(documents: Documents) -> None:
    stored = [Document("a", "甲"), Document("b", "乙", "题", {"n": [1]}), Document("c", "丙")]
    add(documents, *stored)
    changed = Document("c", "丙", metadata={"n": 1})
    assert documents.unchanged([*stored[:2], changed, Document("d", "丁")]) == {"a", "b"}


@pytest.mark.parametrize("other", [True, 1.0, "1", [1]])
def test_values_that_python_takes_for_equal_are_not_the_same_document(
    documents: Documents, other: object
) -> None:
    add(documents, Document("a", "甲", None, {"n": 1, "m": {"k": 1}}))
    assert documents.unchanged([Document("a", "甲", None, {"m": {"k": 1}, "n": 1})]) == {"a"}
    assert not documents.unchanged([Document("a", "甲", None, {"n": 1, "m": {"k": other}})])


def test_more_keys_than_one_query_takes(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "KEYS_PER_QUERY", 3)
    ids = [str(n) for n in range(10)]
    change = add(documents, *(Document(id, id) for id in ids))
    assert list(documents.get(ids)) == ids
    assert len(documents.vectors(change.added)) == 10


def test_an_empty_database_answers_everything(documents: Documents) -> None:
    assert documents.count() == documents.last_label() == 0
    assert documents.labels().dtype == np.int64
    assert documents.vectors(documents.labels()).shape == (0, 4)
    assert documents.get([]) == {}


def test_a_transaction_that_raises_stores_nothing(documents: Documents) -> None:
    add(documents, Document("a", "old"))
    with pytest.raises(RuntimeError), documents.transaction():
        documents.add([Document("a", "new"), Document("b", "b")], vectors(2))
        raise RuntimeError
    assert documents.count() == 1
    assert documents.get(["a"])["a"].text == "old"
    add(documents, Document("b", "works again"))


def test_readers_see_only_what_was_committed(documents: Documents) -> None:
    add(documents, Document("a", "old"))
    with documents.transaction():
        documents.add([Document("a", "new")], vectors(1))
        assert documents.get(["a"])["a"].text == "old"
    assert documents.get(["a"])["a"].text == "new"


@pytest.mark.parametrize(
    ("document", "param"),
    [
        (Document("\ud800", "text"), "id"),
        (Document("a", "half \udc00"), "text"),
        (Document("a", "text", "\ud83d"), "title"),
        (Document("a", "text", metadata={"\ud800": 1}), "metadata"),
        (Document("a", "text", metadata={"x": float("nan")}), "metadata"),
    ],
)
def test_what_is_not_text_is_refused_and_nothing_stored(
    documents: Documents, document: Document, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        add(documents, Document("good", "good"), document)
    assert refusal.value.param == param
    assert param in refusal.value.message
    refusal.value.message.encode()
    assert documents.count() == 0


def test_vectors_of_another_width_are_our_bug(documents: Documents) -> None:
    with pytest.raises(AssertionError), documents.transaction():
        documents.add([Document("a", "a")], np.zeros((1, 5), dtype=np.float32))
    with pytest.raises(sqlite3.IntegrityError), documents.transaction():
        documents.database.writer.execute("INSERT INTO parts VALUES (1, 1, 0, 1, x'00', 0)")


def test_writing_outside_a_transaction_is_our_bug(documents: Documents) -> None:
    with pytest.raises(AssertionError):
        documents.delete(["a"])


def test_parts_come_back_with_their_text_and_place(documents: Documents, path: Path) -> None:
    with documents.transaction():
        change = documents.add(
            [Document("a", "甲乙丙丁戊", "题"), Document("b", "己")],
            vectors(3),
            [[Span(0, 3), Span(2, 5)], [Span(0, 1)]],
        )
    parts = documents.by_labels(change.added)
    assert [(part.id, part.text, part.span, part.whole) for part in parts.values()] == [
        ("a", "甲乙丙", (0, 3), False),
        ("a", "丙丁戊", (2, 5), False),
        ("b", "己", (0, 1), True),
    ]
    assert documents.count() == 2
    owners = documents.owners(change.added)
    assert len(owners) == 3 and len(set(owners.values())) == 2
    assert len(delete(documents, ["a"]).removed) == 2
    assert documents.labels().tolist() == [change.added[2]]


def test_a_read_of_parts_counts_the_characters_that_it_keeps(documents: Documents) -> None:
    with documents.transaction():
        change = documents.add(
            [Document("a", "甲乙丙丁戊", metadata={"n": 1})],
            vectors(2),
            [[Span(0, 3), Span(2, 5)]],
        )
    # Of each part its own text, and the metadata of its document.
    kept = 2 * (3 + len('{"n": 1}'))
    with limited(ReadLimit(3600, kept)):
        assert len(documents.by_labels(change.added)) == 2
    with limited(ReadLimit(3600, kept - 1)), pytest.raises(RequestTooLarge, match=str(kept - 1)):
        documents.by_labels(change.added)


def test_how_documents_are_cut_is_kept(tmp_path: Path) -> None:
    info = Info("cut", "fingerprint-a", 4, ChunkRules(100, 10))
    Documents(tmp_path / "a", info).close()
    again = Documents(tmp_path / "a", None)
    assert again.info == info
    again.close()


def test_filters_select_documents_and_parts(documents: Documents) -> None:
    items = [Document(str(n), f"文本{n}", metadata={"n": n, "tag": ["x"]}) for n in range(6)]
    labels = add(documents, *items).added
    late = parse({"n": {"$gte": 4}})
    assert documents.labels(late).tolist() == labels[4:].tolist()
    assert documents.ids(late) == ["4", "5"]
    assert documents.count(late) == 2
    assert [each.id for _, each in documents.page(0, 1, late)] == ["4"]
    delete(documents, ["5"])
    add(documents, Document("4", "文本4", metadata={"n": 0}))
    assert documents.labels(late).tolist() == []
    assert documents.count(parse({"tag": "x"})) == 4


def test_words_are_found_until_their_document_goes(documents: Documents) -> None:
    first, second = add(
        documents, Document("a", "劳动合同的解除", "民法"), Document("b", "房屋买卖合同")
    ).added.tolist()

    def found(query: str, filter: dict[str, object] | None = None) -> list[int]:
        matches = documents.words(query, 2, within(documents, filter))
        assert list(matches.scores) == sorted(matches.scores, reverse=True)
        assert all(0 < matches.shares) and all(matches.shares <= 1)
        return [int(label) for label in matches.labels]

    assert found("劳动合同") == [first, second], "more of its words, then fewer"
    assert found("房屋") == [second]
    assert sorted(found("合同")) == [first, second]
    assert found("劳") == [first]
    assert found("民法") == [first], "in the title"
    assert found("劳动合同", {"n": 1}) == []
    assert found("？") == found("") == []
    delete(documents, ["a"])
    assert found("劳动合同") == [second]
    assert found("民法") == found("劳") == []
    documents.database.writer.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_pages_follow_each_other_without_gap(documents: Documents) -> None:
    add(documents, *(Document(str(n), "x") for n in range(7)))
    seen: list[str] = []
    after = 0
    while page := documents.page(after, 3):
        seen += [document.id for _, document in page]
        after = page[-1][0]
    assert seen == [str(n) for n in range(7)]
