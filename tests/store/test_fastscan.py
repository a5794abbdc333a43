"""A large index: recall against brute force, filters, deletes, compaction."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.store.local_index import calibration, compaction, exact, fastscan, index
from server.store.local_index.fastscan_block import Block
from server.store.local_index.fastscan_block import places as places_of
from server.store.local_index.index import LocalIndex
from server.store.local_index.rows import Rows
from server.store.selection import Selection
from server.store.vector_index import Hits
from server.types import Labels, Vectors

D = 64
N = 6000
LABELS = np.arange(1, N + 1, dtype=np.int64) * 3  # with gaps
RANDOM = np.random.default_rng(0)
CENTRES = RANDOM.standard_normal((30, D), dtype=np.float32)
# As in real vectors a few axes hold most of the variance.
SPREAD = (np.arange(1, D + 1, dtype=np.float32) ** -0.5)[RANDOM.permutation(D)]


def clustered(n: int, seed: int) -> Vectors:
    random = np.random.default_rng(seed)
    noise = random.standard_normal((n, D), dtype=np.float32)
    rows = (CENTRES[random.integers(len(CENTRES), size=n)] + 3 * noise) * SPREAD
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / norms, dtype=np.float32)


ROWS, QUERIES = clustered(N, seed=1), clustered(100, seed=2)


@pytest.fixture(scope="module", autouse=True)
def small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "SCAN_FROM", 1000)
        patch.setattr(index, "TAIL_ROWS", 200)
        patch.setattr(compaction, "BLOCK_ROWS", 2500)
        patch.setattr(compaction, "MOST_ROWS", 2500)
        patch.setattr(fastscan, "DIRECT_ROWS", 100)
        patch.setattr(exact, "SEGMENT_ROWS", 512)
        yield


@pytest.fixture(scope="module", params=[10**6, 1000], ids=["one list", "many lists"])
def built(request: pytest.FixtureRequest, small_limits: None) -> Iterator[LocalIndex]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "LISTS_FROM", request.param)
        yield LocalIndex(D).plus(LABELS, ROWS).compacted()


def recall(hits: Hits, labels: Labels, rows: Vectors, queries: Vectors = QUERIES) -> float:
    """Return the share of the ten nearest by brute force that was found; ties count."""
    cosines = queries @ rows.T
    needed = np.sort(cosines, axis=1)[:, -10:][:, :1] - 1e-6
    nearest = [
        set(labels[row >= limit].tolist()) for row, limit in zip(cosines, needed, strict=True)
    ]
    found = [len(near & set(row)) for near, row in zip(nearest, hits.labels.tolist(), strict=True)]
    return float(np.mean(found)) / 10


def test_a_large_index_finds_nearly_all_with_their_cosines(built: LocalIndex) -> None:
    assert built._scan and len(built._scan.blocks) == 3
    hits = built.search(QUERIES, 10)
    assert recall(hits, LABELS, ROWS) >= 0.99
    cosines = (QUERIES[:, None] * ROWS[hits.labels // 3 - 1]).sum(axis=2)
    np.testing.assert_allclose(hits.scores, cosines, atol=3e-5)
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    assert hits.scores.dtype == np.float32
    assert hits.labels.dtype == np.int64


def test_stats_tell_what_was_measured(built: LocalIndex) -> None:
    stats = built.minus(LABELS[:5]).plus(np.array([1]), ROWS[:1]).stats()
    assert (stats.kind, stats.vectors, stats.tail_rows, stats.dead_rows) == (
        "fastscan",
        N - 4,
        1,
        5,
    )
    assert stats.sub_quantisers == 20
    assert stats.candidates in calibration.LADDER
    assert stats.recall_at_10 is not None and stats.recall_at_10 >= 0.99
    assert 2 * D + 8 + 10 < stats.bytes_per_vector < 4 * D


def test_rows_at_the_ends_of_every_block_are_found_by_their_codes(built: LocalIndex) -> None:
    assert built._scan is not None and len(built._scan.blocks) > 1
    for block in built._scan.blocks:
        ends = [0, len(block.labels) - 1]
        hits = built.search(block.rows.whole(np.array(ends)), 1)
        assert hits.labels[:, 0].tolist() == block.labels[ends].tolist()
        assert hits.scores[:, 0] == pytest.approx([1.0, 1.0], abs=3e-5)


def test_many_queries_at_once_find_what_they_find_one_by_one(built: LocalIndex) -> None:
    within = Selection.of_labels(LABELS[::2])
    for allowed in (None, within):
        together = built.search(QUERIES[:20], 10, allowed)
        single = [built.search(QUERIES[i : i + 1], 10, allowed) for i in range(20)]
        assert together.labels.tolist() == [hits.labels[0].tolist() for hits in single]
    assert built.search(QUERIES[:0], 10).labels.shape == (0, 10)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05, 0.001])
def test_filters_do_not_cost_recall(built: LocalIndex, share: float) -> None:
    chosen = np.sort(np.random.default_rng(3).choice(N, max(10, int(N * share)), replace=False))
    # Labels that nothing has are in no way.
    within = np.union1d(LABELS[chosen], [0, 1, 10**12])
    hits = built.search(QUERIES, 10, Selection.of_labels(within))
    assert np.isin(hits.labels, LABELS[chosen]).all()
    assert recall(hits, LABELS[chosen], ROWS[chosen]) >= 0.99


def test_a_filter_far_from_the_query_is_searched_to_its_end(built: LocalIndex) -> None:
    far = np.sort(np.argsort(ROWS @ QUERIES[0])[: N // 2])
    hits = built.search(QUERIES[:1], 10, Selection.of_labels(LABELS[far]))
    assert recall(hits, LABELS[far], ROWS[far], QUERIES[:1]) >= 0.9


def test_a_filter_that_allows_nothing_finds_nothing(built: LocalIndex) -> None:
    for within in (LABELS[:0], LABELS + 1):
        assert (built.search(QUERIES[:2], 5, Selection.of_labels(within)).labels == -1).all()


def test_more_neighbours_than_vectors_are_filled_up(built: LocalIndex) -> None:
    hits = built.search(QUERIES[:1], N + 5)
    assert sorted(hits.labels[0, :N].tolist()) == LABELS.tolist()
    assert hits.labels[0, N:].tolist() == [-1] * 5


def test_deleting_all_that_is_near_leaves_what_is_next(built: LocalIndex) -> None:
    near = np.argsort(ROWS @ QUERIES[0])[-N // 3 :]
    rest = np.setdiff1d(np.arange(N), near)
    thinned = built.minus(LABELS[near])
    hits = thinned.search(QUERIES[:1], 10)
    assert recall(hits, LABELS[rest], ROWS[rest], QUERIES[:1]) >= 0.9
    assert np.setdiff1d(thinned.labels, LABELS[rest]).size == 0
    assert len(thinned) == len(rest)


def test_a_write_to_a_large_index_copies_no_vector(built: LocalIndex) -> None:
    expected = built.search(QUERIES, 10).labels.tolist()
    after = built.minus(LABELS[[0, -1]]).plus(np.array([1, 2]), QUERIES[:2])
    assert built._scan and after._scan
    for new, old in zip(after._scan.blocks, built._scan.blocks, strict=True):
        assert new.rows is old.rows and new.codes is old.codes
    assert after._scan.blocks[1] is built._scan.blocks[1]
    assert after.search(QUERIES[:2], 1).labels.tolist() == [[1], [2]]
    assert (len(built), len(after)) == (N, N)
    assert built.search(QUERIES, 10).labels.tolist() == expected


def test_compaction_is_due_for_a_long_tail_and_for_many_dead_and_then_no_more(
    built: LocalIndex,
) -> None:
    assert not built.compaction_due
    grown = built.plus(np.arange(200, dtype=np.int64) * 3 + 1, clustered(200, seed=4))
    thinned = built.minus(LABELS[100:800])
    for changed in (grown, thinned):
        assert changed.compaction_due
        after = changed.compacted()
        assert not after.compaction_due
        assert np.array_equal(np.sort(after.labels), np.sort(changed.labels))
        assert (after.stats().tail_rows, after.stats().dead_rows) == (0, 0)


@pytest.mark.parametrize(
    ("tail", "due", "pays"),
    [(49, False, False), (50, False, True), (199, False, True), (200, True, True)],
)
def test_short_tail_is_folded_only_where_nothing_else_is_written(
    built: LocalIndex, monkeypatch: pytest.MonkeyPatch, tail: int, due: bool, pays: bool
) -> None:
    monkeypatch.setattr(index, "SPARE_ROWS", 50)
    grown = built.plus(np.arange(tail, dtype=np.int64) * 3 + 1, ROWS[:tail])
    assert (grown.compaction_due, grown.compaction_pays) == (due, pays)


@pytest.mark.parametrize(("rows", "due"), [(999, False), (1000, True)])
def test_small_index_is_arranged_in_blocks_from_its_limit_on(rows: int, due: bool) -> None:
    small = LocalIndex(D).plus(LABELS[:rows], ROWS[:rows])
    assert (small.compaction_due, small.compaction_pays) == (due, due)
    assert (small.compacted()._scan is not None) == due


def test_compaction_leaves_full_blocks_alone(built: LocalIndex) -> None:
    after = built.plus(np.array([1]), QUERIES[:1]).compacted()
    assert built._scan and after._scan
    assert after._scan.blocks[:3] == built._scan.blocks
    assert after._scan.quantiser is built._scan.quantiser
    assert after.search(QUERIES[:1], 1).labels.tolist() == [[1]]


def test_an_index_that_has_grown_much_is_trained_again(built: LocalIndex) -> None:
    assert built._scan
    early = LocalIndex(D, replace(built._scan, trained_on=N // 5)).minus(LABELS[:3])
    after = early.compacted()
    assert after._scan and after._scan.quantiser is not built._scan.quantiser
    assert after._scan.trained_on == N - 3
    assert recall(after.search(QUERIES, 10), LABELS[3:], ROWS[3:]) >= 0.99
    assert after._scan.blocks[0].rows is built._scan.blocks[0].rows


def test_a_recall_that_cannot_be_reached_is_told(
    built: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LADDER", (1, 2))
    stats = LocalIndex(D).plus(LABELS, ROWS).compacted().stats()
    assert stats.candidates == 2
    assert stats.recall_at_10 is not None and stats.recall_at_10 < calibration.TARGET_RECALL


def test_an_index_whose_vectors_are_all_deleted_is_empty(built: LocalIndex) -> None:
    emptied = built.minus(LABELS)
    assert len(emptied) == len(emptied.labels) == 0
    assert (emptied.search(QUERIES, 3).labels == -1).all()
    assert emptied.compaction_due
    assert emptied.compacted().stats() == LocalIndex(D).stats()


def test_an_index_that_has_shrunk_much_becomes_exact_again(built: LocalIndex) -> None:
    small = built.minus(LABELS[:-600])
    assert small.compaction_due
    after = small.compacted()
    assert after.stats().kind == "exact"
    assert np.array_equal(np.sort(after.labels), LABELS[-600:])
    assert recall(after.search(QUERIES, 10), LABELS[-600:], ROWS[-600:]) >= 0.99


def test_block_of_one_row_is_asked_for_labels_before_and_behind_it(built: LocalIndex) -> None:
    assert built._scan is not None
    rows = Rows.of(ROWS[:1])
    block = Block.of(np.array([5], dtype=np.int64), rows, built._scan.quantiser.coded(rows))
    others, own = np.array([4, 6], dtype=np.int64), np.array([5], dtype=np.int64)
    assert block.minus(others) is block and block.minus(own).n_alive == 0
    for within, places in ((others, []), (own, [0]), (np.array([4, 5, 6]), [0])):
        assert places_of(block.selected(Selection.of_labels(within))).tolist() == places
    assert places_of(block.minus(own).selected(Selection.of_labels(own))).tolist() == []


def test_vectors_of_zeros_and_copies_of_one_vector_can_be_compacted() -> None:
    rows = np.zeros((1200, D), dtype=np.float32)
    rows[600:] = ROWS[0]
    built = LocalIndex(D).plus(LABELS[:1200], rows).compacted()
    hits = built.search(ROWS[:1], 10)
    assert (hits.labels > LABELS[599]).all()
    np.testing.assert_allclose(hits.scores, 1, atol=3e-5)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_sequence_of_writes_and_compactions_agrees_with_a_dict(data: st.DataObject) -> None:
    model: dict[int, int] = {}  # label to row of ROWS
    built, pending = LocalIndex(D), None
    for _ in range(data.draw(st.integers(1, 8))):
        step = data.draw(st.sampled_from(["plus", "plus", "minus", "upsert", "compact", "adopt"]))
        if step == "compact":
            # In the background: it goes on from here while writes do.
            pending = built.compacted()
        elif step == "adopt" and pending is not None:
            gone = np.setdiff1d(pending.labels, built.labels)
            new = np.setdiff1d(built.labels, pending.labels)
            built = pending.minus(gone).plus(new, ROWS[[model[label] for label in new.tolist()]])
        else:
            if step in ("minus", "upsert") and model:
                seed, share = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([0.01, 0.6]))
                held = np.array(sorted(model), dtype=np.int64)
                gone = held[np.random.default_rng(seed).random(len(held)) < share]
                built = built.minus(gone)
                for label in gone.tolist():
                    del model[label]
            if step in ("plus", "upsert"):
                first = max(model, default=0) + 10_000
                new = np.arange(first, first + data.draw(st.sampled_from([1, 150, 1100])))
                picked = np.random.default_rng(first).integers(N, size=len(new))
                built = built.plus(new, ROWS[picked])
                model.update(zip(new.tolist(), picked.tolist(), strict=True))
    held = np.array(sorted(model), dtype=np.int64)
    assert np.array_equal(np.sort(built.labels), held)
    assert len(built) == len(held)
    if len(held) >= 10:
        rows = ROWS[[model[label] for label in held.tolist()]]
        assert recall(built.search(QUERIES, 10), held, rows) >= 0.97


@pytest.mark.parametrize("lists_from", [10**6, 1000], ids=["one list", "many lists"])
def test_many_blocks_are_joined_and_find_the_same(
    monkeypatch: pytest.MonkeyPatch, lists_from: int
) -> None:
    monkeypatch.setattr(compaction, "LISTS_FROM", lists_from)
    monkeypatch.setattr(compaction, "BLOCK_ROWS", 1100)
    monkeypatch.setattr(compaction, "MOST_ROWS", 4000)
    # Labels of one block lie between those of another.
    order = np.random.default_rng(6).permutation(N)
    built, gone = LocalIndex(D), LABELS[order[:50]]
    for start in range(0, N, 1000):
        some = order[start : start + 1000]
        built = built.plus(LABELS[some], ROWS[some]).compacted()
        built = built.minus(gone)
    assert built._scan is not None and len(built._scan.blocks) == 2
    rest = order[50:]
    assert np.array_equal(np.sort(built.labels), np.sort(LABELS[rest]))
    hits = built.search(QUERIES, 10)
    assert recall(hits, LABELS[rest], ROWS[rest]) >= 0.99
    cosines = (QUERIES[:, None] * ROWS[hits.labels // 3 - 1]).sum(axis=2)
    np.testing.assert_allclose(hits.scores, cosines, atol=3e-5)


def test_blocks_that_would_be_too_large_stay_apart(
    built: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert built._scan is not None
    monkeypatch.setattr(compaction, "MOST_ROWS", 3000)
    after = built.compacted()._scan
    assert after is not None and len(after.blocks) == 3
    assert not built.compaction_pays
    monkeypatch.setattr(compaction, "MOST_ROWS", 4000)
    assert built.compaction_pays and not built.compaction_due
    joined = built.compacted()
    assert joined._scan is not None and len(joined._scan.blocks) == 2
    assert not joined.compaction_pays


def test_past_queries_set_how_far_searches_go(built: LocalIndex) -> None:
    easy, hard = built.calibrated(ROWS[:100]), built.calibrated(QUERIES)
    assert easy._scan and hard._scan and built._scan
    assert easy._scan.recall_at_10 >= calibration.PAST_RECALL - 0.01
    assert hard._scan.blocks is built._scan.blocks
    assert recall(hard.search(QUERIES, 10), LABELS, ROWS) >= 0.99
    assert built.calibrated(QUERIES[:0]) is built
    small = LocalIndex(D).plus(LABELS[:5], ROWS[:5])
    assert small.calibrated(QUERIES) is small


def test_more_neighbours_than_the_nearest_lists_hold_are_found(built: LocalIndex) -> None:
    assert built._scan is not None
    narrow = LocalIndex(D, replace(built._scan, probes=1, candidates=100))
    hits = narrow.search(QUERIES[:3], 700)
    assert (hits.labels >= 0).all()
