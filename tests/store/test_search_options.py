"""Searches with options, compared with what a slow reading of all documents gives."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import DocumentNotFound, InvalidRequest, StoreDamaged
from server.store.collection import Collection
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.fusion import blend
from server.store.records import Chunk, ChunkRules, Document, Info, Span
from server.store.search import Hit, Query, at_once
from server.store.searching.answers import search
from server.store.searching.diversity import diverse
from server.store.searching.facets import _condition, _facet, facets
from server.store.searching.found import Found
from server.store.searching.grouping import grouped
from server.store.searching.options import (
    Diversity,
    Grouping,
    Like,
    Options,
    Sorting,
    SortKey,
)
from server.store.vector_blob import rounded
from server.types import Vectors, unit

D, N, PARTS = 8, 60, 3
KINDS: Sequence[Any] = ("law", "rule", 1, True, None, ["law", "rule"], {"deep": 1})
WORDS = ("墨池", "天气", "search", "server")
Filled = tuple[Collection, Vectors]


def rows(n: int, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32))


def metadata_of(n: int) -> dict[str, Any]:
    found: dict[str, Any] = {"n": n, "year": 2000 + n % 7, "name": f"n{n % 3}"}
    if n % 5:
        found["kind"] = KINDS[n % len(KINDS)]
    return found


def text_of(n: int, part: int) -> str:
    return f"{WORDS[n % 4]} {WORDS[(n + part) % 4]} {n:04}.{part} "


@pytest.fixture(scope="module", params=[None, ChunkRules(4, 0)], ids=["whole", "chunked"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    """A collection of N documents, of one or of three chunks each, and its vectors by chunk."""
    data = DataFolder(tmp_path_factory.mktemp("options"))
    collection = data.create(Info("main", "model-a", D, request.param))
    number = 1 if request.param is None else PARTS
    vectors = rows(N * number)
    documents, spans = [], []
    for n in range(N):
        texts = [text_of(n, part) for part in range(number)]
        ends = np.cumsum([len(text) for text in texts]).tolist()
        documents.append(Document(f"d{n}", "".join(texts), metadata=metadata_of(n)))
        spans.append([Span(a, b) for a, b in zip([0, *ends], ends, strict=False)])
    collection.add(documents, vectors, spans)
    yield collection, unit(rounded(vectors))
    data.close()


def found(collection: Collection, query: Query) -> Found:
    (answer,) = search(collection, [query])
    assert isinstance(answer, Found)
    return answer


def dense(**options: Any) -> Query:
    return Query("dense", 5, rows(1, seed=9)[0], options=Options(**options))


def numbers(hits: Sequence[Hit]) -> list[int]:
    return [int(hit.id[1:]) for hit in hits]


def all_hits(collection: Collection, query: Query) -> list[Hit]:
    return search(collection, [replace(query, top_k=N, options=Options(explain=True))])[0]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("fusion", ["blend", "rrf"])
def test_pages_are_slices_of_one_list(filled: Filled, mode: Any, fusion: Any) -> None:
    collection, _ = filled
    query = Query(mode, 7, rows(1, seed=9)[0], "天气 search", fusion=fusion)
    whole = search(collection, [replace(query, top_k=N)])[0]
    for offset in (0, 7, N - 5, N, 2 * N):
        options = Options(offset=offset, look_ahead=True)
        page = found(collection, replace(query, options=options))
        assert numbers(page) == numbers(whole[offset : offset + 7])
        assert [hit.score for hit in page] == [hit.score for hit in whole[offset : offset + 7]]
        assert page.has_more == (len(whole) > offset + 7)
        assert page.revision == collection.documents.revision()


def test_plain_queries_and_others_are_answered_together(filled: Filled) -> None:
    collection, _ = filled
    plain, rich = replace(dense(), options=Query("dense", 1).options), dense(offset=1)
    first, second, third = search(collection, [rich, plain, rich])
    assert numbers(first) == numbers(third)
    assert numbers(second)[1:] == numbers(first)[:4]
    assert not isinstance(second, Found)
    # Only a plain search is answered on the loop.
    assert at_once(collection, [plain]) is not None
    assert at_once(collection, [rich]) is None


def test_an_explanation_has_what_the_score_is_made_of(filled: Filled) -> None:
    collection, vectors = filled
    query = Query("hybrid", 9, rows(1, seed=9)[0], "天气 search", options=Options(explain=True))
    for hit in found(collection, query):
        assert hit.details is not None and hit.details.explanation is not None
        said = hit.details.explanation
        assert said.cosine is not None and said.words is not None
        assert said.words.share == pytest.approx(said.words.bm25 / said.words.attainable)
        # And a fifth more for all words together.
        assert said.words.attainable == pytest.approx(
            1.2 * 2.2 * sum(term.weight for term in said.words.terms)
        )
        shares = np.array([said.words.share])
        score = blend(np.array([said.cosine]), shares, query.weights)[0]
        assert hit.score == pytest.approx(score, abs=1e-5)
        assert {term.term: term.is_matched for term in said.words.terms} == {
            word: word in hit.text for word in ("天气", "search")
        }


def test_an_explanation_has_the_ranks_of_either_search(filled: Filled) -> None:
    collection, _ = filled
    query = replace(dense(explain=True), mode="hybrid", words="天气", fusion="rrf")
    for hit in found(collection, query):
        assert hit.details is not None and hit.details.explanation is not None
        assert (ranks := hit.details.explanation.ranks) is not None
        weighed = zip(ranks, query.weights, strict=True)
        parts = [weight / (10 + rank) for rank, weight in weighed if rank is not None]
        assert hit.score == pytest.approx(sum(parts), abs=1e-6)


def test_explanations_of_one_half_leave_out_the_other(filled: Filled) -> None:
    collection, _ = filled
    (hit, *_) = found(collection, dense(explain=True))
    assert hit.details is not None and hit.details.explanation is not None
    assert hit.details.explanation.cosine == pytest.approx(hit.score, abs=1e-6)
    assert hit.details.explanation.words is None
    query = Query("lexical", 3, words="天气", options=Options(explain=True))
    (hit, *_) = found(collection, query)
    assert hit.details is not None and hit.details.explanation is not None
    assert hit.details.explanation.cosine is None and hit.details.explanation.words is not None
    assert hit.details.explanation.words.bm25 == pytest.approx(hit.score)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("fusion", ["blend", "rrf"])
def test_parts_are_the_best_chunks_of_a_document(filled: Filled, mode: Any, fusion: Any) -> None:
    collection, vectors = filled
    number = len(vectors) // N
    query = Query(
        mode, 4, rows(1, seed=9)[0], "天气 search", fusion=fusion, options=Options(parts=2)
    )
    hits = found(collection, query)
    assert len(hits) == 4
    for hit in hits:
        assert hit.details is not None and (parts := hit.details.parts) is not None
        assert (parts[0].text, parts[0].span) == (hit.text, hit.span)
        assert parts[0].score == pytest.approx(hit.score, abs=1e-6)
        assert len(parts) <= min(2, number)
        assert [part.score for part in parts] == sorted([p.score for p in parts], reverse=True)
        if mode == "dense" and query.vector is not None:
            n = int(hit.id[1:])
            cosines = vectors[n * number : (n + 1) * number] @ query.vector
            assert [part.score for part in parts] == pytest.approx(
                sorted(cosines.tolist(), reverse=True)[:2], abs=1e-5
            )


def test_documents_and_vectors_are_those_that_are_stored(filled: Filled) -> None:
    collection, vectors = filled
    number = len(vectors) // N
    for hit in found(collection, dense(document=True, vectors=True)):
        n = int(hit.id[1:])
        assert hit.details is not None and hit.details.vector is not None
        assert hit.details.document == "".join(text_of(n, part) for part in range(number))
        part = hit.details.document[: hit.span.begin].count(f"{n:04}.")
        assert np.allclose(hit.details.vector, vectors[n * number + part], atol=1e-3)


def values_of(metadata: Any, key: str) -> list[Any]:
    value = metadata.get(key)
    values = value if isinstance(value, list) else [value]
    return [each for each in values if not isinstance(each, dict)] or [None]


def test_groups_are_those_of_the_best_hits(filled: Filled) -> None:
    collection, _ = filled
    query = dense(group=Grouping("kind", 2))
    groups: dict[tuple[str, Any], list[int]] = {}
    for hit in all_hits(collection, query):
        for value in values_of(hit.metadata, "kind"):
            key = str(type(value)), value
            if key in groups or len(groups) < 5:
                groups.setdefault(key, []).append(int(hit.id[1:]))
    answer, begin = found(collection, query), 0
    assert answer.groups is not None
    assert [value for value, _ in answer.groups] == [value for _, value in groups]
    for (_, number), expected in zip(answer.groups, groups.values(), strict=True):
        assert numbers(answer[begin : begin + number]) == expected[:2]
        begin += number
    assert begin == len(answer)


def test_long_values_are_told_apart_and_shown_by_their_beginnings() -> None:
    texts = ["x" * 256, "x" * 300, "x" * 300 + "y"]
    chunks = {
        n: Chunk(f"d{n}", "", None, {"k": text}, Span(0, 0), True) for n, text in enumerate(texts)
    }
    found = grouped([(n, 1.0) for n in chunks], chunks, Grouping("k", 2), 9)
    assert found == [("x" * 256, [(n, 1.0)]) for n in chunks]


def kind_of(value: Any) -> int:
    return 2 if isinstance(value, bool) else 0 if isinstance(value, int) else 1


def in_order(hits: list[int], keys: Sequence[SortKey]) -> list[int]:
    """Put documents in the order of their metadata; the slow reference."""
    for key in reversed(keys):
        known: dict[int, tuple[int, Any]] = {}
        for n in hits:
            values = [each for each in values_of(metadata_of(n), key.key) if each is not None]
            ranked = [(kind_of(each), each) for each in values]
            if ranked:
                known[n] = max(ranked) if key.is_descending else min(ranked)
        there = [n for n in hits if n in known]
        there.sort(key=lambda n: known[n], reverse=key.is_descending)
        hits = there + [n for n in hits if n not in known]
    return hits


ORDERS = [
    (SortKey("year"),),
    (SortKey("kind", True), SortKey("n", True)),
    (SortKey("kind"), SortKey("name", True), SortKey("missing")),
]


@pytest.mark.parametrize("keys", ORDERS)
def test_the_best_hits_are_put_in_order(filled: Filled, keys: Sequence[SortKey]) -> None:
    collection, _ = filled
    query = dense(sort=Sorting(tuple(keys), 20), offset=3)
    best = numbers(all_hits(collection, query)[:20])
    answer = found(collection, query)
    assert numbers(answer) == in_order(best, keys)[3:8]
    cosines = {hit.id: hit.score for hit in all_hits(collection, query)}
    assert all(hit.score == pytest.approx(cosines[hit.id], abs=1e-6) for hit in answer)


@pytest.mark.parametrize("keys", ORDERS)
@pytest.mark.parametrize("filter", [None, {"year": {"$lt": 2004}}])
def test_documents_are_listed_in_order(
    filled: Filled, keys: Sequence[SortKey], filter: dict[str, Any] | None
) -> None:
    collection, _ = filled
    kept = [n for n in range(N) if filter is None or 2000 + n % 7 < 2004]
    expected = in_order(kept, keys)
    tree = None if filter is None else parse(filter)
    for offset in (0, 17, len(kept) - 2):
        options = Options(sort=Sorting(tuple(keys), 1), offset=offset, look_ahead=True)
        answer = found(collection, Query("dense", 9, filter=tree, options=options))
        assert numbers(answer) == expected[offset : offset + 9]
        assert answer.has_more == (len(kept) > offset + 9)
        assert all(np.isnan(hit.score) and hit.span.begin == 0 for hit in answer)


def test_documents_are_found_by_the_vectors_of_others(filled: Filled) -> None:
    collection, vectors = filled
    number = len(vectors) // N
    means = unit(vectors.reshape(N, number, D).mean(axis=1))
    options = Options(like=Like(("d3", "d5"), ("d8",)))
    answer = found(collection, Query("dense", 6, options=options))
    towards = means[[3, 5]].mean(axis=0)
    query = Query("dense", N, (2 * towards - means[8]).astype(np.float32))
    expected = [n for n in numbers(search(collection, [query])[0]) if n not in (3, 5, 8)]
    assert numbers(answer) == expected[:6]
    # As many as there are: the three are left out.
    every = found(collection, Query("dense", N, options=options))
    assert sorted(numbers(every)) == sorted(expected)
    page = found(collection, Query("dense", 4, options=replace(options, offset=2)))
    assert numbers(page) == expected[2:6]


def test_what_no_document_is_like_is_refused(filled: Filled) -> None:
    collection, _ = filled
    for like in (Like(("d1", "gone")), Like(("d1",), ("gone",))):
        with pytest.raises(DocumentNotFound, match="gone"):
            search(collection, [Query("dense", 3, options=Options(like=like))])


def test_opposite_documents_have_no_direction(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    collection = data.create(Info("main", "model-a", D, None))
    collection.add([Document("a", "a"), Document("b", "b")], np.stack([rows(1)[0], -rows(1)[0]]))
    with pytest.raises(InvalidRequest, match="no common direction"):
        search(collection, [Query("dense", 3, options=Options(like=Like(("a", "b"))))])
    data.close()


def slow_mmr(scores: list[float], vectors: Vectors, relevance: float, number: int) -> list[int]:
    chosen: list[int] = []
    left = list(range(len(scores)))
    while left and len(chosen) < number:

        def worth(place: int) -> float:
            near = max((float(vectors[place] @ vectors[each]) for each in chosen), default=0.0)
            return relevance * scores[place] - (1 - relevance) * near

        best = max(left, key=lambda place: (worth(place) if chosen else scores[place], -place))
        chosen.append(best)
        left.remove(best)
    return chosen


@pytest.mark.parametrize("relevance", [0.0, 0.3, 0.7, 1.0])
def test_diverse_hits_are_those_of_maximal_marginal_relevance(relevance: float) -> None:
    vectors = rows(40, seed=3)
    scores = np.sort(np.random.default_rng(4).random(40))[::-1].copy()
    expected = slow_mmr(scores.tolist(), vectors, relevance, 15)
    assert diverse(scores, vectors, relevance, 15) == expected
    assert diverse(scores, vectors, relevance, 15)[:4] == diverse(scores, vectors, relevance, 4)
    if relevance == 1:
        assert expected == list(range(15))


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_diversity_chooses_among_the_best_hits(filled: Filled, mode: Any) -> None:
    collection, _ = filled
    query = replace(dense(diversity=Diversity(0.2, 12)), mode=mode, words="天气 search")
    best = numbers(all_hits(collection, query)[:12])
    whole = numbers(found(collection, replace(query, top_k=12)))
    assert sorted(whole) == sorted(best) and whole != best
    assert whole[0] == best[0]
    options = replace(query.options, offset=4)
    assert numbers(found(collection, replace(query, options=options))) == whole[4:9]


def counted(kept: Sequence[int], key: str) -> dict[tuple[str, Any], int]:
    counts: dict[tuple[str, Any], int] = {}
    for n in kept:
        for value in values_of(metadata_of(n), key):
            if value is not None:
                place = str(type(value)), value
                counts[place] = counts.get(place, 0) + 1
    return counts


def test_facets_count_what_the_filter_keeps(filled: Filled) -> None:
    collection, _ = filled
    for filter in (None, {"year": {"$gte": 2003}}):
        kept = [n for n in range(N) if filter is None or 2000 + n % 7 >= 2003]
        tree = None if filter is None else parse(filter)
        query = replace(dense(facets=("kind", "year", "missing", "n")), filter=tree)
        for facet in found(collection, query).facets:
            expected = counted(kept, facet.key)
            shown = {(str(type(value)), value): count for value, count in facet.values}
            counts = [count for _, count in facet.values]
            assert counts == sorted(counts, reverse=True)
            assert facet.is_complete == (len(expected) <= 20)
            if facet.is_complete:
                assert shown == expected
            assert facet.documents == sum(
                any(each is not None for each in values_of(metadata_of(n), facet.key)) for n in kept
            )


def test_facets_of_a_search_by_words_count_what_has_them(filled: Filled) -> None:
    collection, _ = filled
    query = Query("lexical", 2, words="天气", options=Options(facets=("year",)))
    having = numbers(search(collection, [replace(query, top_k=N, options=Options(offset=0))])[0])
    assert 2 < len(having) < N
    (facet,) = found(collection, query).facets
    assert dict(facet.values) == {value: n for (_, value), n in counted(having, "year").items()}
    assert facet.documents == len(having)


def test_hits_outside_of_the_filter_are_noticed(filled: Filled) -> None:
    """Filters keep tenants apart: rows that disagree with the metadata are damage."""
    collection, _ = filled
    with collection.documents.transaction() as _:
        collection.documents.database.writer.execute(
            "INSERT INTO attributes SELECT 'tenant', 'x', number FROM documents WHERE id = 'd1'"
        )
    options = Options(sort=Sorting((SortKey("n"),), 1))
    with pytest.raises(StoreDamaged):
        search(collection, [Query("dense", 3, filter=parse({"tenant": "x"}), options=options)])
    with collection.documents.transaction() as _:
        collection.documents.database.writer.execute("DELETE FROM attributes WHERE key = 'tenant'")


def test_answers_during_writes_are_of_one_moment(tmp_path: Path) -> None:
    """Hits, parts, vectors and counts of an answer agree, whatever is written beside it."""
    data = DataFolder(tmp_path)
    collection = data.create(Info("main", "model-a", D, None))
    ids = [str(n) for n in range(12)]
    query = Query(
        "hybrid",
        6,
        rows(1, seed=9)[0],
        "server",
        options=Options(2, True, parts=1, document=True, vectors=True, facets=("version",)),
    )
    listing = Query("dense", 9, options=Options(sort=Sorting((SortKey("version"),), 1)))
    like = Query("dense", 9, options=Options(like=Like(("3",)), facets=("version",)))
    wrong: list[object] = []
    seen: set[object] = set()
    ended = threading.Event()

    def write(version: int) -> None:
        documents = [Document(id, f"server {version}", None, {"version": version}) for id in ids]
        collection.add(documents, rows(len(ids), seed=version))

    def look() -> None:
        while not ended.is_set():
            for answer in search(collection, [query, like, listing]):
                assert isinstance(answer, Found)
                versions = {hit.metadata["version"] for hit in answer}
                versions |= {value for facet in answer.facets for value, _ in facet.values}
                counts = [count for facet in answer.facets for _, count in facet.values]
                texts = {hit.text for hit in answer}
                texts |= {hit.details.document or "" for hit in answer if hit.details}
                if len(versions) != 1 or len(texts) != 1 or counts not in ([], [len(ids)]):
                    wrong.append((versions, texts, counts))
                seen.update(versions)

    write(0)
    thread = threading.Thread(target=look)
    thread.start()
    for version in range(1, 30):
        write(version)
    ended.set()
    thread.join()
    assert wrong == [] and len(seen) > 2
    data.close()


FILTERS: Sequence[dict[str, Any] | None] = (None, {"year": {"$gte": 2003}}, {"$not": {"n": 4}})


def test_counts_in_memory_are_those_of_the_database(tmp_path: Path) -> None:
    """Also while documents are written, replaced and removed, which are columns of their own."""
    data = DataFolder(tmp_path)
    collection = data.create(Info("main", "model-a", D, None))
    documents = collection.documents
    random = np.random.default_rng(5)
    for round in range(12):
        ids = np.unique(random.integers(0, 400, size=80 if round < 2 else 9)).tolist()
        collection.add(
            [Document(f"d{n}", text_of(n, round), metadata=metadata_of(n + round)) for n in ids],
            rows(len(ids), seed=round),
        )
        collection.delete([f"d{n}" for n in random.integers(0, 400, size=5)])
        with collection.reading():
            columns = collection.columns()
            assert columns is not None
            words = documents.words("search", len(collection.index)).labels
            for filter in FILTERS:
                tree = None if filter is None else parse(filter)
                for among in (tree, np.sort(words)):
                    keys = ("kind", "year", "n", "name", "missing")
                    condition = _condition(documents, among)
                    for key in keys:
                        in_memory = facets(collection, [key], among)
                        assert in_memory == [_facet(documents, key, *condition)]
                    together = facets(collection, keys, among)
                    assert together == [_facet(documents, key, *condition) for key in keys]
    data.close()
