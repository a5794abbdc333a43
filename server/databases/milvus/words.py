"""Terms of a chunk as a text that the analyzer of Milvus takes apart into the same terms, for its BM25."""

import hashlib
from collections.abc import Iterable, Mapping

from server.errors import DatabaseRefused

# Letters and digits alone, which every analyzer leaves whole. Milvus itself counts terms by a hash of 32 bits, so
# longer codes would tell no more of them apart.
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
LENGTH = 6
# Bytes of a VARCHAR, and the terms that it holds with a space between them.
MOST_BYTES = 65_535
MOST_TERMS = MOST_BYTES // (LENGTH + 1)


def code(term: str) -> str:
    """Return what stands for a term."""
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest)
    letters = []
    for _ in range(LENGTH):
        number, letter = divmod(number, len(LETTERS))
        letters.append(LETTERS[letter])
    return "".join(letters)


def asked(terms: Iterable[str]) -> str:
    """Return what a query of these terms asks for."""
    return " ".join(map(code, terms))


def written(counts: Mapping[str, int]) -> str:
    """Return the text of a chunk's terms, each as often as it is there.

    Where that is too long, every count is halved until it fits, and none goes below 1: BM25 hardly tells apart how
    often a frequent term is there. Raises DatabaseRefused for more different terms than fit.
    """
    if len(counts) > MOST_TERMS:
        raise DatabaseRefused(
            f"a chunk has {len(counts)} different words, and Milvus takes at most {MOST_TERMS} of one text; let the"
            " collection split its documents into chunks"
        )
    left = dict(counts)
    while sum(left.values()) > MOST_TERMS:
        left = {term: max(1, count // 2) for term, count in left.items()}
    return " ".join(" ".join([code(term)] * count) for term, count in left.items())
