"""Search by words: terms of a text for the full-text index, terms of a query, and highlights of a hit.

How this works. Chinese has no spaces and this project no dictionary. So a text is a row of units, a
character of Han, kana or Hangul, or a word of other letters and digits, and its terms are every two
adjacent units: of 第3条规定, 第3 3条 条规 规定. A word is a term by itself too (3). Where it mixes
letters and digits, each run of either is a term (iso9001: iso 9001). A last character is a term (定),
so that any single character begins some term wherever it stands. `identifiers` adds the terms of
addresses, versions, dates and codes, whose order and adjacency count.

    indexed(text) -> an FTS5 table with TOKENIZER, which splits it at its spaces; ranking is its BM25
    ask(query) -> frequencies(its lookups), SQL for the caller to run -> match_expression(chosen rows)

Text and query are folded alike (`folding`). Only letters and digits remain, and none of them has a
meaning to FTS5: no query is a syntax error, and NUL and halves of characters vanish. Nothing here
touches a database.

All figures are of 2026-11-24, 2 cores of an AMD EPYC. nDCG@10 over CMRC2018 dev (848 passages, 3,218
questions) is 98.8; with pairs of characters only 98.6, with FTS5's trigrams 92.3, for most words of
Chinese have two characters. Indexing 63,762 law articles (26 MB) takes 94 ms a thousand, 54 of them
here, and 27 MB; trigrams 124 ms and 41 MB.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, pairwise

from server.store.words.folding import (
    CHINESE,
    UNSPACED,
    fold,
    fold_with_places,
    joined,
    joined_places,
)
from server.store.words.identifiers import (
    SIGNS,
    Identifier,
    Place,
    identifiers,
    parts,
    regrouped,
)
from server.store.words.matches import Term

# Beyond ASCII everything is part of a term, and in ASCII letters and digits are.
TOKENIZER = "ascii"

STRETCH = re.compile(r"[^\W_]+")
# No language has longer words; one is split, because FTS5 indexes at most 32 KB of a term.
WORD = re.compile(f"[^\\W_{UNSPACED}]{{1,64}}")
UNIT = re.compile(f"[{UNSPACED}]|{WORD.pattern}")
# Single characters, and words beside them, with blanks between.
# subtle: a stretch has only characters that this Python knows as letters, and so has this; the blocks
# of CHINESE have room for others.
SINGLE = rf"(?:(?=\w)[{CHINESE}]|{WORD.pattern})"
SPACED = re.compile(rf"(?<![^\W_])(?:{SINGLE}\s+)+{SINGLE}(?![^\W_])")
# What every identifier has one of.
SIGN = re.compile(rf"[\d{SIGNS}]")
# Takes the place of an identifier in a query: neither a word nor a blank.
APART = "\0"
# Question words, which are left out of a query: without them CMRC2018 has 98.8, with them 98.3, in
# either half of its questions. Other frequent words need no list: their documents are counted.
QUESTION = re.compile(
    "为什么|为什麼|為什麼|什么|什麼|甚麼|怎么|怎麼|怎样|怎樣|如何|哪些|哪个|哪個|哪里|哪裡|哪儿|多少"
    "|为何|為何|请问|請問"
)
# Characters of a query that are read; terms of it that are looked up, and identifiers that are read; and
# identifiers that are looked up. Most queries have fewer than 20 terms; 64 cost 27 ms in the law
# articles, 128 cost 54.
MAX_QUERY, MAX_TERMS, MAX_PHRASES = 4_096, 64, 8

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

K1 = 1.2  # of FTS5's BM25

# Characters of a text in which `highlight` looks, at 0.8 us each: 0.4 ms for a chunk of 500. And places that
# it returns at most.
SHOWN, MAX_PLACES = 20_000, 1_000


@dataclass(frozen=True, slots=True)
class Phrase:
    """An identifier in a query.

    pairs: terms that a text has in a row. wholes: terms of texts in which nothing is added to it.
    words: its single words. is_strict: whether they are looked for only where no text has the phrase.
    """

    pairs: tuple[str, ...]
    wholes: tuple[str, ...]
    words: tuple[str, ...]
    is_strict: bool

    @property
    def text(self) -> str:
        """The phrase as FTS5 reads it: the terms, with blanks between."""
        return " ".join(self.pairs)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a query asks for: its words, and its identifiers."""

    words: tuple[str, ...]
    phrases: tuple[Phrase, ...]

    @property
    def terms(self) -> list[str]:
        """Every term, each once."""
        of_phrases = [(*each.pairs, *each.wholes, *each.words) for each in self.phrases]
        return list(dict.fromkeys(chain(self.words, *of_phrases)))

    @property
    def lookups(self) -> list[str]:
        """What `frequencies` must count: every term, and every phrase of several terms."""
        return list(dict.fromkeys([*self.terms, *(each.text for each in self.phrases)]))

    def chosen(self, frequencies: Mapping[str, int]) -> dict[str, int]:
        """Return what is looked for, and how many texts have each.

        Where a text has an identifier with digits, its single numbers and letters are not looked for:
        they would find texts that have them in any order. Words of one without digits always are.
        """
        found: dict[str, None] = dict.fromkeys(self.words)
        for phrase in self.phrases:
            if frequencies.get(phrase.text, 0) > 0:
                found.update(dict.fromkeys((phrase.text, *phrase.wholes)))
            else:
                found.update(dict.fromkeys(phrase.pairs))
            if not phrase.is_strict or phrase.text not in found:
                found.update(dict.fromkeys(phrase.words))
        return {term: frequencies.get(term, 0) for term in found}

    def boosts(self, frequencies: Mapping[str, int], n_texts: int) -> dict[str, float]:
        """Return what to add to the BM25 of texts with a phrase whose single words are looked for too.

        It is the most that a text gets for those words. So a long text with the phrase comes before a
        short one with its words in another order. A phrase that more texts have than are scored adds
        nothing. n_texts: in the index.
        """
        return {
            phrase.text: _most([frequencies.get(word, 0) for word in phrase.words] * 2, n_texts)
            for phrase in self.phrases
            if not phrase.is_strict and 0 < frequencies.get(phrase.text, 0) <= COUNTED
        }


