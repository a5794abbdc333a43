"""Explains the score by words of one chunk: which terms of the query it has, and what each is worth."""

from dataclasses import dataclass

import numpy as np

from server.store.lexical import indexed
from server.store.words.matches import Matches
from server.store.words.units import is_single


@dataclass(frozen=True, slots=True)
class ExplainedTerm:
    """A term of a query.

    chunks: how many chunks of the collection have it, at most. weight: its inverse document frequency; a
    rare term weighs more. is_matched: whether this chunk has it.
    """

    term: str
    chunks: int
    weight: float
    is_matched: bool


@dataclass(frozen=True, slots=True)
class WordsExplanation:
    """Why a chunk has its score by words.

    bm25: 0 where the chunk was not found. attainable: a BM25 that no chunk exceeds for this query.
    share: bm25 / attainable. terms: all that were looked for, the rarest first. A chunk gets more than
    their weights for a phrase, an identifier, the very words of the query, and all of them together.
    """

    bm25: float
    attainable: float
    share: float
    terms: tuple[ExplainedTerm, ...]


def explain_text(matches: Matches, label: int, text: str) -> WordsExplanation:
    """Explain the score of a chunk; text: what its words were made of, see `ChunkWords.text_of`."""
    words = indexed(text)
    only = np.array([label], dtype=np.int64)
    (bm25,), (share,) = matches.scores_of(only).tolist(), matches.shares_of(only).tolist()
    there, row = set(words.split()), f" {words} "
    terms = tuple(
        ExplainedTerm(term, chunks, weight, term in there or _begins(term, row))
        for term, chunks, weight in matches.terms
    )
    return WordsExplanation(bm25, matches.attainable, share, terms)


def _begins(term: str, row: str) -> bool:
    """Whether a phrase is in a row of terms, or a character begins one of them."""
    if is_single(term.rpartition(" ")[2]):
        return f" {term}" in row
    return " " in term and f" {term} " in row
