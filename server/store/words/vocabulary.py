"""Synonyms and stop words of a collection, which change what a query asks for; nothing is indexed again.

How this works. Query, synonyms and stop words are compared as rows of units (see `units`) in their base
forms: so folding, plurals and Chinese need no rules of their own. A stop word is cut out of the query. A
synonym that stands in the query adds the others of its group, each as a phrase: a text must have its units
in a row. What stands between quotation marks, or after a minus, stays as it is.

A collection keeps both as a note, so they change with its revision, and are in its backups.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import msgspec

from server.errors import InvalidRequest, shown
from server.store.lexical import ask, read_of
from server.store.words import units
from server.store.words.asked import Asked
from server.store.words.bases import base
from server.store.words.folding import fold, joined
from server.store.words.identifiers import identifiers
from server.store.words.quoting import APART, divide
from server.store.words.units import STRETCH, UNIT, is_single

# Key of the note.
VOCABULARY = "vocabulary"
MAX_GROUPS, MAX_GROUP, MAX_STOP_WORDS = 2_000, 32, 2_000
# Characters of one synonym or stop word, and of all.
MAX_WORD, MAX_ALL = 100, 200_000
# Bytes of the note: a character may take six.
MOST_BYTES = 8 * MAX_ALL
# Phrases that the synonyms of one query add; each is counted and scored as a word is.
MAX_ADDED = 32

# What C++ and C# end in.
SIGN = re.compile("[+#]")

Units = tuple[str, ...]


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """Synonyms and stop words of a collection.

    synonyms: groups of words or phrases that mean the same. stop_words: words that a query is searched without.
    """

    synonyms: list[list[str]] = []
    stop_words: list[str] = []


class Rows:
    """Rows of units that are looked for in a query. groups: by row, the groups of synonyms that have it."""

    def __init__(self, groups: Mapping[Units, Sequence[int]]) -> None:
        self.groups = groups
        self._lengths = sorted({len(each) for each in groups}, reverse=True)

    def places(self, row: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield where they stand in a row, the longest first, without overlaps."""
        first = 0
        while self.groups and first < len(row):
            rows = (tuple(row[first : first + length]) for length in self._lengths)
            length = next((len(each) for each in rows if each in self.groups), 0)
            if length:
                yield first, first + length
            first += max(1, length)


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Synonyms and stop words, ready for queries.

    groups: the phrases of each group. members: the rows of all of them. stopped: rows to cut out.
    """

    groups: Sequence[Sequence[str]] = ()
    members: Rows = field(default_factory=lambda: Rows({}))
    stopped: Rows = field(default_factory=lambda: Rows({}))

    def ask(self, query: str) -> Asked:
        """Return what a query asks for: without stop words, unless it has nothing else, and with synonyms."""
        if self is NOTHING:
            return ask(query)
        query = read_of(query)
        asked = ask(self._cut(query))
        if not asked.lookups:
            asked = ask(query)
        added = dict.fromkeys(islice(self._added(query), MAX_ADDED))
        return replace(asked, words=tuple(dict.fromkeys((*asked.words, *added))))

    def _cut(self, query: str) -> str:
        """Return the folded query without stop words, of which something other than a blank is left."""
        folded = fold(query)
        # What is quoted or excluded has no stop words.
        asked = divide(folded, in_place=True).rest
        found = list(_units(asked, UNIT.finditer(asked)))
        rest, end = "", 0
        for first, last in self.stopped.places([each.unit for each in found]):
            cut = slice(found[first].begin, found[last - 1].end)
            # subtle: beside a word a mark is inches, and without the word it would begin or end a quotation.
            if '"' in folded[max(0, cut.start - 1) : cut.stop + 1]:
                continue
            rest += folded[end : cut.start] + APART
            end = cut.stop
        return rest + folded[end:]

    def _added(self, query: str) -> Iterator[str]:
        """Yield the other phrases of the groups that a query has a phrase of."""
        row = units_of(divide(fold(query)).rest)
        for first, last in self.members.places(row):
            for number in self.members.groups[row[first:last]]:
                yield from self.groups[number]


def units_of(folded: str) -> Units:
    """Return the units of a folded text in their base forms."""
    whole = joined(folded)
    # subtle: only stretches are indexed, and UNIT also finds characters that this Python does not know.
    stretches = [each.span() for each in STRETCH.finditer(whole)]
    found = (each for begin, end in stretches for each in UNIT.finditer(whole, begin, end))
    return tuple(each.unit for each in _units(whole, found))


class _Unit(NamedTuple):
    """A unit in its base form, and its place in a text."""

    unit: str
    begin: int
    end: int


def _units(text: str, found: Iterable[re.Match[str]]) -> Iterator[_Unit]:
    """Yield units in their base forms. C++ and C# are units with their signs, so neither is C."""
    signed = {
        each.begin: _Unit(each.terms[0], each.begin, each.end)
        for each in (identifiers(text) if SIGN.search(text) else ())
        if each.is_spelled and len(each.terms) == 1
    }
    for each in found:
        begin, end = each.span()
        yield signed.get(begin) or _Unit(base(each.group()), begin, end)


