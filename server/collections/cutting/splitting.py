"""Splits a text into pieces: sentences, lines of tables and code, and less where those are too long.

A sentence that is too long is split after weaker marks, then between words, then anywhere but inside a
character with its marks.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence, Set
from heapq import merge
from itertools import chain
from operator import attrgetter

from server.collections.cutting.counting import Count, piece_tokens
from server.collections.cutting.piece import KEPT, NOISE, Piece
from server.store.passages.lines import ITEM, LINE
from server.store.passages.outline import Outline
from server.store.records import Span

# A text without marks is split into tenths of a chunk, at one token a character: fewer leave chunks
# less full, and each piece costs 25 µs to count besides its tokens (2026-11-24, AMD EPYC).
PIECES_PER_CHUNK = 10
# No script puts more on one character; more is decoration, and may be split.
MAX_MARKS = 32

JOINER = "\u200d"
SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
FIRST_WIDE = "‘"  # from here on, marks and characters need no white space between them
BREAKS = "\n\r\f\v\x85\u2028\u2029"
CLOSERS = "[”’」』）】》〉〕］｝\"')\\]}]*"
SENTENCE_END = re.compile(rf"[{BREAKS}]\s*|([。！？；｡…!?.]+){CLOSERS}")
CLAUSE_END = re.compile(rf"[{BREAKS}]|([，、；：。！？｡…,;:!?.]+){CLOSERS}")
ONE_BREAK = re.compile(rf"(?:\r\n|[{BREAKS}])[^\S{BREAKS}]*")
SPACE = re.compile(r"\s")
# What a full stop may end besides a sentence, looked for in the last LOOK_BACK characters.
LOOK_BACK = 9
ABBREVIATION = re.compile(
    r"(?<![A-Za-z0-9])(?:e\.g|i\.e|cf|vs|al|ca|viz|approx|resp|incl|Drs?|Mrs?|Ms|Mx|Messrs|Prof|St|Mt|Jr|Sr"
    r"|Gen|Col|Capt|Sgt|Lt|Rev|Hon|Pres|Gov|Sen|Rep|Dept|(?:[A-Z]\.)*[A-Z])\Z"
)
BEFORE_NUMBER = re.compile(
    r"(?<![A-Za-z0-9])(?:nos?|figs?|eqs?|secs?|arts?|vols?|chs?|pp?|paras?|cl|sched|app|tab|ver|rev|ed|ex"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\Z",
    re.IGNORECASE,
)
# "1.", "1.2.", "a.", "iv." and the like, alone at the beginning of a line.
LIST_NUMBER = re.compile(r"^[^\S\n]*(?:\d{1,3}(?:\.\d{1,2})*|[a-z]|[ivx]{1,4})\Z", re.MULTILINE)


# Places where pieces end, in order, each with how firmly the text may be cut there.
Ends = Iterable[tuple[int, int]]


def split(
    text: str,
    size: int,
    count: Count,
    outline: Outline | None = None,
    parts: Sequence[Span] | None = None,
) -> tuple[list[Piece], list[int]]:
    """Return the parts of a text as pieces, and the tokens of each; the whole text without `parts`.

    Only a lone character may have more than `size`.
    """
    outline = outline or Outline.of(text)
    pieces = list[Piece]()
    for begin, end in parts or [Span(0, len(text))]:
        ends = _natural_ends(text, outline, begin, end)
        pieces += _trimmed(text, begin, end, ends, NOISE, outline.headings)
    known = dict(zip(pieces, piece_tokens(text, pieces, size, count), strict=True))
    for finer_ends in (_clause_ends, _word_ends, _steps, _character_ends, _code_point_ends):
        if max(known[piece] for piece in pieces) <= size:
            break
        finer: list[Piece] = []
        for piece in pieces:
            if known[piece] <= size:
                finer.append(piece)
            else:
                begin, end, strength = piece
                finer += _trimmed(text, begin, end, finer_ends(text, piece, size), strength)
        fresh = [piece for piece in finer if piece not in known]
        known.update(zip(fresh, piece_tokens(text, fresh, size, count), strict=True))
        pieces = finer
    return pieces, [known[piece] for piece in pieces]


def _trimmed(
    text: str, begin: int, end: int, ends: Ends, strength: int, headings: Set[int] = frozenset()
) -> Iterator[Piece]:
    """Yield pieces that end at these places, and then at `end`, without those of white space only.

    strength: of `end`. headings: where headings begin, which belong to what follows them.
    """
    last = None
    for place, firmly in chain(ends, [(end, strength)]):
        between = text[begin:place]
        if content := between.strip():
            if last is not None:
                yield last
            begin += len(between) - len(between.lstrip())
            last = Piece(begin, begin + len(content), KEPT if begin in headings else 0)
        if last is not None and (last.strength != KEPT or firmly == NOISE):
            last = last._replace(strength=max(last.strength, firmly))
        begin = place
    if last is not None:
        yield last


def _natural_ends(text: str, outline: Outline, begin: int, end: int) -> Ends:
    """Return where sentences end, and lines of tables and of code, and where the outline may be cut."""
    first, last = bisect_right(outline.cuts, begin), bisect_left(outline.cuts, end)
    cuts = zip(outline.cuts[first:last], outline.strengths[first:last], strict=True)
    return merge(cuts, _sentence_ends(text, outline, begin, end))


def _sentence_ends(text: str, outline: Outline, begin: int, end: int) -> Iterator[tuple[int, int]]:
    verbatim, line = outline.verbatim, begin
    block = bisect_right(verbatim, begin, key=attrgetter("end"))
    for mark in SENTENCE_END.finditer(text, begin, end):
        place, stops = mark.end(), mark[1]
        while block < len(verbatim) and verbatim[block].end <= mark.start():
            block += 1
        is_verbatim = block < len(verbatim) and verbatim[block].begin <= mark.start()
        if stops is None:
            if is_verbatim:
                yield place, 0
            elif not _is_wrapped(text, outline, line, mark):
                yield place, LINE
            line = place
        elif not is_verbatim and _stands_apart(text, mark) and not _is_inside(text, mark, stops):
            yield place, 0


def _is_wrapped(text: str, outline: Outline, line: int, mark: re.Match[str]) -> bool:
    """Return whether a line was only broken because it was full, or goes on in lower case."""
    if not ONE_BREAK.fullmatch(mark[0]):
        return False
    if text[mark.end() : mark.end() + 1].islower():
        return True
    return outline.is_full(line, mark.start()) and outline.strength(mark.end()) < ITEM


def _stands_apart(text: str, mark: re.Match[str]) -> bool:
    """Return whether a mark can end a piece.

    Chinese marks can; others can before white space, and between Chinese characters.
    """
    following = text[mark.end() : mark.end() + 1]
    if not following or following.isspace() or max(mark[1]) >= FIRST_WIDE:
        return True
    before = text[mark.start() - 1 : mark.start()]
    return following >= FIRST_WIDE and (before >= FIRST_WIDE or mark[1] in "!?")


def _is_inside(text: str, mark: re.Match[str], stops: str) -> bool:
    """Return whether a mark stands inside a sentence.

    It does before lower case, and after "e.g.", "No." before 5, an initial, or the number of a list.
    """
    if max(stops) > "…":
        return False
    start, end = mark.span()
    following = text[end : end + 2].removeprefix(" ")[:1]
    if following.islower():
        return True
    before = max(0, start - LOOK_BACK)
    return stops == "." and bool(
        ABBREVIATION.search(text, before, start)
        or LIST_NUMBER.search(text, before, start)
        or (following.isdigit() and BEFORE_NUMBER.search(text, before, start))
    )


def _clause_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, int]]:
    for mark in CLAUSE_END.finditer(text, piece.begin, piece.end):
        if mark[1] is None or _stands_apart(text, mark):
            yield mark.end(), 0


def _word_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, int]]:
    """Yield ends after several words: to count them one by one would take as long as the rest."""
    width = max(1, size // PIECES_PER_CHUNK)
    place = piece.begin + width
    while space := SPACE.search(text, place, piece.end):
        yield space.start(), 0
        place = space.end() + width


def _steps(text: str, piece: Piece, size: int) -> Iterator[tuple[int, int]]:
    """Yield ends at even distances, but not between a character and the marks on it."""
    width = max(1, size // PIECES_PER_CHUNK)
    place = piece.begin + width
    while place < piece.end:
        last = min(place + MAX_MARKS, piece.end)
        while place < last and _continues(text, place):
            place += 1
        yield place, 0
        place += width


def _character_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, int]]:
    return _steps(text, piece, 1)


def _code_point_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, int]]:
    return ((place, 0) for place in range(piece.begin + 1, piece.end))


def _continues(text: str, place: int) -> bool:
    """Return whether the code point at `place` belongs to the character before it."""
    code_point = text[place]
    return (
        unicodedata.category(code_point).startswith("M")
        or JOINER in (code_point, text[place - 1])
        or code_point in SKIN_TONES
    )
