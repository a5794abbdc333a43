"""Words of documents in a real full-text index: which words decide, and the scores."""

import math

import pytest

from server.store.documents import Documents
from server.store.records import Document
from server.store.words import finding, selected
from server.store.words.ranking import EVERY, K1
from tests.support.stored_documents import add, within

# Two words each, so a word's BM25 is its weight.
TEXTS = ["rare a", "common b", "common c", "common d", "e f", "g h", "i j", "k l"]
RARE, COMMON = math.log(7.5 / 1.5), math.log(5.5 / 3.5)


def stored(documents: Documents) -> list[int]:
    """Store TEXTS, and return the labels."""
    items = [Document(str(n), text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    labels: list[int] = add(documents, *items).added.tolist()
    return labels


def test_more_words_decide_where_a_filter_keeps_few_documents(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = stored(documents)
    monkeypatch.setattr(finding, "REQUIRED", 2)
    everywhere = documents.words("rare common", 8)
    assert everywhere.labels.tolist() == [labels[0]], "the rare word decides"
    # A word that decides is looked up twice.
    assert everywhere.scores == pytest.approx([2 * RARE])
    assert everywhere.shares == pytest.approx(
        [2 * RARE / ((K1 + 1) * (1 + EVERY) * (2 * RARE + COMMON))]
    )
    monkeypatch.setattr(selected, "SHARE", 1)
    few = documents.words("rare common", 8, within(documents, {"n": {"$in": [1, 7]}}))
    assert few.labels.tolist() == [labels[1]], "and beside it the other one"
    assert few.scores == pytest.approx([COMMON])
    assert few.shares == pytest.approx([COMMON / ((K1 + 1) * (1 + EVERY) * (RARE + COMMON))])
    half = documents.words("rare common", 8, within(documents, {"n": {"$gte": 4}}))
    assert half.labels.tolist() == []


def test_a_filter_that_keeps_no_document_finds_no_words(documents: Documents) -> None:
    stored(documents)
    assert documents.words("common", 8, within(documents, {"n": 99})).labels.tolist() == []