def indexed(text: str) -> str:
    """Return what the full-text index reads of a text: its terms, separated by spaces."""
    folded = joined(fold(text))
    terms = [term for stretch in STRETCH.findall(folded) for term in _terms(stretch, whole=True)]
    terms += [place.term for place in _added(folded)]
    return " ".join(terms)


def terms(query: str) -> list[str]:
    """Return every term of a query, each once; see `ask`."""
    return ask(query).terms


def ask(query: str) -> Asked:
    """Return what a query asks for; at most MAX_TERMS words and MAX_PHRASES identifiers.

    A single character of unspaced writing stands for every term that begins with it.
    """
    folded = fold(query[:MAX_QUERY])
    whole, places = joined(folded), joined_places(folded)
    every = list(islice(identifiers(whole), MAX_TERMS))
    found = list(islice((each for each in every if each.is_strict), MAX_PHRASES))
    phrases = []
    rest, begin = "", 0
    for identifier in found:
        first, last = places[identifier.begin], places[identifier.end - 1]
        phrases.append(_phrase(identifier, folded[first : last + 1]))
        rest += folded[begin:first] + APART
        begin = last + 1
    words = _words(rest + folded[begin:], questions=not phrases)
    loose = (_phrase(each, whole[each.begin : each.end]) for each in every if not each.is_strict)
    phrases += islice(loose, MAX_PHRASES - len(phrases))
    for number in regrouped(whole):
        # 138-0013-8000 is a number, but 1234-2015 is none in GB 1234-2015.
        if not any(
            each.begin <= number.begin
            and number.end <= each.end
            and (number.begin, number.end) != (each.begin, each.end)
            for each in found
        ):
            words[number.term] = None
    return Asked(_spread(list(words)), tuple(phrases))


def _phrase(identifier: Identifier, text: str) -> Phrase:
    return Phrase(
        tuple(place.term for place in identifier.pairs),
        tuple(place.term for place in identifier.wholes),
        _spread(list(_words(text, questions=True))),
        identifier.is_strict,
    )


