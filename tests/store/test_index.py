"""A small index: an immutable value, equal to brute force in numpy."""

import threading
from collections.abc import Callable

import faiss
import numpy as np
import pytest

from server.store.local_index import exact
from server.store.local_index.index import LocalIndex
from server.store.selection import Selection
from server.types import Labels, Vectors

D = 8


def vectors(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32)


def labels(*values: int) -> Labels:
    return np.array(values, dtype=np.int64)


def numbered(n: int, first: int = 1) -> Labels:
    return np.arange(first, first + n, dtype=np.int64)


def unit(rows: Vectors) -> Vectors:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / norms, dtype=np.float32)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "SEGMENT_ROWS", 16)


def test_search_equals_brute_force_over_several_segments(small_segments: None) -> None:
    rows, queries = vectors(100), vectors(30, seed=1)
    built = LocalIndex(D)
    for start in range(0, 100, 7):
        built = built.plus(numbered(100)[start : start + 7], rows[start : start + 7])
    assert len(built._tail.segments) > 3
    hits = built.search(queries, 10)
    cosines = unit(queries) @ unit(rows).T
    best = np.argsort(-cosines, axis=1)[:, :10]
    assert hits.labels.tolist() == (best + 1).tolist()
    np.testing.assert_allclose(hits.scores, np.take_along_axis(cosines, best, 1), atol=1e-6)
    assert hits.scores.dtype == np.float32
    assert hits.labels.dtype == np.int64


def test_a_selection_holds_for_vectors_that_were_added_out_of_order() -> None:
    rows = vectors(4)
    built = LocalIndex(D).plus(labels(200, 100), rows[:2]).plus(labels(50, 203), rows[2:])
    hits = built.search(rows[:1], 4, Selection.of_labels(labels(200, 201, 203)))
    assert sorted(hits.labels[0].tolist()) == [-1, -1, 200, 203]


@pytest.mark.parametrize("length", [3e38, 1e30, 1e-19, 1e-30, 1e-42])
def test_vectors_of_any_finite_length_have_their_direction(length: float) -> None:
    rows = np.eye(D, dtype=np.float32)[:3] + np.float32(0.1)
    far = (rows.astype(np.float64) * length / rows.max()).astype(np.float32)
    built = LocalIndex(D).plus(labels(1, 2, 3), far)
    for queries in (rows, far):
        hits = built.search(queries, 1)
        assert hits.labels[:, 0].tolist() == [1, 2, 3]
        # The smallest numbers have few bits.
        np.testing.assert_allclose(hits.scores[:, 0], 1, atol=1e-2 if length < 1e-38 else 1e-5)


def test_more_rows_than_a_segment_in_one_call_are_split() -> None:
    rows = vectors(exact.SEGMENT_ROWS + 10)
    built = LocalIndex(D).plus(numbered(len(rows)), rows)
    assert [len(segment.labels) for segment in built._tail.segments] == [exact.SEGMENT_ROWS, 10]
    assert built.search(rows[-1:], 1).labels.tolist() == [[len(rows)]]


def test_fewer_vectors_than_asked_are_filled_up() -> None:
    hits = LocalIndex(D).plus(labels(5, 9), vectors(2)).search(vectors(1), 4)
    assert hits.labels.tolist() == [[5, 9, -1, -1]]
    assert hits.scores[0, 2:].tolist() == [-np.inf, -np.inf]


def test_an_empty_index_finds_nothing() -> None:
    for within in (None, Selection.of_labels(labels()), Selection.of_labels(labels(1, 2))):
        hits = LocalIndex(D).search(vectors(3), 2, within)
        assert hits.labels.tolist() == [[-1, -1]] * 3
        assert hits.scores.tolist() == [[-np.inf, -np.inf]] * 3


