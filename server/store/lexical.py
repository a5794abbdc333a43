"""Search by words: terms of a text for the full-text index, terms of a query, and highlights of a hit.

How this works. Chinese has no spaces and this project no dictionary. So a text is a row of units, a
character of Han, kana or Hangul, or a word of other letters and digits, and its terms are every two
adjacent units: of 第3条规定, 第3 3条 条规 规定. A word is a term by itself too (3). Where it mixes
letters and digits, each run of either is a term (iso9001: iso 9001). A last character is a term (定),
so that any single character begins some term wherever it stands.

    indexed(text) -> an FTS5 table with TOKENIZER, which splits it at its spaces; ranking is its BM25
    terms(query) -> frequencies(terms), SQL for the caller to run -> match_expression(its rows)

Text and query are folded alike: NFKC, so that full-width ＡＩ is AI, then case. Only letters and
digits remain, and none of them has a meaning to FTS5: no query is a syntax error, and NUL and halves
of characters vanish. Nothing here touches a database.

All figures are of 2026-11-24, 2 cores of an AMD EPYC. nDCG@10 over CMRC2018 dev (848 passages, 3,218
questions) is 98.8; with pairs of characters only 98.6, with FTS5's trigrams 92.3, for most words of
Chinese have two characters. Indexing 63,762 law articles (26 MB) takes 94 ms a thousand, 54 of them
here, and 27 MB; trigrams 124 ms and 41 MB.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

# Beyond ASCII everything is part of a term, and in ASCII letters and digits are.
TOKENIZER = "ascii"

# Written without spaces between words, or (Hangul) with endings grown onto them.
UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
STRETCH = re.compile(r"[^\W_]+")
# No language has longer words; one is split, because FTS5 indexes at most 32 KB of a term.
WORD = re.compile(f"[^\\W_{UNSPACED}]{{1,64}}")
UNIT = re.compile(f"[{UNSPACED}]|{WORD.pattern}")
PART = re.compile(r"\d+|[^\W\d_]+")
MOST_PARTS = 3  # rtx4090ti; what has more is a hexadecimal number, and its parts are noise

# Question words, which are left out of a query: without them CMRC2018 has 98.8, with them 98.3, in
# either half of its questions. Other frequent words need no list: their documents are counted.
QUESTION = re.compile(
    "为什么|为什麼|為什麼|什么|什麼|甚麼|怎么|怎麼|怎样|怎樣|如何|哪些|哪个|哪個|哪里|哪裡|哪儿|多少"
    "|为何|為何|请问|請問"
)
# Characters of a query that are read, and terms of it that are looked up. Most queries have fewer than
# 20; 64 cost 27 ms in the law articles, 128 cost 54.
MAX_QUERY, MAX_TERMS = 4_096, 64

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

# Characters of a text in which `highlight` looks, at 0.6 us each: 0.2 ms for a chunk of 500.
SHOWN = 100_000

# Characters that NFKC may join to the one before. The marks of Latin and kana stay with it; those of
# other scripts are mapped back one by one.
MAY_JOIN = re.compile("[\u0300-\u036f\u0600-\u11ff\u3099\u309a\U00011000-\U000119ff]")
CLUSTER = re.compile("(?s:.)[\u0300-\u036f\u3099\u309a]{0,30}")
# Text that is folded at once: NFKC takes time quadratic in marks that follow one another, 31 s for
# 200,000 of them.
PIECE = re.compile("(?s:.{1,64})[\u0300-\u036f\u3099\u309a]{0,30}")


def indexed(text: str) -> str:
    """Return what the full-text index reads of a text: its terms, separated by spaces."""
    return " ".join(
        term for stretch in STRETCH.findall(_folded(text)) for term in _terms(stretch, whole=True)
    )


def terms(query: str) -> list[str]:
    """Return the terms of a query, each once, in its order; at most MAX_TERMS.

    A single character of unspaced writing stands for every term that begins with it.
    """
    stretches = STRETCH.findall(_folded(query[:MAX_QUERY]))
    found: dict[str, None] = {}
    for stretch in stretches:
        if _is_single(stretch):
            found[stretch] = None
        for piece in QUESTION.split(stretch):
            found.update(dict.fromkeys(_terms(piece, whole=False)))
    if not found:
        # Nothing but question words: then these are looked for.
        for stretch in stretches:
            found.update(dict.fromkeys(_terms(stretch, whole=False)))
    if len(found) <= MAX_TERMS:
        return list(found)
    # Evenly spread: what matters in a long text may stand anywhere.
    every = list(found)
    return [every[place * len(every) // MAX_TERMS] for place in range(MAX_TERMS)]


def frequencies(terms: Sequence[str]) -> tuple[str, list[str]]:
    """Return SQL and its parameters: rows of a term and how many texts have it.

    It reads a table `terms`, created by `USING fts5vocab (..., row)`. Terms of no text may be missing.
    """
    exact = [term for term in terms if not _is_single(term)]
    selects = [f"SELECT term, doc FROM terms WHERE term IN ({', '.join('?' * len(exact))})"]
    parameters = exact
    for term in filter(_is_single, terms):
        selects.append("SELECT ?, coalesce(sum(doc), 0) FROM terms WHERE term >= ? AND term < ?")
        parameters = [*parameters, term, term, chr(ord(term) + 1)]
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


def attainable(frequencies: Mapping[str, int], n_texts: int, required: int = REQUIRED) -> float:
    """Return a BM25 that no text reaches under `match_expression` with the same arguments, but nears.

    n_texts: in the index. It is the score of a short text that has every term many times.
    """
    must, may = _divided(frequencies, required)
    counted = [*must, *must, *may] if may else must
    return (K1 + 1) * sum(_idf(min(frequencies[term], n_texts), n_texts) for term in counted)


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

    Only the first SHOWN characters are read.
    """
    wanted = frozenset(terms(query))
    folded, begins, ends = _mapped(text[:SHOWN])
    spans: list[tuple[int, int]] = []
    for stretch in STRETCH.finditer(folded):
        for begin, end in _places(stretch.group(), wanted):
            first, after = begins[stretch.start() + begin], ends[stretch.start() + end - 1]
            if spans and first <= spans[-1][1]:
                first, after = spans[-1][0], max(spans.pop()[1], after)
            spans.append((first, after))
    return spans


