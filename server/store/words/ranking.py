"""Statements that count a query's terms and rank texts by them, and the BM25 that they can reach.

The caller runs them on a table `words` (FTS5) and a table `terms`, created by `USING fts5vocab (words, row)`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.store.words.asked import Asked, Quote
from server.store.words.matches import Term
from server.store.words.units import is_single

# FTS5 scores every text that has any of the terms, 0.9 us a text and term: frequent terms are what
# costs. So the rarest, in REQUIRED texts together, decide which texts are scored, and the next, in
# COUNTED together, only add to the scores. Below: mean reciprocal rank of a law article among 63,762
# for 968 clauses out of them, and for three words out of such a clause; ms of FTS5, p50 and p95.
#     all terms alike   0.838  48 119   0.592  6.9  49
#      5,000       0    0.834   6  10   0.531  2.3   6
#      2,000  30,000    0.839   6  10   0.566  1.9   7
#      3,000  30,000    0.839   7  13   0.569  2.0   5
#      5,000  30,000    0.840  10  18   0.573  2.7   7
#     10,000  30,000    0.839  16  27   0.583  3.9  12
# Counting the texts before that takes 2 ms. The 2,000 questions of the load test: 4.2 and 16 ms in
# all. CMRC2018 has too few texts to lose anything.
REQUIRED, COUNTED = 3_000, 30_000
# A filter keeps few of those. Where it keeps so few that at most WIDE texts are expected to be scored, texts
# that have any term that counts are found, each with the score that it has without a filter. Of 120,000
# laws, 5 % kept: 195 and 1,250 texts found, 0.84 and 1.2 of the time without a filter (2026-11-30).
WIDE = 1_500
# Of FTS5's BM25.
K1, B = 1.2, 0.75

# A text with all of a query's terms gets this much more of what a text can have.
EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the texts that a query asks for are found and ranked.

    sql, parameters: rows (rowid, score) of the texts, the least score best; a further condition may
    follow. The score is FTS5's rank, less the boosts of what the text has. terms: what counts, the
    rarest first. attainable: a BM25 that no text exceeds, but nears; it is that of a short text that
    has every term many times.

    The rest is for filters, which keep few of those texts. wide: of `sql` too, for all texts that have a term
    that counts, with the same scores; None where that finds no others. n_wide: how many texts have one, at
    most. rest: of REST, for texts with terms that are too frequent to count, which are `rest_terms`; None where
    there are none.
    """

    sql: str
    parameters: Sequence[str | float]
    terms: tuple[Term, ...]
    attainable: float
    wide: Sequence[str | float] | None = None
    n_wide: int = 0
    rest: Sequence[str] | None = None
    rest_terms: tuple[Term, ...] = ()

    def within(self, share: float, n_texts: int) -> Sequence[str | float]:
        """Return the parameters of `sql` where a filter keeps this share of `n_texts` texts."""
        if self.wide is None or share * min(self.n_wide, n_texts) > WIDE:
            return self.parameters
        return self.wide


REST = "SELECT rowid, rank AS score FROM words WHERE words MATCH ?"


def frequencies(terms: Sequence[str]) -> tuple[str, list[str | int]]:
    """Return SQL and its parameters: rows of a term or phrase and how many texts have it.

    Terms of no text may be missing.
    """
    phrases = [term for term in terms if " " in term]
    exact = [term for term in terms if not is_single(term) and " " not in term]
    selects = [f"SELECT term, doc FROM terms WHERE term IN ({', '.join('?' * len(exact))})"]
    parameters: list[str | int] = [*exact]
    for term in filter(is_single, terms):
        selects.append("SELECT ?, coalesce(sum(doc), 0) FROM terms WHERE term >= ? AND term < ?")
        parameters = [*parameters, term, term, term[:-1] + chr(ord(term[-1]) + 1)]
    for phrase in phrases:
        # A phrase is counted by looking it up, so no further than its count matters.
        hits = "SELECT 1 FROM words WHERE words MATCH ? LIMIT ?"
        selects.append(f"SELECT ?, count(*) FROM ({hits})")
        parameters = [*parameters, phrase, _quoted(phrase), COUNTED + 1]
    return " UNION ALL ".join(selects), parameters


