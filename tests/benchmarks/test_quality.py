"""Rank correlation and nDCG are what they are by hand, and the stored vectors what they should be."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks import reference
from benchmarks.quality import spearman
from benchmarks.retrieval import SEARCHED, in_portions, ndcg
from server.store.records import Span
from server.store.search import Hit, Query


def unit(*degrees: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_wider_angle_ranks_lower() -> None:
    vectors = unit(0, 0, 0, 10, 40, 80)
    assert spearman(vectors, np.array([5.0, 3.0, 1.0])) == 100
    assert spearman(vectors, np.array([1.0, 3.0, 5.0])) == -100
    # Ranks 3, 2, 1 and 3, 1, 2: one less six times two, of three times eight.
    assert spearman(vectors, np.array([5.0, 1.0, 3.0])) == 50


def test_ties_share_their_mean_rank() -> None:
    vectors = unit(0, 0, 0, 10, 40, 80)
    # Ranks 3, 2, 1 and 2.5, 2.5, 1.
    assert spearman(vectors, np.array([3.0, 3.0, 1.0])) == pytest.approx(86.6, abs=0.01)


def test_a_document_counts_less_the_later_it_is_found() -> None:
    relevant = {"q": {"a": 1.0}}
    assert ndcg({"q": ["a", "b"]}, relevant) == 100
    assert ndcg({"q": ["b", "a"]}, relevant) == round(100 / np.log2(3), 2)
    assert ndcg({"q": ["b", "c"]}, relevant) == 0


def test_what_is_found_after_the_tenth_place_does_not_count() -> None:
    found = {"q": [*map(str, range(10)), "a"]}
    assert ndcg(found, {"q": {"a": 1.0}}) == 0


def test_the_stored_vectors_have_unit_norm_and_a_text_each() -> None:
    texts, vectors = reference.load()
    assert vectors.shape == (len(texts), 512) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_many_queries_are_searched_a_few_at_a_time() -> None:
    async def search(queries: Sequence[Query]) -> list[list[Hit]]:
        assert len(queries) <= SEARCHED
        return [[Hit(str(each.words), 1.0, "", None, {}, Span(0, 0), True)] for each in queries]

    queries = [Query("lexical", 10, words=str(n)) for n in range(3 * SEARCHED + 1)]
    rows = asyncio.run(in_portions(search, queries))
    assert [hit.id for row in rows for hit in row] == [each.words for each in queries]
