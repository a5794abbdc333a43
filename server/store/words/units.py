"""The units of a folded text, and the terms that they make.

A unit is a word of letters and digits, or a character of a script that puts no blanks between words: Han,
kana, Hangul, Thai, Lao, Khmer, Burmese. A character has its marks with it. A term is a word, or two
adjacent units of which one is a character.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence, Set
from itertools import pairwise, zip_longest

from server.store.words.bases import base
from server.store.words.folding import CHINESE, UNSPACED
from server.store.words.identifiers import parts


def _characters(first: int, last: int, *categories: str) -> str:
    every = map(chr, range(first, last + 1))
    return "".join(one for one in every if unicodedata.category(one) in categories)


# Vowels and tones that are written as marks, from Hebrew to Mongolian. They are part of a word, but Python
# counts them as no letters.
MARKS = re.escape(_characters(0x0591, 0x17FF, "Mn", "Mc"))
# Thai and Lao, Burmese, Khmer.
SOUTHEAST = "".join(
    _characters(*block, "Lo", "Lm")
    for block in ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
)
CHARACTER = f"{UNSPACED}{SOUTHEAST}"

STRETCH = re.compile(rf"[^\W_]+(?:[{MARKS}]+[^\W_]*)*")
LETTER = rf"[^\W_{CHARACTER}]"
# No language has longer words; one is split, because FTS5 indexes at most 32 KB of a term.
WORD = re.compile(rf"{LETTER}{{1,64}}(?:[{MARKS}]{{1,8}}{LETTER}{{0,64}}){{0,32}}")
UNIT = re.compile(rf"[{CHARACTER}][{MARKS}]*|{WORD.pattern}")
SINGLE = re.compile(rf"[{CHARACTER}][{MARKS}]*")
MARKED = re.compile(f"[{MARKS}]")
# Single characters, and words beside them, with blanks between.
# subtle: a stretch has only characters that this Python knows as letters, and so has this; the blocks
# of CHINESE have room for others.
APART = rf"(?:(?=\w)[{CHINESE}]|{LETTER}{{1,64}})"
SPACED = re.compile(rf"(?<![^\W_])(?:{APART}\s+)+{APART}(?![^\W_])")


def is_single(term: str) -> bool:
    """Whether a term is one character with its marks, which stands for every term that begins with it."""
    return len(term) < 8 and SINGLE.fullmatch(term) is not None


def first_single(term: str) -> str | None:
    """Return the character with its marks that a longer term begins with; None for a word, and for one alone."""
    found = SINGLE.match(term)
    return found.group() if found is not None and found.end() < len(term) else None


def row(stretch: str, *, whole: bool) -> list[str]:
    """Return the terms of letters and digits without a gap, as they follow one another.

    A part of a text has a part of the text's terms, in the same order: so a phrase is found.
    whole: with the last unit, if it is no word.
    """
    if not (words := set(WORD.findall(stretch))):
        units = _units(stretch)
        found = [first + second for first, second in pairwise(units)]
        return [*found, units[-1]] if whole or not found else found
    units = UNIT.findall(stretch)
    found = []
    for place, unit in enumerate(units):
        if unit in words:
            found.append(unit)
        if place + 1 < len(units):
            found.append(unit + units[place + 1])
        elif whole and is_single(unit):
            found.append(unit)
    return found


def row_places(stretch: str) -> Iterator[tuple[str, int, int]]:
    """Yield the terms of `row(stretch, whole=True)`, each with its characters [begin, end) of the stretch."""
    words = set(WORD.findall(stretch))
    found = [(unit.group(), *unit.span()) for unit in UNIT.finditer(stretch)]
    for (unit, begin, end), following in zip_longest(found, found[1:]):
        if unit in words:
            yield unit, begin, end
        if following is not None:
            yield unit + following[0], begin, following[2]
        elif unit not in words:
            yield unit, begin, end


def phrase(joined: str) -> list[str]:
    """Return the terms of a folded and joined text in a row, as the index has them in a longer text too.

    joined: with a letter or digit.
    """
    *stretches, last = STRETCH.findall(joined)
    found = [term for stretch in stretches for term in row(stretch, whole=True)]
    return [*found, *row(last, whole=False)]


def asked(stretch: str) -> list[str]:
    """Return the terms that a query with these letters and digits asks for: of a word its base form."""
    words = WORD.findall(stretch)
    found = [first + second for first, second in pairwise(_units(stretch, words))]
    found += map(base, words)
    return [*found, *_parts(words)]


def further(words: Sequence[str]) -> list[str]:
    """Return the further terms of words: their base forms, and the letters and digits of mixed ones."""
    return [*(form for word in words if (form := base(word)) != word), *_parts(words)]


def places(stretch: str, wanted: Set[str]) -> Iterator[tuple[int, int]]:
    """Yield where terms stand in a stretch, ordered by their beginnings."""
    if wanted.isdisjoint(asked(stretch)) and wanted.isdisjoint(_units(stretch)):
        return  # as in most stretches; five times as fast
    begin = 0
    units = UNIT.findall(stretch)
    for unit, following in zip(units, [*units[1:], ""], strict=True):
        begin = stretch.index(unit, begin)
        end = begin + len(unit)
        if following and unit + following in wanted:
            yield begin, end + len(following)
        elif unit in wanted or (not is_single(unit) and base(unit) in wanted):
            yield begin, end
        elif len(unit) > 1:
            for part in parts(unit):
                if part.group() in wanted:
                    yield begin + part.start(), begin + part.end()
        begin = end


def _parts(words: Sequence[str]) -> list[str]:
    return [part.group() for word in words for part in parts(word)]


def _units(stretch: str, words: Sequence[str] = ()) -> Sequence[str]:
    # Of most Chinese text each character is a unit.
    return UNIT.findall(stretch) if words or not _plain(stretch) else stretch


def _plain(stretch: str) -> bool:
    return WORD.search(stretch) is None and MARKED.search(stretch) is None
