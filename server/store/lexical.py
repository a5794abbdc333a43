"""Search by words: terms of a text for the full-text index, terms of a query, and highlights of a hit.

How this works. Chinese has no spaces and this project no dictionary. So a text is a row of units, a
character of Han, kana or Hangul, or a word of other letters and digits, and its terms are every two
adjacent units: of 第3条规定, 第3 3条 条规 规定 (`units`). A word is a term by itself too (3), and so
is its base form: of running it is run (`bases`), which is what a query asks for. Where a word mixes
letters and digits, each run of either is a term (iso9001: iso 9001). A last character is a term (定),
so that any single character begins some term wherever it stands. `identifiers` adds the terms of
addresses, versions, dates and codes, whose order and adjacency count. The terms of units stand in
their order, so a quoted phrase is a phrase of FTS5 (`quoting`).

    indexed(text) -> an FTS5 table with TOKENIZER, which splits it at its spaces; ranking is its BM25
    ask(query) -> frequencies(its lookups), SQL for the caller to run -> ranked(what is asked, the rows)

Text and query are folded alike (`folding`). Only letters and digits remain, and none of them has a
meaning to FTS5: no query is a syntax error, and NUL and halves of characters vanish. Nothing here
touches a database.

All figures are of 2026-11-24, 2 cores of an AMD EPYC. nDCG@10 over CMRC2018 dev (848 passages, 3,218
questions) is 98.8; with pairs of characters only 98.6, with FTS5's trigrams 92.3, for most words of
Chinese have two characters. Indexing 63,762 law articles (26 MB) takes 94 ms a thousand, 54 of them
here, and 27 MB; trigrams 124 ms and 41 MB. What 2026-11-30 brought, before and after, nDCG@10: DRCD's
questions in simplified characters on its traditional texts 85.28 and 97.22; SciFact 74.05 and 76.21,
with base forms only 76.39, with words and base forms both asked for 74.37; clauses of laws 90.27 and
92.07, for texts with all words of a query come first. English texts take 0.28 KB more in the index,
1.05 for 1.5 KB of text.
"""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice, pairwise

from server.store.words import units
from server.store.words.asked import Asked, Phrase, Quote
from server.store.words.bases import base
from server.store.words.folding import fold, fold_with_places, joined, joined_places
from server.store.words.identifiers import SIGNS, Identifier, Place, identifiers, parts, regrouped
from server.store.words.quoting import APART, divide
from server.store.words.units import SPACED, STRETCH, WORD, is_single

# Beyond ASCII everything is part of a term, and in ASCII letters and digits are.
TOKENIZER = "ascii"

# What every identifier has one of.
SIGN = re.compile(rf"[\d{SIGNS}]")
# Question words, which are left out of a query: without them CMRC2018 has 98.8, with them 98.3, in
# either half of its questions. Other frequent words need no list: their documents are counted.
QUESTION = re.compile("为什么|什么|甚么|怎么|怎样|如何|哪些|哪个|哪里|哪儿|多少|为何|请问")
# Characters of a query that are read; terms of it that are looked up, and identifiers that are read; and
# identifiers that are looked up. Most queries have fewer than 20 terms; 64 cost 27 ms in the law
# articles, 128 cost 54.
MAX_QUERY, MAX_TERMS, MAX_PHRASES = 4_096, 64, 8
# Makes a query text alone (`quoting.divide`), and separates no words.
CUT = "\n\0"
# Terms of a query in which words with the very endings and accents of the query count more.
EXACT = 3

# Characters of a text in which `highlight` looks, at 0.8 us each: 0.4 ms for a chunk of 500. And places that
# it returns at most.
SHOWN, MAX_PLACES = 20_000, 1_000


def indexed(text: str) -> str:
    """Return what the full-text index reads of a text: its terms, separated by spaces."""
    folded = joined(fold(text))
    terms = [term for stretch in STRETCH.findall(folded) for term in units.row(stretch, whole=True)]
    # After all others, so that these follow one another as the units do.
    terms += units.further(WORD.findall(folded))
    terms += [place.term for place in _added(folded)]
    return " ".join(terms)


def terms(query: str) -> list[str]:
    """Return every term of a query, each once; see `ask`."""
    return ask(query).terms


def read_of(query: str) -> str:
    """Return what is read of a query: of a long one the beginning, as a text.

    The end of its phrases and exclusions may be missing, so it has none, like a query of several lines.
    """
    if len(query) <= MAX_QUERY or (len(query) == MAX_QUERY + len(CUT) and query.endswith(CUT)):
        return query
    return query[:MAX_QUERY] + CUT