def ranked(asked: Asked, counts: Mapping[str, int], n_texts: int) -> Ranking | None:
    """Return how the texts that a query asks for are ranked; None where no text has what it needs.

    counts: the rows of `frequencies(asked.lookups)`. n_texts: in the index. Where phrases are required, the
    texts that have any of them are found.
    """
    rows = asked.rows
    if any(not counts.get(row) for row in rows):
        return None
    found = asked.chosen(counts)
    must, may = divided(found, 0 if rows else REQUIRED)
    others = {} if rows else {term: found[term] for term in found if term not in {*must, *may}}
    rest, _ = divided(others, COUNTED)
    if rows:
        must, may = rows, [term for term in (*must, *may) if term not in rows]
    if not must:
        return None
    weights = {term: _idf(counts.get(term, 0), n_texts) * (2 if may else 1) for term in must}
    weights |= {term: _idf(counts.get(term, 0), n_texts) for term in may}
    boosts = _boosts(asked, counts, n_texts, weights)
    for term, boost in boosts.items():
        weights[term] = weights.get(term, 0.0) + boost
    added = [(_quoted(term), boost) for term, boost in boosts.items()]
    wholes = {term for phrase in asked.phrases for term in phrase.wholes}
    all_terms = [term for term in (*must, *may) if term not in wholes]
    every = 0.0
    if len(all_terms) > 1:
        every = EVERY * sum(weights.values())
        added.append((" AND ".join(map(_quoted, all_terms)), every))
    having = " - ? * (rowid IN (SELECT rowid FROM words WHERE words MATCH ?))" * len(added)
    sql = f"SELECT rowid, rank{having} AS score FROM words WHERE words MATCH ?"
    parameters = [each for text, boost in added for each in ((K1 + 1) * boost, text)]
    known = [term for term in weights if counts.get(term)]
    attainable = (K1 + 1) * (sum(weights.values()) + every)
    expression = _without(
        asked, match_expression(must, may, any_of(asked.required) if rows else None)
    )
    wide = None
    if may and not rows:
        # subtle: each as often as in the other expression, and in that order: so scores are the same.
        wide = [*parameters, _without(asked, _any_of([*must, *must, *may]))]
    return Ranking(
        sql,
        [*parameters, expression],
        _terms(known, counts, n_texts),
        attainable,
        wide,
        sum(found[term] for term in (*must, *may)) if wide else 0,
        [_without(asked, _any_of(rest))] if rest else None,
        _terms(rest, counts, n_texts),
    )


def _terms(terms: Iterable[str], counts: Mapping[str, int], n_texts: int) -> tuple[Term, ...]:
    """Return terms with their weights, the rarest first."""
    known = sorted((counts[term], term) for term in terms)
    return tuple(Term(term, count, _idf(count, n_texts)) for count, term in known)


def _without(asked: Asked, expression: str) -> str:
    """Return an expression without the texts that a query excludes."""
    return f"({expression}) NOT ({any_of(asked.excluded)})" if asked.excluded else expression


def _boosts(
    asked: Asked, counts: Mapping[str, int], n_texts: int, weights: Mapping[str, float]
) -> dict[str, float]:
    """Return what to add to the weight of texts that have what a query asks for as it is written.

    An identifier of three parts or more weighs as much as all words beside it. One whose single words
    are looked for too adds the most that a text gets for those. So a long text with it comes before a
    short one with its words in another order. A word whose base form is looked for adds as much where it
    is asked for alone, and less beside others. What more texts have than are scored adds nothing.
    """
    found: dict[str, float] = {}
    beside = sum(weights.get(word, 0.0) for word in asked.words)
    for phrase in asked.phrases:
        within = 2 * sum(_idf(counts[word], n_texts) for word in phrase.words if counts.get(word))
        # Short ones are parts of prose: 1-2, IL-10, 3.5.
        strict = beside if len(phrase.pairs) > 1 else 0.0
        found[phrase.text] = strict if phrase.is_strict else within
    for word, form in asked.exact:
        found[word] = _idf(counts.get(form, 0), n_texts) / len(asked.words) ** 2
    return {
        term: boost for term, boost in found.items() if boost and 0 < counts.get(term, 0) <= COUNTED
    }


def match_expression(must: Sequence[str], may: Sequence[str], needed: str | None = None) -> str:
    """Return an FTS5 MATCH expression for texts with any of the terms of `must`.

    may: terms that only add to scores. needed: an expression of what a text must have instead.
    """
    needed = needed or _any_of(must)
    if not may:
        return needed
    # subtle: the required terms stand in both halves and so count twice. FTS5 can say that a term
    # may occur only by an OR beside others that do; and the rare terms decide the order anyway.
    return f"({needed}) AND ({_any_of([*must, *may])})"


def any_of(quotes: Iterable[Quote]) -> str:
    """Return an FTS5 MATCH expression for the texts that have any of what was quoted or excluded."""
    return " OR ".join(f"({one})" for one in dict.fromkeys(map(all_of, quotes)))


def all_of(quote: Quote) -> str:
    """Return an FTS5 MATCH expression for the texts that have one quote."""
    return " AND ".join(map(_quoted, quote.rows))


def divided(frequencies: Mapping[str, int], required: int) -> tuple[list[str], list[str]]:
    """Return the terms that decide which texts are scored, and those that only add to scores."""
    known = {term: count for term, count in frequencies.items() if count > 0}
    rarest = sorted(known, key=lambda term: known[term])
    counts = [known[term] for term in rarest]
    n_required = max(1, _n_within(counts, required)) if required else 0
    n_counted = _n_within(counts[n_required:], COUNTED)
    return rarest[:n_required], rarest[n_required : n_required + n_counted]


def _idf(n_with: int, n_texts: int) -> float:
    """Return FTS5's weight of a term."""
    n_with = min(n_with, n_texts)
    return max(math.log((n_texts - n_with + 0.5) / (n_with + 0.5)), 1e-6)


def _n_within(counts: Iterable[int], most: int) -> int:
    """Return how many of the first counts make at most `most` together."""
    n = 0
    for count in counts:
        most -= count
        if most < 0:
            break
        n += 1
    return n


def _any_of(terms: Sequence[str]) -> str:
    return " OR ".join(map(_quoted, terms))


def _quoted(term: str) -> str:
    """Return a term or phrase as FTS5 reads it; a single character at its end begins any term."""
    return f'"{term}"*' if is_single(term.rpartition(" ")[2]) else f'"{term}"'
