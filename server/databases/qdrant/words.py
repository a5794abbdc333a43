"""Words as sparse vectors: Qdrant multiplies what a text holds of each term with how rare the term is."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from server.store.words.ranking import K1, B

# BM25 divides by the mean length of texts, which no text knows
# by itself. A fixed one changes how much a text's length counts, and not what is found. Mean terms of a text
# (2026-11-30, 500 each): CMRC2018 432, DRCD 430, SciFact 335, laws 156; without the characters that begin Chinese
# terms, which add about a half.
USUAL_LENGTH = 340


def weights(words: Mapping[str, int]) -> dict[str, list[int] | list[float]]:
    """Return the part of BM25 that a text decides, for each term: `indices`, `values`, by ascending index."""
    length = sum(words.values())
    scale = K1 * (1 - B + B * length / USUAL_LENGTH)
    found: dict[int, float] = {}
    for term, count in words.items():
        index = index_of(term)
        found[index] = found.get(index, 0.0) + count * (K1 + 1) / (count + scale)
    return _sparse(found)


def asked(words: Iterable[str]) -> dict[str, list[int] | list[float]]:
    """Return a query: each of its terms counts as often as it is there once."""
    return _sparse({index_of(term): 1.0 for term in words})


@lru_cache(1 << 16)
def index_of(term: str) -> int:
    """Return the 32 bits that stand for a term; of a million terms, 116 share theirs with another."""
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def _sparse(found: Mapping[int, float]) -> dict[str, list[int] | list[float]]:
    indices = sorted(found)
    return {"indices": indices, "values": [found[index] for index in indices]}
