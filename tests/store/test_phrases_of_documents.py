"""Phrases and exclusions hold for documents, whichever of their chunks have them."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from server.store.collection import Collection
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.records import ChunkRules, Document, Info, Span
from server.store.search import Hit, Query
from server.store.searching.answers import search
from server.store.searching.found import Found
from server.store.searching.options import Options
from server.store.words import finding, ranking

D = 8
TEXTS = {
    "both": ("解除劳动合同。", "竞业限制两年。", "其他文字。"),
    "first": ("解除劳动合同。", "其他文字。"),
    "second": ("竞业限制两年。", "其他文字。"),
    **{f"other{n}": (f"别的文字{n}。", "劳动法。") for n in range(40)},
}
MODES: list[dict[str, Any]] = [
    {"mode": "lexical"},
    {"mode": "hybrid"},
    {"mode": "hybrid", "fusion": "rrf"},
]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with closing(DataFolder(tmp_path_factory.mktemp("phrases"))) as folder:
        found = folder.create(Info("main", "model-a", D, ChunkRules(4, 0)))
        documents, spans = [], []
        for id, chunks in TEXTS.items():
            ends = np.cumsum([len(chunk) for chunk in chunks]).tolist()
            documents.append(
                Document(id, "".join(chunks), metadata={"kind": id.rstrip("0123456789")})
            )
            spans.append([Span(a, b) for a, b in zip([0, *ends], ends, strict=False)])
        n = sum(map(len, spans))
        found.add(
            documents, np.random.default_rng(1).standard_normal((n, D), dtype=np.float32), spans
        )
        yield found


def found(collection: Collection, query: str, top_k: int = 50, **options: Any) -> list[Hit]:
    vector = np.linspace(-1, 1, D, dtype=np.float32)
    return search(collection, [Query(top_k=top_k, vector=vector, words=query, **options)])[0]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_phrases_may_stand_in_different_chunks(collection: Collection, mode: Any) -> None:
    def ids(query: str) -> set[str]:
        return {hit.id for hit in found(collection, query, **mode)}

    assert ids('"解除劳动合同" "竞业限制"') == {"both"}
    assert ids('"解除劳动合同"') == {"both", "first"}
    assert ids('"解除劳动合同" "竞业限制" "从未出现"') == set()
    kept = found(collection, '"解除劳动合同" "竞业限制"', filter=parse({"kind": "first"}), **mode)
    assert kept == []
    # The hit's text has one of the phrases.
    (hit,) = found(collection, '"解除劳动合同" "竞业限制"', **mode)
    assert hit.text in TEXTS["both"][:2]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_document_with_an_excluded_word_in_any_chunk_is_left_out(
    collection: Collection, mode: Any
) -> None:
    def ids(query: str) -> set[str]:
        return {hit.id for hit in found(collection, query, **mode)}

    assert ids('"解除劳动合同" -竞业限制') == {"first"}
    assert ids('文字 -"解除劳动合同"').isdisjoint({"both", "first"})
    assert "second" in ids('文字 -"解除劳动合同"')
    assert ids('文字 "竞业限制" -解除') == {"second"}


def test_frequent_words_are_looked_for_where_all_others_stand_in_excluded_documents(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (ranking, "REQUIRED", 2),
        (ranking, "COUNTED", 3),
        (finding, "ENOUGH", 1),
    ):
        monkeypatch.setattr(module, name, value)
    kept = parse({"kind": {"$in": ["both", "other"]}})
    hits = found(collection, "竞业 文字", mode="lexical", filter=kept)
    assert {hit.id for hit in hits} == {"both"}
    hits = found(collection, "竞业 文字 -解除", mode="lexical", filter=kept)
    assert {hit.id for hit in hits} == {id for id in TEXTS if id.startswith("other")}


@pytest.mark.parametrize("query", ['"解除劳动合同"', '"解除劳动合同" "竞业限制"', "劳动 -竞业限制"])
@pytest.mark.parametrize("fusion", ["blend", "rrf"])
def test_details_count_what_phrases_and_exclusions_allow(
    collection: Collection, query: str, fusion: Any
) -> None:
    asked = Options(explain=True, parts=3, facets=("kind",))
    hits = found(collection, query, mode="hybrid", fusion=fusion, options=asked)
    assert isinstance(hits, Found) and hits
    (facet,) = hits.facets
    assert facet.documents == len(hits)
    for hit in hits:
        assert hit.details is not None and hit.details.explanation is not None
        (best, *rest) = hit.details.parts or ()
        assert (best.text, best.score) == (hit.text, hit.score)
        assert all(part.score <= best.score for part in rest)
        if fusion == "rrf":
            ranks = hit.details.explanation.ranks or ()
            assert hit.score == pytest.approx(sum(1 / (10 + rank) for rank in ranks if rank))
    few = found(collection, query, top_k=1, mode="hybrid", fusion=fusion)
    assert [(hit.id, hit.score) for hit in few] == [(hits[0].id, hits[0].score)]