def _folded(text: str) -> str:
    return "".join(map(_fold, PIECE.findall(text)))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


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
        found += [part.group() for part in _parts(word)]
    if whole and _is_single(units[-1]):
        found.append(units[-1])
    return found


def _places(stretch: str, wanted: frozenset[str]) -> Iterator[tuple[int, int]]:
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
            for part in _parts(unit):
                if part.group() in wanted:
                    yield begin + part.start(), begin + part.end()
        begin = end


def _parts(word: str) -> list[re.Match[str]]:
    """Return the runs of letters and of digits in a word that mixes them; none of a hexadecimal one."""
    parts = list(PART.finditer(word))
    return parts if 2 <= len(parts) <= MOST_PARTS else []


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


def _mapped(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """Return a text folded, and where in `text` the source of each character begins and ends."""
    folded: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    for part in PIECE.finditer(text):
        piece = _fold(part.group())
        # Folding removes a character only by joining it to another.
        if len(piece) == len(part.group()) and not MAY_JOIN.search(part.group()):
            folded.append(piece)
            begins += range(part.start(), part.end())
            ends += range(part.start() + 1, part.end() + 1)
            continue
        for cluster in CLUSTER.finditer(text, part.start(), part.end()):
            piece = _fold(cluster.group())
            folded.append(piece)
            begins += [cluster.start()] * len(piece)
            ends += [cluster.end()] * len(piece)
    return "".join(folded), begins, ends
