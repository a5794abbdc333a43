"""Reranking: the candidates of a search are read again, each together with the query, by a model of scores.

A vector knows only its own text. A model that reads query and text together tells better which text answers, and
takes thousands of times as long. So a search finds candidates, and it puts only those in order.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from server.errors import InvalidRequest
from server.inference.answers import ranking
from server.inference.engine import Engine
from server.store.passages.reading import read_as
from server.store.search import Hit

# Candidates of a query, unless the request says how many.
CANDIDATES, MOST_CANDIDATES = 50, 200


class Reranked(NamedTuple):
    """Hits of each query in their new order. truncated: candidates that the model could not read whole."""

    found: list[list[Hit]]
    truncated: int


def candidates(top_n: int | None, top_k: int) -> int:
    """Return how many candidates a query has; raises InvalidRequest.

    top_n: as the request says. top_k: the hits that it wants, all of which are reranked.
    """
    found = max(CANDIDATES, top_k) if top_n is None else top_n
    if top_n is not None and not 1 <= top_n <= MOST_CANDIDATES:
        raise InvalidRequest(
            f"rerank.top_n {top_n} is outside 1 to {MOST_CANDIDATES}", param="rerank"
        )
    if top_k > min(found, MOST_CANDIDATES):
        raise InvalidRequest(
            f"top_k {top_k} is more than the {min(found, MOST_CANDIDATES)} candidates that are reranked;"
            f" ask for fewer hits, or for more candidates with rerank.top_n, at most {MOST_CANDIDATES}",
            param="top_k",
        )
    return found


def _read(hit: Hit) -> str:
    """Return what the model reads of a hit. All headings, though some had no room when it was embedded."""
    above = None if hit.details is None else hit.details.above
    return read_as(hit.title, "" if above is None else above.context, hit.text)


async def reranked(
    engine: Engine,
    texts: Sequence[str],
    found: Sequence[Sequence[Hit]],
    top_k: int,
    min_score: float | None = None,
) -> Reranked:
    """Return the best hits of each query by their relevance; raises what `Engine.score` raises.

    texts: the queries. found: the candidates of each. min_score: hits of less relevance are left out.
    The model reads the chunk that was found as it was embedded: with the title and what stands above it.
    """
    pairs = [(text, _read(hit)) for text, hits in zip(texts, found, strict=True) for hit in hits]
    if not pairs:
        return Reranked([[] for _ in found], 0)
    done = await engine.score(pairs)
    relevance, begin = done.relevance, 0
    ordered = []
    for hits in found:
        end = begin + len(hits)
        of_hits = relevance[begin:end].tolist()
        best = [
            replace(hits[place], rerank_score=of_hits[place])
            for place in ranking(done.logits[begin:end], top_k)
            if min_score is None or of_hits[place] >= min_score
        ]
        ordered.append(best)
        begin = end
    return Reranked(ordered, len(done.truncated))
