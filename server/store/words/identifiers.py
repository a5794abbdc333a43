"""Finds identifiers in a folded text: addresses, names, versions, dates, codes, and numbers in groups.

How this works. An identifier is a chain of atoms, runs of letters or of digits, with separators
between them: 192.168.10.1 has four, GB/T 7714-2015 has gb, t, 7714 and 2015, with the blank or without.
Every two neighbours are a term of the full-text index (192·168 168·10 10·1), and so is the whole
(·192·168·10·1). The pairs in a row are a phrase, which only a text with the same atoms in the same
order has. Separators do not count: AB-1234/5 is AB/1234-5.

An identifier without digits may be prose: db-prod-main is a host, and state-of-the-art is an adjective.
Nothing tells them apart, so a query for either also looks for its single words. Two words that only a
dash or a slash joins (well-known, and/or) are no identifier. As phrases they cost the claims of SciFact
1.2 of 74.2 in nDCG@10; with longer ones only, the claims have 74.1 (2026-11-29, train, lexical).

A number is also a term without what groups its digits: 45,000 is 45000, and 138 0013 8000 is
13800138000. So is a word that a hyphen divides at the end of a line. 45,000 with its comma and -5 with
its sign are terms too, so that a text that has them comes first. All these terms are added to those of
`lexical`, and replace none. Nothing here touches a database.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from server.store.words.folding import CHINESE, UNSPACED

# Between the atoms of a term. It is no letter and no digit, so no word is such a term.
JOINT = "\u00b7"
# Stand for the comma in 45,000 and the sign of -5. They are not ASCII, so the index keeps them.
GROUPER, MINUS = "\u066c", "\u2212"
MOST_ATOMS = 32  # a SHA-256 in pairs of digits
MOST_PARTS = 3  # rtx4090ti; what has more is a hexadecimal number, and its parts are noise

LETTER = rf"[^\W\d_{UNSPACED}]"
ALNUM = rf"[^\W_{UNSPACED}]"
DASHES = "\u2010-\u2015\u2212\\-"
SIGNS = rf"./:_#@+&~*\u00d7\u00b7\u2022{DASHES}"
GROUPERS = "[,'\u2019]"
CLOSING = r"[)\]\u3015\u3011]"

GROUPED = rf"(?<!\d{GROUPERS})\d{{1,3}}(?:{GROUPERS}\d{{3}})+(?!{GROUPERS}?\d)"
WORD = rf"(?:{GROUPED}|{ALNUM}{{1,64}})"
SEPARATOR = rf"(?:[{SIGNS}]|(?<=\d)\s[{DASHES}/]\s(?=\d))"
# Short letters before a number belong to it, also across a blank: GB/T 7714. Not the com in a@b.com 7714.
LETTERS = rf"(?:(?<![.@]){LETTER}{{1,4}}\s{{1,2}}(?=\d))?"
CHAIN = rf"(?<!{ALNUM}){LETTERS}{WORD}(?:{SEPARATOR}{LETTERS}{WORD}){{1,{MOST_ATOMS - 1}}}"
# (2020)京01民终1234号, and 国发〔2020〕15号 with the two characters that say whose it is.
OPENING = r"[(\[\u3014\u3010]"
CASE = (
    rf"{OPENING}\d{{4}}{CLOSING}\s?(?:[{CHINESE}]{{1,8}}\d{{1,6}})?"
    rf"[{CHINESE}]{{1,8}}\d{{1,8}}(?:-\d{{1,6}})?号"
    rf"|[{CHINESE}]{{0,2}}{OPENING}\d{{4}}{CLOSING}\s?\d{{1,8}}号"
)
SHARP = rf"(?<!{ALNUM})[a-z](?:\+\+|#)(?![+#])"
IDENTIFIER = re.compile(f"{CASE}|{SHARP}|{CHAIN}|(?<!{ALNUM}){GROUPED}")
# Each identifier has one of these signs in it. Looking for them first is ten times as fast.
HINT = re.compile(
    rf"[{SIGNS}](?:(?<={ALNUM}.)(?={ALNUM})|(?<=\d\s.)(?=\s\d))"
    rf"|{GROUPERS}(?<=\d.)(?=\d)|{CLOSING}(?<=\d.)|[+#](?<=[a-z+].)"
)
# Prose: well-known, and/or, e.g, u.s.
PROSE = re.compile(rf"{LETTER}+[/&+~{DASHES}]{LETTER}+|{LETTER}(?:\.{LETTER})+")
BEGINNING = re.compile(rf"(?<!{ALNUM}){ALNUM}|(?:[{CHINESE}]{{1,2}})?(?={OPENING}\d)|{OPENING}")
BEFORE = 72  # characters of an identifier before its first sign, at most
PIECE = re.compile(rf"{GROUPED}|{ALNUM}{{1,64}}|[{CHINESE}]|\+\+|#")
PART = re.compile(r"\d+|[^\W\d_]+")
# What stands for the signs in C++ and C#: the index takes every other ASCII sign for a blank.
SPELLED = {"++": "\u207a\u207a", "#": "\u266f"}

# Digits of a telephone or a card, in groups.
# subtle: beginning with a digit is faster than beginning with what may not stand before it.
DIGITS = re.compile(rf"\d(?<!{ALNUM}\d)\d{{2,7}}(?:[ -]\d{{3,8}}){{1,4}}(?!{ALNUM})")
FEWEST_DIGITS, MOST_DIGITS = 7, 19
# A minus is a sign where no word and no other number stands before it.
NEGATIVE = re.compile(
    rf"[-{MINUS}](?<![^\s(\[<>=:,;{CHINESE}].)(\d{{1,19}})(?!{ALNUM}|[{DASHES}]\d)"
)
LINE_END = r"[^\S\n]{0,4}\n\s{0,16}"
HYPHEN = re.compile(rf"[-\u2010](?={LINE_END}{LETTER})")
DIVIDED = re.compile(rf"(?<!{ALNUM})({LETTER}{{2,64}})[-\u2010]{LINE_END}({LETTER}{{2,64}})")


class Place(NamedTuple):
    """A term, and the characters [begin, end) of a folded text that it stands for."""

    term: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier at [begin, end) of a folded text.

    pairs: its neighbours, in order; of a lone number the number itself. wholes: all of it, and all of
    it as its numbers are grouped; a lone number has only the second. others: where blanks divide it,
    its halves; and each of its numbers that has groups. is_strict: whether it cannot be prose, because
    it has digits or is C++ or C#. is_spelled: it ends in such a sign.
    """

    begin: int
    end: int
    pairs: Sequence[Place]
    wholes: Sequence[Place]
    others: Sequence[Place]
    is_strict: bool
    is_spelled: bool = False

    @property
    def terms(self) -> list[str]:
        """The terms of its neighbours, in order."""
        return [place.term for place in self.pairs]