def _words(folded: str, *, questions: bool) -> dict[str, None]:
    """Return the terms of a folded query without its identifiers, in order, as a set.

    questions: whether question words are looked for where there is nothing else.
    """
    stretches = STRETCH.findall(folded)
    found: dict[str, None] = {}
    for stretch in stretches:
        if _is_single(stretch):
            found[stretch] = None
        for piece in QUESTION.split(stretch):
            found.update(dict.fromkeys(_terms(piece, whole=False)))
    if questions and not found:
        for stretch in stretches:
            found.update(dict.fromkeys(_terms(stretch, whole=False)))
    for row in SPACED.findall(folded):
        # 劳 动 合 同 is a word whose characters stand apart.
        units = row.split()
        found.update(
            dict.fromkeys(a + b for a, b in pairwise(units) if _is_single(a) or _is_single(b))
        )
    return found


def _spread(terms: Sequence[str]) -> tuple[str, ...]:
    """Return at most MAX_TERMS, evenly spread: what matters in a long text may stand anywhere."""
    if len(terms) <= MAX_TERMS:
        return tuple(terms)
    return tuple(terms[place * len(terms) // MAX_TERMS] for place in range(MAX_TERMS))


def frequencies(terms: Sequence[str]) -> tuple[str, list[str | int]]:
    """Return SQL and its parameters: rows of a term or phrase and how many texts have it.

    It reads the table `words` and a table `terms`, created by `USING fts5vocab (words, row)`. Terms of
    no text may be missing.
    """
    phrases = [term for term in terms if " " in term]
    exact = [term for term in terms if not _is_single(term) and " " not in term]
    selects = [f"SELECT term, doc FROM terms WHERE term IN ({', '.join('?' * len(exact))})"]
    parameters: list[str | int] = [*exact]
    for term in filter(_is_single, terms):
        selects.append("SELECT ?, coalesce(sum(doc), 0) FROM terms WHERE term >= ? AND term < ?")
        parameters = [*parameters, term, term, chr(ord(term) + 1)]
    for phrase in phrases:
        # A phrase is counted by looking it up, so no further than its count matters.
        hits = "SELECT 1 FROM words WHERE words MATCH ? LIMIT ?"
        selects.append(f"SELECT ?, count(*) FROM ({hits})")
        parameters = [*parameters, phrase, f'"{phrase}"', COUNTED + 1]
    return " UNION ALL ".join(selects), parameters


def match_expression(frequencies: Mapping[str, int], required: int = REQUIRED) -> str | None:
    """Return an FTS5 MATCH expression for terms and how many texts have each; None if none has any.

    required: see REQUIRED; a larger number finds more where a filter keeps few texts, and is slower.
    """
    must, may = _divided(frequencies, required)
    if not may:
        return _any_of(must) or None
    # subtle: the required terms stand in both halves and so count twice. FTS5 can say that a term
    # may occur only by an OR beside others that do; and the rare terms decide the order anyway.
    return f"({_any_of(must)}) AND ({_any_of([*must, *may])})"


def ranked(expression: str, boosts: Mapping[str, float]) -> tuple[str, list[str | float]]:
    """Return SQL and its parameters: rows (rowid, score) of the texts that match, the least score best.

    It reads the table `words`, and a further condition may follow it. The score is FTS5's rank, less
    the boosts of the phrases that the text has.
    """
    score = "rank" + " - ? * (rowid IN (SELECT rowid FROM words WHERE words MATCH ?))" * len(boosts)
    parameters: list[str | float] = []
    for phrase, boost in boosts.items():
        parameters += [boost, f'"{phrase}"']
    sql = f"SELECT rowid, {score} AS score FROM words WHERE words MATCH ?"
    return sql, [*parameters, expression]


def attainable(frequencies: Mapping[str, int], n_texts: int, required: int = REQUIRED) -> float:
    """Return a BM25 that no text reaches under `match_expression` with the same arguments, but nears.

    n_texts: in the index. It is the score of a short text that has every term many times.
    """
    must, may = _divided(frequencies, required)
    counted = [*must, *must, *may] if may else must
    return _most([frequencies[term] for term in counted], n_texts)


def weighed(frequencies: Mapping[str, int], n_texts: int) -> tuple[Term, ...]:
    """Return the terms that some text has, the rarest first, each with its weight."""
    known = sorted((count, term) for term, count in frequencies.items() if count > 0)
    return tuple(Term(term, count, _idf(min(count, n_texts), n_texts)) for count, term in known)


def _most(counts: Iterable[int], n_texts: int) -> float:
    """Return a BM25 that no text reaches for terms that so many texts have; none of a term without texts."""
    return (K1 + 1) * sum(_idf(min(count, n_texts), n_texts) for count in counts if count)


def _divided(frequencies: Mapping[str, int], required: int) -> tuple[list[str], list[str]]:
    """Return the terms that decide which texts are scored, and those that only add to scores."""
    known = {term: count for term, count in frequencies.items() if count > 0}
    rarest = sorted(known, key=lambda term: known[term])
    counts = [known[term] for term in rarest]
    n_required = max(1, _n_within(counts, required))
    n_counted = _n_within(counts[n_required:], COUNTED)
    return rarest[:n_required], rarest[n_required : n_required + n_counted]


def _idf(n_with: int, n_texts: int) -> float:
    """Return FTS5's weight of a term."""
    return max(math.log((n_texts - n_with + 0.5) / (n_with + 0.5)), 1e-6)


def highlight(text: str, query: str) -> list[tuple[int, int]]:
    """Return where a query's terms stand in a text: [begin, end) of characters, in order, disjoint.

    Only the first SHOWN characters are read, and at most MAX_PLACES places returned. Single words of an
    identifier count only where nothing else of it stands in the text.
    """
    asked = _asked(query[:MAX_QUERY])
    folded = fold_with_places(text[:SHOWN])
    wanted = {*asked.words, *(pair for phrase in asked.phrases for pair in phrase.pairs)}
    added = [place for place in _added(folded.text) if place.term in wanted]
    found = {place.term for place in added}
    for phrase in asked.phrases:
        if found.isdisjoint(phrase.pairs):
            wanted.update(phrase.words)
    places = [(place.begin, place.end) for place in added]
    for stretch in STRETCH.finditer(folded.text):
        start = stretch.start()
        places += [(start + a, start + b) for a, b in _places(stretch.group(), wanted)]
    if added:
        places.sort()
    spans: list[tuple[int, int]] = []
    for begin, end in places:
        first, after = folded.begins[begin], folded.ends[end - 1]
        if spans and first <= spans[-1][1]:
            first, after = spans[-1][0], max(spans.pop()[1], after)
        elif len(spans) == MAX_PLACES:
            break
        spans.append((first, after))
    return spans


@lru_cache(maxsize=64)
def _asked(query: str) -> Asked:
    """Return what a query asks for; it is asked of the texts of all its hits."""
    return ask(query)


def _added(folded: str) -> Iterator[Place]:
    """Yield the terms of a folded text besides those of its stretches."""
    if not SIGN.search(folded) and "\n" not in folded:
        return  # as most Chinese texts; five times as fast
    for identifier in identifiers(folded):
        yield from identifier.pairs
        yield from identifier.wholes
        yield from identifier.others
    yield from regrouped(folded)


def _is_single(term: str) -> bool:
    return len(term) == 1 and WORD.match(term) is None


def _terms(stretch: str, *, whole: bool) -> list[str]:
    """Return the terms of letters and digits without a gap.

    whole: with the last character, if it is no word.
    """
    words = WORD.findall(stretch)
    units = UNIT.findall(stretch) if words else stretch  # which is the same, and most of Chinese
    found = [first + second for first, second in pairwise(units)]
    found += words
    for word in words:
        found += [part.group() for part in parts(word)]
    if whole and _is_single(units[-1]):
        found.append(units[-1])
    return found


def _places(stretch: str, wanted: Set[str]) -> Iterator[tuple[int, int]]:
    """Yield where terms stand in a stretch, ordered by their beginnings."""
    if wanted.isdisjoint(_terms(stretch, whole=False)) and wanted.isdisjoint(stretch):
        return  # as in most stretches; five times as fast
    begin = 0
    units = UNIT.findall(stretch)
    for unit, following in zip(units, [*units[1:], ""], strict=True):
        end = begin + len(unit)
        if following and unit + following in wanted:
            yield begin, end + len(following)
        elif unit in wanted:
            yield begin, end
        elif len(unit) > 1:
            for part in parts(unit):
                if part.group() in wanted:
                    yield begin + part.start(), begin + part.end()
        begin = end


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
    return " OR ".join(f'"{term}"*' if _is_single(term) else f'"{term}"' for term in terms)
