"""Pairs of texts for a model that scores them: made of single texts, since nobody has pairs at hand.

A query is the beginning of a text. The text itself is a good candidate for it, its neighbour in the file is
often about the same subject, and texts from elsewhere are not.
"""

import re
from collections.abc import Sequence

Pair = tuple[str, str]

# Queries that verification orders the candidates of, and candidates of each.
QUERIES, CANDIDATES = 16, 8
LONGEST_QUERY = 60
SENTENCE = re.compile(r"(?<=[。！？!?])|(?<=\.)\s")


def query_of(text: str) -> str:
    """Return the beginning of a text: its first sentence, or else half of it, cut between words."""
    first, *rest = SENTENCE.split(text.strip(), maxsplit=1)
    if rest and rest[0].strip() and len(first) <= LONGEST_QUERY:
        return first
    half = text.strip()[: min(LONGEST_QUERY, max(1, len(text) // 2))]
    return half.rpartition(" ")[0] or half


def to_calibrate(texts: Sequence[str]) -> list[Pair]:
    """Return each text's query with the text itself, then with a text from elsewhere."""
    related = [(query_of(text), text) for text in texts]
    far = len(texts) // 2
    return related + [
        (query_of(text), texts[(place + far) % len(texts)]) for place, text in enumerate(texts)
    ]


def to_verify(texts: Sequence[str]) -> list[Pair]:
    """Return queries with their candidates, CANDIDATES in a row for each of at most QUERIES queries."""
    step = max(1, len(texts) // QUERIES)
    far = max(1, len(texts) // (CANDIDATES - 1))
    places = range(0, len(texts), step)[:QUERIES]
    return [
        (query_of(texts[place]), texts[(place + away) % len(texts)])
        for place in places
        for away in (0, 1, *(n * far for n in range(1, CANDIDATES - 1)))
    ]


def with_each(texts: Sequence[str], candidates: Sequence[str]) -> list[Pair]:
    """Return each candidate with one of the texts' queries."""
    return [
        (query_of(texts[place % len(texts)]), candidate)
        for place, candidate in enumerate(candidates)
    ]


def self_test(texts: Sequence[str]) -> list[Pair]:
    """Return each text with its query, and with the query of the next."""
    queries = [query_of(text) for text in texts]
    return [*zip(queries, texts, strict=True), *zip(queries, (*texts[1:], texts[0]), strict=True)]
