"""Searches: each answer is of one moment, and a hit's score is a matter of the query and the hit."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import StoreError
from server.store.collection import Collection
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.fusion import blend, nearness
from server.store.local_index import fastscan as scan_module
from server.store.local_index import index as index_module
from server.store.local_index.index import LocalIndex
from server.store.records import ChunkRules, Document, Info, Span
from server.store.search import CHUNKS_A_HIT, QUICK_HITS, Hit, Query, at_once, search
from server.store.selection import Selection
from server.store.vector_index import Hits
from server.types import Vectors, unit
from tests.support.stored_documents import within

D = 8
RULES = ChunkRules(4, 0)
PARTS = 3  # of a document in a collection that splits them


def rows(n: int, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32))


def made(folder: Path, name: str = "main", rules: ChunkRules | None = None) -> Collection:
    data = DataFolder(folder)
    try:
        return data.create(Info(name, "model-a", D, rules))
    finally:
        data.collections.clear()  # the test closes the collection
        data.close()


@pytest.fixture(params=[None, RULES], ids=["whole", "chunked"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    opened = made(tmp_path, rules=request.param)
    yield opened
    opened.close()


def write(
    collection: Collection, ids: Sequence[str], text: str, vectors: Vectors, version: int
) -> None:
    """Store documents of one text and version; `vectors`: one for each document and part."""
    number = parts_of(collection)
    metadata = {"version": version, "kind": "x"}
    documents = [Document(id, number * text, metadata=metadata) for id in ids]
    spans = [[Span(n * len(text), (n + 1) * len(text)) for n in range(number)]] * len(ids)
    collection.add(documents, vectors, spans)


def parts_of(collection: Collection) -> int:
    return 1 if collection.info.chunks is None else PARTS


ASKED = [
    Query("dense", 50),
    Query("dense", 50, filter=parse({"kind": "x"})),
    Query("lexical", 50, words="server"),
    Query("hybrid", 50, words="server"),
    Query("hybrid", 50, words="server", filter=parse({"kind": "x"})),
    Query("hybrid", 50, words="server", fusion="rrf"),
]


def test_searches_during_writes_see_the_old_or_the_new_state_whole(collection: Collection) -> None:
    ids = [str(n) for n in range(20)]
    vectors = rows(len(ids) * parts_of(collection))
    asked = [replace(query, vector=rows(1, seed=1)[0]) for query in ASKED]
    wrong: list[str] = []
    seen: set[int] = set()
    ended = threading.Event()

    def look(queries: Sequence[Query]) -> None:
        for query in itertools.cycle(queries):
            if ended.is_set():
                return
            # Alone and together: they take different ways.
            hits = search(collection, [query])[0] + search(collection, [query, query])[1]
            versions = {int(str(hit.metadata["version"])) for hit in hits[: len(ids)]}
            found = sorted(hit.id for hit in hits[: len(ids)])
            if found != sorted(ids) or len(versions) != 1 or len(hits) != 2 * len(ids):
                wrong.append(f"{query.mode} {query.filter} {query.fusion}: {found} {versions}")
            seen.update(versions)

    write(collection, ids, "search server 0", vectors, 0)
    threads = [threading.Thread(target=look, args=(asked[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for version in range(1, 25):
        write(collection, ids, f"search server {version}", vectors, version)
        if version % 10 == 0:
            collection.adopt(collection.index.compacted())
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(seen) > 2


def test_a_search_sees_the_moment_at_which_it_began(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["a", "b"]
    vectors = rows(len(ids) * parts_of(collection))
    write(collection, ids, "old server", vectors, 0)

    def owner(method: str) -> object:
        return collection if method == "selection" else collection.documents

    def overtaken(method: str) -> Callable[..., object]:
        """Replace all documents just before the search calls a method of the database or the columns."""
        real = getattr(owner(method), method)

        def call(*arguments: object) -> object:
            monkeypatch.undo()
            thread = threading.Thread(
                target=write, args=(collection, ids, "new server", vectors, 1)
            )
            thread.start()
            thread.join()
            return real(*arguments)

        return call

    for method, query in [
        ("by_labels", Query("dense", 9, vectors[0])),
        ("selection", Query("dense", 9, vectors[0], filter=parse({"kind": "x"}))),
        ("words", Query("lexical", 9, words="server")),
        ("words", Query("hybrid", 9, vectors[0], "server")),
    ]:
        write(collection, ids, "old server", vectors, 0)
        monkeypatch.setattr(owner(method), method, overtaken(method))
        (hits,) = search(collection, [query])
        assert sorted((hit.id, hit.metadata["version"]) for hit in hits) == [("a", 0), ("b", 0)]
        (hits,) = search(collection, [query])
        assert sorted((hit.id, hit.metadata["version"]) for hit in hits) == [("a", 1), ("b", 1)]


def test_a_search_ends_its_snapshot_also_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = made(tmp_path)
    write(collection, ["a"], "server", rows(1), 0)
    with monkeypatch.context() as patch:
        patch.setattr(collection.documents, "words", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search(collection, [Query("lexical", 1, words="server")])
    search(collection, [Query("lexical", 1, words="server")])
    write(collection, ["a"], "other", rows(1), 1)
    # A reader that held on to its moment would keep the log from being emptied.
    (row,) = collection.documents.database.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert row[0] == 0
    (hits,) = search(collection, [Query("lexical", 1, words="other")])
    assert [hit.id for hit in hits] == ["a"]
    collection.close()


def test_a_database_changed_by_another_program_is_reported(tmp_path: Path) -> None:
    collection = made(tmp_path)
    write(collection, ["a"], "server", rows(1), 0)
    with collection.documents.transaction():
        collection.documents.note("revision", "another")
    for call in (
        lambda: search(collection, [Query("lexical", 1, words="server")]),
        lambda: write(collection, ["b"], "server", rows(1), 0),
    ):
        with pytest.raises(StoreError, match="another program has changed"):
            call()
    assert collection.documents.count() == 1, "what cannot be indexed is not stored"
    collection.close()


# --- scores -------------------------------------------------------------------------------------------

WORDS = [f"word{n}" for n in range(30)]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Collection]]:
    """700 documents of random words and vectors: whole, in parts, and searched by codes."""
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(WORDS, size=9)) for _ in range(700)]
    opened = {}
    for name, rules in (("whole", None), ("chunked", RULES), ("codes", None)):
        opened[name] = made(tmp_path_factory.mktemp(name), rules=rules)
        documents = [Document(str(n), text, metadata={"n": n}) for n, text in enumerate(texts)]
        spans = [_thirds(text) for text in texts] if rules else None
        opened[name].add(documents, rows(700 * (PARTS if rules else 1), seed=4), spans)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "SCAN_FROM", 100)
        patch.setattr(scan_module, "DIRECT_ROWS", 50)
        opened["codes"].adopt(opened["codes"].index.compacted())
        yield opened
    for collection in opened.values():
        collection.close()


def _thirds(text: str) -> list[Span]:
    words = text.split(" ")
    ends = [0, *itertools.accumulate(len(" ".join(words[n : n + 3])) + 1 for n in (0, 3, 6))]
    return [Span(begin, min(end, len(text))) for begin, end in itertools.pairwise(ends)]


QUESTIONS = [
    Query("hybrid", 10, rows(1, seed=seed)[0], words, weights=weights, filter=filter)
    for seed, (words, weights, filter) in enumerate(
        itertools.product(
            [
                "word1",
                "word2 word3 word4",
                "nothing known",
                "word5 unknown word6 word7 word8 word9",
            ],
            [(1.0, 0.7), (1.0, 0.0), (0.0, 1.0)],
            [None, parse({"n": {"$gte": 300}})],
        )
    )
]


def shown(hits: Sequence[Hit]) -> list[tuple[str, float, Span]]:
    return [(hit.id, hit.score, hit.span) for hit in hits]


@pytest.mark.parametrize("fusion", ["blend", "rrf"])
@pytest.mark.parametrize("name", ["whole", "chunked", "codes"])
def test_first_hits_are_the_same_however_many_are_wanted(
    varied: dict[str, Collection], name: str, fusion: str
) -> None:
    collection = varied[name]
    for question in QUESTIONS:
        query = replace(question, fusion=fusion)  # type: ignore[arg-type]
        most = shown(search(collection, [replace(query, top_k=1000)])[0])
        assert len(most) == (700 if query.filter is None else 400)
        assert len({id for id, _, _ in most}) == len(most)
        for top_k in (1, 10, 300):
            (hits,) = search(collection, [replace(query, top_k=top_k)])
            assert shown(hits) == most[:top_k], query
        scores = [score for _, score, _ in most]
        assert name == "codes" or scores == sorted(scores, reverse=True)
        least = scores[20]
        for top_k in (10, 1000):
            (hits,) = search(collection, [replace(query, top_k=top_k, min_score=least)])
            good = [hit for hit in most if hit[1] >= least]
            assert shown(hits) == good[:top_k]


def exact(collection: Collection, query: Query) -> list[tuple[str, float]]:
    """Return all documents by the blended score of their best chunk, found by comparing all."""
    documents = collection.documents
    assert query.words is not None and query.vector is not None
    labels = documents.labels(query.filter)
    shares = documents.words(
        query.words, len(collection.index), within(documents, query.filter)
    ).shares_of(labels)
    cosines = unit(documents.vectors(labels)).astype(np.float64) @ query.vector
    scores = blend(cosines, shares, query.weights)
    chunks = documents.by_labels(labels)
    best: dict[str, float] = {}
    for score, label in sorted(zip((-scores).tolist(), labels.tolist(), strict=True)):
        best.setdefault(chunks[label].id, -score)
    return list(best.items())


@pytest.mark.parametrize("name", ["whole", "chunked"])
def test_blended_hits_are_those_of_comparing_all(varied: dict[str, Collection], name: str) -> None:
    for query in QUESTIONS:
        expected = exact(varied[name], query)
        for top_k in (10, 150):
            (hits,) = search(varied[name], [replace(query, top_k=top_k)])
            assert [hit.score for hit in hits] == pytest.approx(
                [score for _, score in expected[:top_k]], abs=2e-6
            )
            certain = {id for id, score in expected if score > hits[-1].score + 2e-6}
            assert certain <= {hit.id for hit in hits}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=5).map(" ".join),
    seed=st.integers(0, 1000),
    weights=st.sampled_from([(1.0, 0.7), (0.3, 1.0), (1e-6, 1e6), (1e6, 1e6)]),
    top_k=st.integers(1, 40),
    fusion=st.sampled_from(["blend", "rrf"]),
)
def test_an_answer_is_a_beginning_of_every_longer_answer(
    varied: dict[str, Collection],
    words: str,
    seed: int,
    weights: tuple[float, float],
    top_k: int,
    fusion: str,
) -> None:
    query = Query("hybrid", top_k, rows(1, seed)[0], words, weights=weights)
    query = replace(query, fusion=fusion)  # type: ignore[arg-type]
    (few,), (many,) = (
        search(varied["chunked"], [replace(query, top_k=k)]) for k in (top_k, 3 * top_k)
    )
    assert shown(many)[:top_k] == shown(few)
    assert all(np.isfinite(hit.score) for hit in many)


def test_best_hit_of_a_senseless_query_has_a_low_score(varied: dict[str, Collection]) -> None:
    query = Query("hybrid", 1, rows(1, seed=99)[0], "nothing known")
    ((hit,),) = search(varied["whole"], [query])
    (best,) = search(varied["whole"], [replace(query, mode="dense")])
    near = nearness(np.array([best[0].score]))[0]
    assert hit.score == pytest.approx(near / 2, abs=1e-5)


def test_searches_side_by_side_answer_as_each_alone(varied: dict[str, Collection]) -> None:
    queries = [replace(query, top_k=k) for query in QUESTIONS for k in (5, 200)]
    together = search(varied["chunked"], queries)
    for query, hits in zip(queries, together, strict=True):
        alone = search(varied["chunked"], [query])[0]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=2e-6)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_searches_with_several_filters_keep_each_to_its_own(
    varied: dict[str, Collection], mode: str
) -> None:
    asked = Query("dense", 1000, rows(1, seed=5)[0], "word1 word2 word3")
    # For Python the last two are equal.
    filters = [None, {"n": {"$gte": 600}}, {"n": {"$lt": 100}}, {"n": 1.0}, {"n": True}]
    queries = [
        replace(asked, mode=mode, filter=filter and parse(filter))  # type: ignore[arg-type]
        for filter in filters
    ]
    together = search(varied["whole"], queries)
    numbers = [{int(hit.id) for hit in hits} for hits in together]
    for found, begin, end in zip(numbers, (0, 600, 0, 1, 0), (700, 700, 100, 2, 0), strict=True):
        assert found <= set(range(begin, end))
    assert all(len(found) > 50 for found in numbers[:3])
    for query, hits in zip(queries, together, strict=True):
        alone = {hit.id: hit.score for hit in search(varied["whole"], [query])[0]}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(alone, abs=2e-6)


def test_a_deeper_ranking_takes_the_place_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalIndex.search

    def rough(index: LocalIndex, vectors: Vectors, k: int, within: Selection | None = None) -> Hits:
        """Search as by codes that miss the best vector, and whose scores are too low."""
        if k > 2 * CHUNKS_A_HIT:
            return real(index, vectors, k, within)
        found = real(index, vectors, k + 1, within)
        return Hits(found.scores[:, 1:] - 0.1, found.labels[:, 1:])

    monkeypatch.setattr(LocalIndex, "search", rough)
    collection = made(tmp_path, rules=RULES)
    asked = np.eye(D, dtype=np.float32)
    # Nine chunks of "many" between the only chunk of "best" and that of "last".
    vectors = np.stack(
        [asked[0], *(asked[0] + (n + 1) / 10 * asked[1] for n in range(9)), asked[0] + 9 * asked[1]]
    )
    spans = [[Span(0, 1)], [Span(n, n + 1) for n in range(9)], [Span(0, 1)]]
    items = [Document("best", "甲"), Document("many", "一二三四五六七八九"), Document("last", "乙")]
    collection.add(items, vectors, spans)
    (hits,) = search(collection, [Query("dense", 2, asked[0])])
    assert [(hit.id, hit.text) for hit in hits] == [("best", "甲"), ("many", "一")]
    assert [hit.score for hit in hits] == pytest.approx([1, 1 / np.sqrt(1.01)], abs=1e-4)
    collection.close()


def test_a_plain_search_needs_no_thread_once_its_hits_are_known(collection: Collection) -> None:
    vectors = rows(4 * parts_of(collection))
    write(collection, ["a", "b", "c", "d"], "甲乙丙。", vectors, 1)
    query = Query("dense", 2, vectors[0])
    assert at_once(collection, [query]) is None
    found = search(collection, [query, query])
    # Chunks that are not shown are not kept, so more hits than those shown are not known.
    known = at_once(collection, [query])
    assert known in (found[:1], None)
    assert known is not None or parts_of(collection) > 1
    for other in (
        replace(query, filter=parse({"kind": "x"})),
        replace(query, mode="hybrid", words="甲"),
        replace(query, top_k=QUICK_HITS + 1),
    ):
        assert at_once(collection, [other]) is None
    assert at_once(collection, [query, query]) is None
    collection.delete(["a"])
    after = at_once(collection, [query])
    assert after is None or "a" not in {hit.id for hit in after[0]}


def test_a_plain_search_for_more_than_there_are_needs_no_thread_once_all_are_known(
    tmp_path: Path,
) -> None:
    collection = made(tmp_path)
    vectors = np.stack([[n, 1, *[0] * (D - 2)] for n in (0, 1, 2)]).astype(np.float32)
    write(collection, ["a", "b", "c"], "甲", vectors, 1)
    query = Query("dense", 9, vectors[0])
    expected = {"a": 1.0, "b": 1 / np.sqrt(2), "c": 1 / np.sqrt(5)}
    assert at_once(collection, [query]) is None
    search(collection, [query])
    for asked, number in ((query, 3), (replace(query, min_score=0.5), 2)):
        found = at_once(collection, [asked])
        assert found is not None and found == search(collection, [asked])
        scores = {hit.id: hit.score for hit in found[0]}
        assert scores == pytest.approx(dict(list(expected.items())[:number]), abs=1e-4)
    collection.close()