def identifiers(folded: str) -> Iterator[Identifier]:
    """Yield the identifiers of a folded text, in order."""
    end = 0
    for hint in HINT.finditer(folded):
        sign = hint.start()
        if sign < end:
            continue
        start = max(end, _start(folded, sign))
        end = sign + 1  # nothing that begins before has this sign: do not try it for the next one
        for beginning in BEGINNING.finditer(folded, start, end):
            match = IDENTIFIER.match(folded, beginning.start())
            if match and match.end() > sign:
                end = match.end()
                if not PROSE.fullmatch(match.group()):
                    yield _identifier(folded, match)
                break


def _identifier(folded: str, match: re.Match[str]) -> Identifier:
    atoms = list(_atoms(folded, match))
    pairs = [
        Place(f"{first.term}{JOINT}{second.term}", first.begin, second.end)
        for first, second in pairwise(atoms)
    ]
    wholes = [_whole(atoms)] if pairs else []
    if any(len(atom.term) < atom.end - atom.begin for atom in atoms):
        wholes.append(_whole([_as_grouped(folded, atom) for atom in atoms]))
    is_spelled = match.group()[-1] in "+#"
    is_strict = is_spelled or any(atom.term[0].isdigit() for atom in atoms)
    others = list(_others(folded, atoms))
    return Identifier(*match.span(), pairs or atoms, wholes, others, is_strict, is_spelled)


def regrouped(folded: str) -> Iterator[Place]:
    """Yield numbers and words of a folded text without what divides them, and negative numbers."""
    for match in DIGITS.finditer(folded):
        digits = re.sub("[ -]", "", match.group())
        if FEWEST_DIGITS <= len(digits) <= MOST_DIGITS:
            yield Place(digits, *match.span())
    for match in NEGATIVE.finditer(folded):
        yield Place(MINUS + match.group(1), *match.span())
    if "\n" in folded and HYPHEN.search(folded):
        for match in DIVIDED.finditer(folded):
            yield Place(match.group(1) + match.group(2), *match.span())


def parts(word: str) -> list[re.Match[str]]:
    """Return the runs of letters and of digits in a word that mixes them; none of a hexadecimal one."""
    found = list(PART.finditer(word))
    return found if 2 <= len(found) <= MOST_PARTS else []


def _start(folded: str, sign: int) -> int:
    """Return where an identifier with this sign may begin: two words before, or BEFORE characters."""
    least = max(0, sign - BEFORE)
    begin = folded.rfind(" ", least, max(0, sign - 1))
    return max(least, folded.rfind(" ", least, max(0, begin)) + 1, 0) if begin > least else least


def _atoms(folded: str, match: re.Match[str]) -> Iterator[Place]:
    for piece in PIECE.finditer(folded, *match.span()):
        word, begin = piece.group(), piece.start()
        if word in SPELLED:
            # In a chain # is a separator.
            if piece.end() == match.end():
                yield Place(SPELLED[word], *piece.span())
        elif word.isalnum() and (runs := parts(word)):
            for run in runs:
                yield Place(run.group(), begin + run.start(), begin + run.end())
        else:
            yield Place(re.sub(GROUPERS, "", word), *piece.span())


def _others(folded: str, atoms: Sequence[Place]) -> Iterator[Place]:
    halves: list[list[Place]] = [[]]
    for atom in atoms:
        if halves[-1] and folded[halves[-1][-1].end : atom.begin].isspace():
            halves.append([])
        halves[-1].append(atom)
        if len(atom.term) < atom.end - atom.begin and len(atoms) > 1:
            yield atom
    if len(halves) > 1:
        yield from (_whole(half) for half in halves if len(half) > 1)


def _as_grouped(folded: str, atom: Place) -> Place:
    return atom._replace(term=re.sub(GROUPERS, GROUPER, folded[atom.begin : atom.end]))


def _whole(atoms: Sequence[Place]) -> Place:
    term = JOINT + JOINT.join(atom.term for atom in atoms)
    return Place(term, atoms[0].begin, atoms[-1].end)
