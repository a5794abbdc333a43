"""Splits long documents into chunks that a model reads whole. Pure: the caller counts tokens.

A text is split after sentences. A sentence that is too long is split after weaker marks, then between
words, then anywhere but inside a character with its marks. The pieces are counted and packed in order
into chunks: as many as fit, or up to the end of a paragraph if that fills half of a chunk.

Counts of pieces need not add up to the count of their joined text, so each chunk is counted again
as it will be read, and gives up pieces until it fits. A document thus costs about two tokenisations:
10 MB of prose took 6 to 8 s, nine tenths of it in the tokenizer (2026-11-24, one core of an AMD EPYC,
chunks of 510 tokens).
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

from server.store.records import ChunkRules, Span

# Texts to the tokens of each by itself, without special tokens.
Count = Callable[[Sequence[str]], list[int]]

# A text of more characters than this, or than this for each token, is split without counting it whole.
UNCOUNTED_CHARACTERS = 1 << 16
UNCOUNTED_CHARACTERS_PER_TOKEN = 16
# A text without marks is split into tenths of a chunk, at one token a character: fewer leave chunks
# less full, and each piece costs 25 µs to count besides its tokens (2026-11-24, AMD EPYC).
PIECES_PER_CHUNK = 10
# No script puts more on one character; more is decoration, and may be split.
MAX_MARKS = 32
# A tokenizer holds about 300 bytes a token until a call is over: 80 MB at the most.
BATCH_PIECES = 4096
BATCH_CHARACTERS = 1 << 18

JOINER = "\u200d"
SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
FIRST_WIDE = "‘"  # from here on, marks and characters need no white space between them
BREAKS = "\n\r\f\v\x85\u2028\u2029"
CLOSERS = "[”’」』）】》〉〕］｝\"')\\]}]*"
SENTENCE_END = re.compile(rf"[{BREAKS}]\s*|([。！？；｡…!?.]+){CLOSERS}")
CLAUSE_END = re.compile(rf"[{BREAKS}]|([，、；：。！？｡…,;:!?.]+){CLOSERS}")
ONE_BREAK = re.compile(rf"(?:\r\n|[{BREAKS}])[^\S{BREAKS}]*")
HEADING = re.compile(r"#{1,6}\s")
SPACE = re.compile(r"\s")
# What a full stop may end besides a sentence, looked for in the last LOOK_BACK characters.
LOOK_BACK = 9
ABBREVIATION = re.compile(
    r"(?<![A-Za-z0-9])(?:e\.g|i\.e|cf|vs|al|viz|approx|Dr|Mrs?|Ms|Prof|St|Jr|Sr|(?:[A-Z]\.)*[A-Z])\Z"
)
BEFORE_NUMBER = re.compile(
    r"(?<![A-Za-z0-9])(?:nos?|figs?|eqs?|secs?|arts?|vols?|chs?|pp?)\Z", re.IGNORECASE
)
LIST_NUMBER = re.compile(r"^[^\S\n]*\d{1,3}\Z", re.MULTILINE)


# Shorter chunks say too little to be found by their meaning.
MIN_SIZE = 8


def default_overlap(size: int) -> int:
    """Return the tokens that a chunk of `size` tokens repeats where no overlap is given."""
    return min(size // 8, 64)


class Piece(NamedTuple):
    """A span that stays together, without white space at its ends. closes: it ends a paragraph."""

    begin: int
    end: int
    closes: bool


def chunk(text: str, rules: ChunkRules, count: Count) -> list[Span]:
    """Return the spans of the chunks in order, each without white space at its ends.

    Together they hold every character that is not white space. A text of at most `size` tokens is
    one span, unless it has more than UNCOUNTED_CHARACTERS; one of white space only, or empty, is
    the span (0, len(text)). No chunk counts more than `size`, but for a lone character that does.
    A chunk repeats the last whole sentences of the one before, as far as `overlap` reaches; of a
    sentence that had to be split, it repeats pieces. What `count` raises is passed on.
    """
    whole = Span(len(text) - len(text.lstrip()), len(text.rstrip()))
    if whole.begin >= whole.end:
        return [Span(0, len(text))]
    if whole.end - whole.begin <= _most_characters(rules.size):
        if count([text[whole.begin : whole.end]])[0] <= rules.size:
            return [whole]
    pieces, tokens = _pieces(text, rules.size, count)
    return list(_packed(text, _Row(text, pieces, tokens, count), rules, count))


# --- packing ------------------------------------------------------------------------------------------


class _Row:
    """Pieces in order, with running totals of their tokens, from which any range is counted."""

    def __init__(
        self, text: str, pieces: Sequence[Piece], tokens: Sequence[int], count: Count
    ) -> None:
        self.pieces = pieces
        ends = [pieces[0].begin, *(piece.end for piece in pieces)]
        gaps = [text[end : piece.begin] for end, piece in zip(ends, pieces, strict=False)]
        kinds = sorted(set(gaps))
        gap_tokens = dict(zip(kinds, _counts(kinds, count), strict=True))
        self._gaps = [gap_tokens[gap] for gap in gaps]
        both = (gap + own for gap, own in zip(self._gaps, tokens, strict=True))
        self._totals = list(accumulate(both, initial=0))

    def tokens(self, start: int, end: int) -> int:
        """Return the tokens of pieces start to end, half open, and of the white space between them."""
        return self._totals[end] - self._totals[start] - self._gaps[start]

    def end(self, start: int, done: int, size: int) -> int:
        """Return where a chunk from piece `start` should end; `done` if it has no room for more.

        A chunk with room for nothing else holds piece `start` alone.
        """
        room = self._totals[start] + self._gaps[start] + size
        full = max(bisect_right(self._totals, room) - 1, start + 1)
        if full < len(self.pieces):
            for end in range(full, done, -1):
                if 2 * self.tokens(start, end) < size:
                    break
                if self.pieces[end - 1].closes:
                    return end
        return max(full, done)

    def overlap_start(self, start: int, done: int, rules: ChunkRules) -> int:
        """Return where the chunk begins that follows the chunk of pieces start to done."""
        first = done
        while first - 1 > start and self.tokens(first - 1, done) <= rules.overlap:
            first -= 1
        while first < done < len(self.pieces) and self.tokens(first, done + 1) > rules.size:
            first += 1
        return first


def _packed(text: str, row: _Row, rules: ChunkRules, count: Count) -> Iterator[Span]:
    """Yield chunks: each from `start`, with pieces before `done` that the last one had, to `end`."""
    start = done = 0
    while done < len(row.pieces):
        end, step = row.end(start, done, rules.size), 1
        while end > done:
            span = Span(row.pieces[start].begin, row.pieces[end - 1].end)
            if end == start + 1 or count([text[span.begin : span.end]])[0] <= rules.size:
                yield span
                break
            end = max(end - step, done if start < done else start + 1)
            step *= 2
        # A chunk that has no room for more than it would repeat repeats nothing.
        start = row.overlap_start(start, end, rules) if end > done else done
        done = end


# --- splitting ----------------------------------------------------------------------------------------


def _pieces(text: str, size: int, count: Count) -> tuple[list[Piece], list[int]]:
    """Return the whole text as pieces, and the tokens of each.

    Only a lone character may have more than `size`.
    """
    pieces = list(_trimmed(text, 0, len(text), _sentence_ends(text), closes=True))
    known = dict(zip(pieces, _tokens(text, pieces, size, count), strict=True))
    for ends in (_clause_ends, _word_ends, _steps, _character_ends, _code_point_ends):
        if max(known[piece] for piece in pieces) <= size:
            break
        finer: list[Piece] = []
        for piece in pieces:
            if known[piece] <= size:
                finer.append(piece)
            else:
                begin, end, closes = piece
                finer += _trimmed(text, begin, end, ends(text, piece, size), closes)
        fresh = [piece for piece in finer if piece not in known]
        known.update(zip(fresh, _tokens(text, fresh, size, count), strict=True))
        pieces = finer
    return pieces, [known[piece] for piece in pieces]


def _trimmed(
    text: str, begin: int, end: int, ends: Iterable[tuple[int, bool]], closes: bool
) -> Iterator[Piece]:
    """Yield pieces that end at these places, and then at `end`, without those of white space only.

    ends: places in order, each with whether a paragraph ends there. closes: the same of `end`.
    """
    last = None
    for place, ends_paragraph in chain(ends, [(end, closes)]):
        between = text[begin:place]
        if content := between.strip():
            if last is not None:
                yield last
            begin += len(between) - len(between.lstrip())
            last = Piece(begin, begin + len(content), False)
        # A heading belongs to what follows it.
        if ends_paragraph and last is not None and not HEADING.match(text, last.begin):
            last = last._replace(closes=True)
        begin = place
    if last is not None:
        yield last


def _sentence_ends(text: str) -> Iterator[tuple[int, bool]]:
    for mark in SENTENCE_END.finditer(text):
        place, stops = mark.end(), mark[1]
        if stops is None:
            # subtle: a line that goes on in lower case was only wrapped.
            wrapped = text[place : place + 1].islower() and ONE_BREAK.fullmatch(mark[0])
            if not wrapped:
                yield place, True
        elif _stands_apart(text, mark) and not _is_inside(text, mark, stops):
            yield place, False


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


def _clause_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, bool]]:
    for mark in CLAUSE_END.finditer(text, piece.begin, piece.end):
        if mark[1] is None or _stands_apart(text, mark):
            yield mark.end(), False


def _word_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, bool]]:
    """Yield ends after several words: to count them one by one would take as long as the rest."""
    width = max(1, size // PIECES_PER_CHUNK)
    place = piece.begin + width
    while space := SPACE.search(text, place, piece.end):
        yield space.start(), False
        place = space.end() + width


def _steps(text: str, piece: Piece, size: int) -> Iterator[tuple[int, bool]]:
    """Yield ends at even distances, but not between a character and the marks on it."""
    width = max(1, size // PIECES_PER_CHUNK)
    place = piece.begin + width
    while place < piece.end:
        last = min(place + MAX_MARKS, piece.end)
        while place < last and _continues(text, place):
            place += 1
        yield place, False
        place += width


def _character_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, bool]]:
    return _steps(text, piece, 1)


def _code_point_ends(text: str, piece: Piece, size: int) -> Iterator[tuple[int, bool]]:
    return ((place, False) for place in range(piece.begin + 1, piece.end))


def _continues(text: str, place: int) -> bool:
    """Return whether the code point at `place` belongs to the character before it."""
    code_point = text[place]
    return (
        unicodedata.category(code_point).startswith("M")
        or JOINER in (code_point, text[place - 1])
        or code_point in SKIN_TONES
    )


# --- counting -----------------------------------------------------------------------------------------


def _most_characters(size: int) -> int:
    return max(UNCOUNTED_CHARACTERS, UNCOUNTED_CHARACTERS_PER_TOKEN * size)


def _tokens(text: str, pieces: Sequence[Piece], size: int, count: Count) -> list[int]:
    """Return the tokens of each piece; size + 1 for one that is too long to be counted."""
    most = _most_characters(size)
    short = [piece for piece in pieces if piece.end - piece.begin <= most]
    counted = iter(_counts((text[piece.begin : piece.end] for piece in short), count))
    return [next(counted) if p.end - p.begin <= most else size + 1 for p in pieces]


def _counts(texts: Iterable[str], count: Count) -> list[int]:
    """Count in batches, so that there are neither many calls nor much memory."""
    found: list[int] = []
    batch: list[str] = []
    n_characters = 0
    for text in texts:
        if batch and (len(batch) >= BATCH_PIECES or n_characters + len(text) > BATCH_CHARACTERS):
            found += count(batch)
            batch, n_characters = [], 0
        batch.append(text)
        n_characters += len(text)
    return found + count(batch) if batch else found
