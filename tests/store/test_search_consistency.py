"""Pages of equal documents, and what a hybrid query with phrases says beside its hits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.store.collection import Collection
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.fusion import RANKS
from server.store.records import ChunkRules, Document, Info, Span
from server.store.search import Query, Search, at_once
from server.store.searching import nearest
from server.store.searching.answers import search
from server.store.searching.found import Found
from server.store.searching.options import Options
from server.types import Labels, Vectors, unit

D, N = 8, 300


def row(seed: int) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((1, D), dtype=np.float32))


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Collection]:
    """Documents of which every ten have the same vector."""
    data = DataFolder(tmp_path)
    collection = data.create(Info("main", "model-a", D))
    vectors = np.concatenate([row(n // 10) for n in range(N)])
    order = np.random.default_rng(0).permutation(N)
    documents = [Document(f"d{n}", "text", metadata={"n": int(n)}) for n in order]
    collection.add(documents, vectors[order])
    yield collection
    data.close()


@pytest.mark.parametrize("filter", [None, {"n": {"$gte": 100}}])
@pytest.mark.parametrize("top_k", [1, 3, 7, 64, 120])
def test_pages_of_equal_documents_are_one_list(
    twins: Collection, top_k: int, filter: dict[str, Any] | None
) -> None:
    tree = None if filter is None else parse(filter)
    query = Query("dense", N, row(999)[0], filter=tree)
    (whole,) = search(twins, [query])
    ids = [hit.id for hit in whole]
    assert len(set(ids)) == (N if filter is None else N - 100)
    paged = []
    for offset in range(0, N, top_k):
        page = replace(query, top_k=top_k, options=Options(offset=offset))
        paged += [hit.id for hit in search(twins, [page])[0]]
    assert paged == ids
    # The first page, without options and from the cache.
    few = replace(query, top_k=top_k)
    for found in (search(twins, [few]), search(twins, [few]), at_once(twins, [few])):
        assert found is None or [hit.id for hit in found[0]] == ids[:top_k]


def test_more_equals_than_are_looked_for_are_still_found(
    twins: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "MOST_EQUALS", 4)
    (found,) = search(twins, [Query("dense", 5, row(999)[0])])
    assert len({hit.id for hit in found}) == 5


PARTS = ("天气 search 墨池", "墨池 search", "天气 search", "天气 风花")


@pytest.fixture
def phrases(tmp_path: Path) -> Iterator[Collection]:
    """Documents of two chunks each, of which some have the phrase, or a word that is excluded."""
    data = DataFolder(tmp_path)
    collection = data.create(Info("main", "model-a", D, ChunkRules(4, 0)))
    documents, spans, vectors = [], [], []
    for n in range(16):
        texts = [PARTS[n % 4], PARTS[n // 4]]
        middle = len(texts[0]) + 1
        documents.append(Document(f"d{n}", " ".join(texts), metadata={"n": n}))
        spans.append([Span(0, middle - 1), Span(middle, middle + len(texts[1]))])
        vectors += [row(2 * n), row(2 * n + 1)]
    collection.add(documents, np.concatenate(vectors), spans)
    yield collection
    data.close()


@pytest.mark.parametrize("fusion", ["blend", "rrf"])
@pytest.mark.parametrize("words", ['"天气 search"', "天气 -墨池", "天气"])
def test_phrases_and_exclusions_hold_for_ranks_parts_and_facets(
    phrases: Collection, words: str, fusion: Any
) -> None:
    options = Options(explain=True, parts=2, facets=("n",))
    query = Query("hybrid", 16, row(99)[0], words, fusion=fusion, options=options)
    (found,) = search(phrases, [query])
    assert isinstance(found, Found)
    for hit in found:
        assert hit.details is not None and hit.details.parts is not None
        first, *others = hit.details.parts
        assert first.span == hit.span and first.score == pytest.approx(hit.score, abs=1e-6)
        for part in (first, *others):
            assert "天气 search" in part.text or '"' not in words
            assert "墨池" not in part.text or "-" not in words
        explanation = hit.details.explanation
        assert explanation is not None
        if explanation.ranks is not None:
            score = sum(1 / (10 + rank) for rank in explanation.ranks if rank is not None)
            assert hit.score == pytest.approx(score, abs=1e-6)
    (facet,) = found.facets
    assert {f"d{value}" for value, _ in facet.values} == {hit.id for hit in found}
    assert len(found) == facet.documents


def test_only_explanations_and_parts_look_for_ranks_again(
    phrases: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: list[int] = []
    real = Search.nearest

    def counted(running: Search, query: Query, depth: int) -> Labels:
        depths.append(depth)
        return real(running, query, depth)

    monkeypatch.setattr(Search, "nearest", counted)
    options = Options(above=True, asked=True, document=True, vectors=True)
    query = Query("hybrid", 3, row(99)[0], "天气", fusion="rrf", options=options)
    assert len(search(phrases, [query])[0]) == 3 and depths == []
    for more in (replace(options, explain=True), replace(options, parts=2)):
        search(phrases, [replace(query, options=more)])
    assert depths == [RANKS, RANKS]
