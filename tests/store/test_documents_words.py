"""Words of documents in a real full-text index: which words decide, and the scores."""

import math

import numpy as np
import pytest

from server.store.documents import Documents
from server.store.records import Document
from server.store.selection import Selection
from server.store.words import finding, ranking
from server.store.words.frequent import FrequentTerms, Size
from server.store.words.ranking import EVERY, K1
from tests.support.stored_documents import add, delete, within

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
    monkeypatch.setattr(ranking, "REQUIRED", 2)
    everywhere = documents.words("rare common", 8)
    assert everywhere.labels.tolist() == [labels[0]], "the rare word decides"
    # A word that decides is looked up twice.
    assert everywhere.scores == pytest.approx([2 * RARE])
    attainable = (K1 + 1) * (1 + EVERY) * (2 * RARE + COMMON)
    assert everywhere.shares == pytest.approx([2 * RARE / attainable])
    few = documents.words("rare common", 8, within(documents, {"n": {"$in": [1, 7]}}))
    assert few.labels.tolist() == [labels[1]], "and beside it the other one"
    assert few.scores == pytest.approx([COMMON])
    assert few.shares == pytest.approx([COMMON / attainable]), "on the scale of all documents"
    half = documents.words("rare common", 8, within(documents, {"n": {"$gte": 4}}))
    assert half.labels.tolist() == []
    monkeypatch.setattr(ranking, "WIDE", 1)
    many = documents.words("rare common", 8, within(documents, {"n": {"$lt": 4}}))
    assert many.labels.tolist() == [labels[0]], "where it keeps many, the rare word decides"


def test_frequent_words_are_looked_for_where_too_few_documents_are_found(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = stored(documents)
    monkeypatch.setattr(ranking, "REQUIRED", 1)
    monkeypatch.setattr(ranking, "COUNTED", 2)
    assert documents.words("rare common", 8).labels.tolist() == [labels[0]]
    kept = within(documents, {"n": {"$lte": 2}})
    found = documents.words("rare common", 8, kept)
    assert found.labels.tolist() == labels[:3]
    assert found.scores == pytest.approx([RARE, COMMON, COMMON])
    assert [term.term for term in found.terms] == ["rare", "common"]
    without = documents.words("rare common -c", 8, kept)
    assert without.labels.tolist() == labels[:2]
    monkeypatch.setattr(finding, "ENOUGH", 1)
    assert documents.words("rare common", 8, kept).labels.tolist() == [labels[0]]
    assert documents.words('"common"', 8, kept).labels.tolist() == labels[1:3]


def test_scores_under_a_filter_are_those_without_one(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    for name, value in (("REQUIRED", 20), ("COUNTED", 60), ("WIDE", 30)):
        monkeypatch.setattr(ranking, name, value)
    # Words of every frequency, and codes whose parts are among them.
    words = [f"w{number}" for number in range(40)] + [
        "劳动合同",
        "合同法",
        "AB-12-3",
        "AB-12-4",
        "12",
    ]
    odds = 1 / np.arange(1, len(words) + 1)[random.permutation(len(words))]
    odds /= odds.sum()

    def text(number: int) -> str:
        return " ".join(random.choice(words, number, p=odds))

    items = [Document(str(n), text(int(random.integers(1, 30)))) for n in range(200)]
    labels = add(documents, *items).added
    n_more = 0
    for _ in range(60):
        query = text(int(random.integers(1, 6)))
        query += str(random.choice(["", "", ' "w3 w5"', " -w1", ' -"w2 w0" AB-12-3']))
        everywhere = documents.words(query, len(labels))
        by_label = dict(zip(everywhere.labels.tolist(), everywhere.scores.tolist(), strict=True))
        for share in (0.02, 0.2, 0.6):
            kept = labels[random.random(len(labels)) < share]
            few = documents.words(query, len(labels), Selection.of_labels(kept))
            found = few.labels.tolist()
            there = [label for label in found if label in by_label]
            assert set(found) <= set(kept.tolist())
            assert set(there) == by_label.keys() & set(kept.tolist()), query
            assert [by_label[label] for label in there] == few.scores_of(np.array(there)).tolist()
            if by_label:
                assert few.attainable == everywhere.attainable
                assert few.terms[: len(everywhere.terms)] == everywhere.terms
            n_more += len(found) - len(there)
    assert n_more > 100, "a filter finds texts that are not looked at without one"


def test_a_filter_that_keeps_no_document_finds_no_words(documents: Documents) -> None:
    stored(documents)
    assert documents.words("common", 8, within(documents, {"n": 99})).labels.tolist() == []


def test_frequent_words_are_counted_once_and_scores_stay_the_same(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(6)
    for name, value in (("REQUIRED", 10), ("COUNTED", 20), ("WIDE", 30)):
        monkeypatch.setattr(ranking, name, value)
    words = [f"w{number}" for number in range(30)] + ["劳动合同", "running", "AB-12-3"]
    odds = 1 / np.arange(1, len(words) + 1)
    odds /= odds.sum()

    def text(number: int) -> str:
        return " ".join(random.choice(words, number, p=odds))

    def check() -> None:
        labels = documents.labels()
        for _ in range(5):
            query = text(int(random.integers(1, 6)))
            few = Selection.of_labels(labels[random.random(len(labels)) < 0.05])
            for kept in (None, few):
                known = documents.words(query, len(labels), kept)
                documents._frequent, before = FrequentTerms(), documents._frequent
                counted = documents.words(query, len(labels), kept)
                documents._frequent = before
                assert known.labels.tolist() == counted.labels.tolist(), query
                assert known.scores.tolist() == counted.scores.tolist(), query
                assert (known.attainable, known.terms) == (counted.attainable, counted.terms)

    add(documents, *(Document(str(n), text(8)) for n in range(150)))
    check()
    assert len(documents._frequent._seen) > 3
    n_known = []
    for step in range(7):
        delete(documents, [str(n) for n in range(20 * step, 20 * step + 20)])
        add(documents, *(Document(f"{step} {n}", text(2)) for n in range(5)))
        check()
        seen = list(documents._frequent._seen)
        known = documents._frequent._known(
            seen, Size(len(documents.labels()), documents.last_label())
        )
        counts: dict[str, int] = dict(documents.database.rows(*ranking.frequencies(seen)))
        assert all(ranking.COUNTED < least <= counts[term] for term, least in known.items())
        n_known.append(len(known))
    assert n_known[0] > n_known[-1]
