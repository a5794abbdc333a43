"""Explains the score by words of one chunk: which terms of the query it has, and what each is worth."""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from server.store.lexical import indexed
from server.store.words.matches import Matches


@dataclass(frozen=True, slots=True)
class ExplainedTerm:
    """A term of a query.

    chunks: how many chunks of the collection have it. weight: its inverse document frequency; a rare
    term weighs more. is_matched: whether this chunk has it.
    """

    term: str
    chunks: int
    weight: float
    is_matched: bool


@dataclass(frozen=True, slots=True)
class WordsExplanation:
    """Why a chunk has its score by words.

    bm25: 0 where the chunk was not found. attainable: a BM25 that no chunk exceeds for this query.
    share: bm25 / attainable. terms: all that were looked for, the rarest first.
    """

    bm25: float
    attainable: float
    share: float
    terms: tuple[ExplainedTerm, ...]


def explain(matches: Matches, label: int, words: str) -> WordsExplanation:
    """Explain the score of a chunk.

    words: what the full-text index read of the chunk, its title and its text: `schema.words_of`.
    """
    places = np.array([label], dtype=np.int64)
    bm25, share = float(matches.scores_of(places)[0]), float(matches.shares_of(places)[0])
    there = set(words.split())
    joined = f" {words} "
    terms = tuple(
        ExplainedTerm(term, chunks, weight, _has(there, joined, term))
        for term, chunks, weight in matches.terms
    )
    return WordsExplanation(bm25, matches.attainable, share, terms)


def explain_text(matches: Matches, label: int, text: str) -> WordsExplanation:
    """Explain the score of a chunk by its text with its title before it (`records.titled`)."""
    return explain(matches, label, indexed(text))


def _has(terms: Set[str], joined: str, term: str) -> bool:
    if " " in term:
        return f" {term} " in joined
    # A single character stands for every term that begins with it.
    return term in terms or (len(term) == 1 and f" {term}" in joined)
