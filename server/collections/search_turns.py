"""A search with much to do, in turns: others run between them, and its limits hold for all of them."""

from collections.abc import Callable, Sequence
from functools import partial

from server.clock import now
from server.collections.read_threads import ReadThreads
from server.store.search import Hit, Query
from server.store.sqlite.read_limit import deduct, too_much_to_read

# Queries and hits of one turn of a request with many queries.
TURN_QUERIES, TURN_HITS = 32, 2_000

Search = Callable[[Sequence[Query]], list[list[Hit]]]


async def in_turns(
    reads: ReadThreads, cost_s: float, queries: Sequence[Query], search: Search
) -> list[list[Hit]]:
    """Return the hits of each query; raises RequestTooLarge for too many bytes or too much time.

    cost_s: of all queries. The time is that of the turns, without the waits between them.
    """
    spent_s = 0.0

    def turn(some: Sequence[Query]) -> list[list[Hit]]:
        nonlocal spent_s
        started = now()
        deduct(spent_s)
        hits = search(some)
        spent_s += now() - started
        return hits

    found: list[list[Hit]] = []
    n_bytes, step = 0, _queries_a_turn(queries)
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        found += await reads.turn(cost_s * len(some) / len(queries), partial(turn, some))
        n_bytes += sum(hit.n_characters for hits in found[start:] for hit in hits)
        if n_bytes > reads.max_bytes:
            raise too_much_to_read(reads.max_bytes)
    return found


def _queries_a_turn(queries: Sequence[Query]) -> int:
    return min(TURN_QUERIES, max(1, TURN_HITS // max(query.depth for query in queries)))