def test_scores_are_cosines_whatever_the_lengths() -> None:
    row = vectors(1)
    built = LocalIndex(D).plus(labels(1, 2, 3), np.concatenate([row * 100, -row, row * 0]))
    hits = built.search(row * 0.01, 3)
    assert hits.labels.tolist() == [[1, 3, 2]]
    np.testing.assert_allclose(hits.scores, [[1, 0, -1]], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    rows = vectors(2)
    rows[1, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        LocalIndex(D).plus(labels(1, 2), rows)
    with pytest.raises(ValueError, match="not finite"):
        LocalIndex(D).search(rows, 1)


def test_only_labels_within_the_filter_are_found(small_segments: None) -> None:
    rows = vectors(50)
    built = LocalIndex(D).plus(numbered(50), rows)
    hits = built.search(rows[:1], 4, Selection.of_labels(labels(0, 3, 20, 49, 99)))
    assert sorted(hits.labels[0, :3].tolist()) == [3, 20, 49]
    assert hits.labels[0, 3] == -1


def test_an_index_never_changes(small_segments: None) -> None:
    rows = vectors(20)
    before = LocalIndex(D).plus(numbered(20), rows)
    expected = before.search(rows, 5).labels.tolist()
    after = before.plus(numbered(5, first=21), vectors(5, seed=1)).minus(labels(1, 20, 21))
    assert (len(before), len(after)) == (20, 22)
    assert before.search(rows, 5).labels.tolist() == expected
    assert sorted(after.labels.tolist()) == [*range(2, 20), 22, 23, 24, 25]


def test_a_write_copies_only_the_segments_it_touches(small_segments: None) -> None:
    before = LocalIndex(D).plus(numbered(48), vectors(48))
    after = before.minus(labels(1, 999))
    pairs = zip(after._tail.segments, before._tail.segments, strict=True)
    assert [new is old for new, old in pairs] == [False, True, True]


def test_segments_thinned_by_deletes_fill_up_again(small_segments: None) -> None:
    built = LocalIndex(D).plus(numbered(32), vectors(32)).minus(numbered(12))
    built = built.plus(numbered(12, first=33), vectors(12, seed=1)).minus(numbered(4, first=13))
    assert sorted(len(segment.labels) for segment in built._tail.segments) == [12, 16]


def test_a_segment_without_rows_is_dropped(small_segments: None) -> None:
    built = LocalIndex(D).plus(numbered(32), vectors(32)).minus(numbered(16))
    assert len(built._tail.segments) == 1
    assert not built.minus(numbered(40))._tail.segments


@pytest.mark.parametrize(
    "use",
    [
        lambda built: built.search(vectors(1), 1),
        lambda built: built.compacted(),
        lambda built: built.probed_recall(0),
    ],
    ids=["search", "compaction", "probe"],
)
def test_an_index_uses_one_thread_whichever_thread_asks(
    use: Callable[[LocalIndex], object],
) -> None:
    built = LocalIndex(D).plus(labels(1), vectors(1))
    seen: list[int] = []

    def search() -> None:
        faiss.omp_set_num_threads(2)
        use(built)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [1]


def test_a_small_index_says_that_it_is_exact() -> None:
    stats = LocalIndex(D).plus(numbered(10), vectors(10)).stats()
    assert (stats.kind, stats.vectors, stats.tail_rows, stats.dead_rows) == ("exact", 10, 10, 0)
    assert stats.bytes_per_vector == 4 * D + 8
    assert (stats.sub_quantisers, stats.candidates, stats.recall_at_10) == (None, None, None)
    one = LocalIndex(D).plus(numbered(1), vectors(1))
    assert one.stats().bytes_per_vector == 4 * D + 8
    assert LocalIndex(D).stats().bytes_per_vector == 0


def test_compacting_few_vectors_leaves_them_exact() -> None:
    before = LocalIndex(D).plus(numbered(50), vectors(50))
    assert not before.compaction_due
    after = before.compacted()
    assert after.stats() == before.stats()
    assert (
        after.search(vectors(5), 3).labels.tolist() == before.search(vectors(5), 3).labels.tolist()
    )
    assert len(LocalIndex(D).compacted()) == 0