def ask(query: str) -> Asked:
    """Return what a query asks for; at most MAX_TERMS words and MAX_PHRASES identifiers.

    A single character of unspaced writing stands for every term that begins with it.
    """
    divided = divide(fold(read_of(query)))
    folded = divided.rest
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
    words = _words(rest + folded[begin:], questions=not phrases and not divided.required)
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
            words[base(number.term)] = None
    return Asked(
        _spread(list(words)),
        tuple(phrases),
        _exact(whole, words) if len(words) <= EXACT else (),
        tuple(map(_quote, divided.required)),
        tuple(map(_quote, divided.excluded)),
    )


def _exact(joined: str, asked: Container[str]) -> tuple[tuple[str, str], ...]:
    """Return the words of a query whose base forms are asked for in their place."""
    forms = {word: base(word) for word in WORD.findall(joined)}
    return tuple((word, form) for word, form in forms.items() if form != word and form in asked)


def _quote(text: str) -> Quote:
    """Return the phrases of what is quoted: its terms in a row, and the C++ and C# in it."""
    whole = joined(text)
    spelled = [term for each in identifiers(whole) if each.is_spelled for term in each.terms]
    return Quote((" ".join(units.phrase(whole)), *spelled))


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
        if is_single(stretch):
            found[stretch] = None
        for piece in QUESTION.split(stretch):
            found.update(dict.fromkeys(units.asked(piece)))
    if questions and not found:
        for stretch in stretches:
            found.update(dict.fromkeys(units.asked(stretch)))
    for row in SPACED.findall(folded):
        # 劳 动 合 同 is a word whose characters stand apart.
        apart = row.split()
        found.update(
            dict.fromkeys(a + b for a, b in pairwise(apart) if is_single(a) or is_single(b))
        )
    return found


def _spread(terms: Sequence[str]) -> tuple[str, ...]:
    """Return at most MAX_TERMS, evenly spread: what matters in a long text may stand anywhere."""
    if len(terms) <= MAX_TERMS:
        return tuple(terms)
    return tuple(terms[place * len(terms) // MAX_TERMS] for place in range(MAX_TERMS))


def highlight(text: str, query: str | Asked) -> list[tuple[int, int]]:
    """Return where a query's terms stand in a text: [begin, end) of characters, in order, disjoint.

    query: its text, or what it asks for with the synonyms and without the stop words of a collection.
    Only the first SHOWN characters are read, and at most MAX_PLACES places returned. Single words of an
    identifier count only where nothing else of it stands in the text; those of a phrase, only in a row.
    """
    asked = _asked(read_of(query)) if isinstance(query, str) else query
    folded = fold_with_places(text[:SHOWN])
    words = [*asked.words, *asked.rows]
    wanted = {word for word in words if " " not in word}
    wanted |= {pair for phrase in asked.phrases for pair in phrase.pairs}
    added = list(_added(folded.text))
    found = {place.term for place in added}
    for phrase in asked.phrases:
        if found.isdisjoint(phrase.pairs):
            wanted.update(phrase.words)
    places = [(place.begin, place.end) for place in added if place.term in wanted]
    places += _in_rows(folded.text, [word.split() for word in words if " " in word])
    is_sorted = not places
    for stretch in STRETCH.finditer(folded.text):
        start = stretch.start()
        places += [(start + a, start + b) for a, b in units.places(stretch.group(), wanted)]
    if not is_sorted:
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


def _in_rows(folded: str, phrases: Iterable[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """Yield where the terms of phrases stand in a text, in a row."""
    possible = [phrase for phrase in phrases if phrase[0] in folded]
    if not possible:
        return
    row: list[tuple[str, int, int]] = []
    for stretch in STRETCH.finditer(folded):
        start = stretch.start()
        row += ((each, start + a, start + b) for each, a, b in units.row_places(stretch.group()))
    # The letters and digits of mixed words follow one another too.
    row.append(("", 0, 0))
    for word in WORD.finditer(folded):
        start = word.start()
        row += (
            (part.group(), start + part.start(), start + part.end()) for part in parts(word.group())
        )
    terms = [each for each, _, _ in row]
    for *first, last in possible:
        for at in range(len(row) - len(first)):
            if terms[at] == first[0] and terms[at : at + len(first)] == first:
                each, begin, end = row[at + len(first)]
                if each == last or (is_single(last) and each.startswith(last)):
                    yield from ((a, b) for _, a, b in row[at : at + len(first)])
                    # subtle: a character stands for every term that begins with it.
                    yield begin, end if each == last else begin + len(last)


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
    for place in regrouped(folded):
        yield place
        if (form := base(place.term)) != place.term:
            yield place._replace(term=form)
