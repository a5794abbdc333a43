"""Estimates of what a read costs, from its parts: seconds of one thread, before anything is read.

The constants are of 63,762 law articles (2026-11-24, 2 cores of an AMD EPYC); `read_queue` follows by how much
a machine and its collections differ. rows: chunks of the collection, which are in memory and cost nothing to
count.
"""

from collections.abc import Sequence

from server.collections.searching.option_cost import hits_read, of_options
from server.store.filters.tree import (
    TEXT,
    AllOf,
    AnyOf,
    Begins,
    Compared,
    Contains,
    Exists,
    Filter,
    Instant,
    Not,
    OneOf,
)
from server.store.records import CollectionStats
from server.store.search import CHUNKS_A_HIT, Query

# A call on a thread, and a statement.
CALL_S = 0.0003
# A condition is compiled; an equality looks up rows, or $ne leaves rows out; a range reads part of all rows.
CONDITION_S, EQUAL_ROW_S, RANGE_ROW_S, VALUE_S = 5e-6, 40e-9, 300e-9, 2e-6
# A vector is compared, in 0.3 ms at least; a hit's text is read and its checksum compared.
VECTOR_S, DENSE_S, HIT_S = 5e-9, 0.0003, 15e-6
# Texts of a read from which the time of one is learnt, and how fast it is followed.
MANY_HITS, FOLLOW = 50, 0.5
# Bytes on disk of a short chunk with its vector and words, and the time of each byte beyond.
SHORT_BYTES, LONG_BYTE_S = 8_192, 4e-9
# Texts with any of the words are scored, and no more than a bounded number of them.
WORDS_ROW_S, MAX_WORDS_S = 150e-9, 0.012
# Rows are counted.
COUNT_ROW_S = 10e-9
# JSON is written; a character is looked at for highlights.
BYTE_S, MARKED_S = 3e-9, 0.6e-6

# A value is given to a function of this server; a whole text is read.
CALLED_ROW_S, TEXT_ROW_S = 2e-6, 5e-6


def of_filter(filter: Filter | None, rows: int) -> float:
    """Return the cost of finding the documents that a filter keeps."""
    match filter:
        case None:
            return 0.0
        case AllOf(conditions) | AnyOf(conditions):
            return sum(of_filter(condition, rows) for condition in conditions)
        case Not(condition):
            return of_filter(condition, rows) + CONDITION_S
        case OneOf(_, values):
            return CONDITION_S + EQUAL_ROW_S * rows + VALUE_S * len(values)
        case Contains(key) | Begins(key) if key == TEXT:
            return CONDITION_S + TEXT_ROW_S * rows
        case Contains() | Compared(_, _, Instant()):
            return CONDITION_S + CALLED_ROW_S * rows
        case Compared() | Begins() | Exists():
            return CONDITION_S + RANGE_ROW_S * rows


def of_query(query: Query, rows: int, hit_s: float = HIT_S) -> float:
    """Return the cost of one query without its filter. hit_s: seconds to read a hit."""
    cost = hit_s * min(hits_read(query), rows) + of_options(query, rows, hit_s)
    if query.mode != "lexical":
        cost += DENSE_S + VECTOR_S * rows
    if query.mode != "dense":
        cost += min(WORDS_ROW_S * rows, MAX_WORDS_S)
    return cost + HIT_S / 5 * CHUNKS_A_HIT * min(query.depth, rows)


def of_search(queries: Sequence[Query], rows: int, hit_s: float = HIT_S) -> float:
    """Return the cost of queries that have one filter in common, or none."""
    cost = CALL_S + sum(of_query(query, rows, hit_s) for query in queries)
    filter = queries[0].filter if queries else None
    if filter is not None:
        # As SQLite evaluates it; in memory it costs a hundredth.
        cost += of_filter(filter, rows)
    return cost


def of_count(filter: Filter | None, rows: int) -> float:
    return CALL_S + COUNT_ROW_S * rows + of_filter(filter, rows)


def of_page(limit: int, filter: Filter | None, rows: int, hit_s: float = HIT_S) -> float:
    return CALL_S + hit_s * min(limit, rows) + of_filter(filter, rows)


class HitTime:
    """Seconds to read a hit or a document of one collection, as last seen: its texts may be long.

    Only reads that do little else are observed: no filter, no words. Otherwise one client's long filters
    would make the searches of all others look heavy, and they would be refused.

    Written on the threads that read, and read on the loop; each is one step.
    """

    def __init__(self) -> None:
        self.seconds = HIT_S

    def expect(self, stats: CollectionStats) -> None:
        """Take the size of the texts into account, before any is read."""
        bytes_each = stats.database_bytes / max(stats.chunks, MANY_HITS)
        self.seconds = max(self.seconds, HIT_S + LONG_BYTE_S * max(bytes_each - SHORT_BYTES, 0))

    def observe(self, seconds: float, number: int) -> None:
        """Take a read of so many texts into account. Of few, other costs would be taken for theirs."""
        if number >= MANY_HITS:
            self.seconds += FOLLOW * (max(seconds / number, HIT_S) - self.seconds)


def of_reply(texts: int, marked: int) -> float:
    """Return the cost of writing a reply. texts, marked: characters, and those looked at for highlights."""
    return CALL_S + 3 * BYTE_S * texts + MARKED_S * marked