def phrase_of(folded: str) -> str:
    """Return a folded text as one phrase of the index: a word, a character, or terms in a row."""
    row = units_of(folded)
    if len(row) == 1 and not is_single(row[0]):
        return row[0]
    return " ".join(units.phrase(joined(folded)))


NOTHING = Vocabulary()


@lru_cache(maxsize=64)
def vocabulary_of(note: str | None) -> Vocabulary:
    """Return the vocabulary that a note holds; raises ValueError where it is not what was written."""
    if note is None:
        return NOTHING
    given = given_of(note)
    members: dict[Units, list[int]] = {}
    for number, group in enumerate(given.synonyms):
        for each in group:
            members.setdefault(units_of(fold(each)), []).append(number)
    groups = [[phrase_of(fold(each)) for each in group] for group in given.synonyms]
    stopped = {units_of(fold(each)): (0,) for each in given.stop_words}
    return Vocabulary(groups, Rows(members), Rows(stopped))


def given_of(note: str | None) -> Given:
    """Return what a note holds; raises ValueError where it is not what was written."""
    if note is None:
        return Given()
    try:
        given = msgspec.json.decode(note, type=Given)
        check(given)
    except InvalidRequest as error:
        raise ValueError(error.message) from None
    return given


def note_of(given: Given) -> str:
    """Return the note of synonyms and stop words that were checked."""
    return msgspec.json.encode(given).decode()


def check(given: Given) -> None:
    """Raise InvalidRequest for what is beyond the limits, or has nothing to look for."""
    _at_most(len(given.synonyms), MAX_GROUPS, "groups", "synonyms")
    _at_most(len(given.stop_words), MAX_STOP_WORDS, "words", "stop_words")
    for number, group in enumerate(given.synonyms):
        name = f"synonyms[{number}]"
        _at_most(len(group), MAX_GROUP, "phrases", name)
        for word in group:
            _check_word(word, name)
        if len({units_of(fold(word)) for word in group}) < 2:
            raise InvalidRequest(
                f"{name} needs two phrases at least that differ when they are searched for",
                param="synonyms",
            )
    for word in given.stop_words:
        _check_word(word, "stop_words")
    every = [*given.stop_words, *(word for group in given.synonyms for word in group)]
    _at_most(sum(map(len, every)), MAX_ALL, "characters", "all synonyms and stop words together")


def _check_word(word: str, name: str) -> None:
    param = name.partition("[")[0]
    if len(word) > MAX_WORD:
        raise InvalidRequest(
            f"{name} has {shown(word)} of {len(word)} characters, at most {MAX_WORD} are possible",
            param=param,
        )
    if not units_of(fold(word)):
        raise InvalidRequest(f"{name} has {shown(word)}, which has no letter or digit", param=param)


def _at_most(number: int, most: int, what: str, name: str) -> None:
    if number > most:
        raise InvalidRequest(
            f"{name}: {number} {what}, at most {most} are possible; leave some out",
            param=name.partition("[")[0] if " " not in name else "synonyms",
        )
