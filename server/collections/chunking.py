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
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from heapq import merge
from itertools import accumulate, chain
from typing import NamedTuple

from server.store.passages.lines import ARTICLE, HEADING, ITEM, LINE
from server.store.passages.noise import noise
from server.store.passages.outline import Outline
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


# Of a chunk's tokens, so many parts at most go to its headings.
LEAST_SHARE_OF_TEXT = 4
MOST_HEADINGS = 12
# Strengths of cuts besides those of an outline: after a heading none, and noise always parts chunks.
KEPT, NOISE = -1, 9
WORD = re.compile(r"\w")

# Shorter chunks say too little to be found by their meaning.
MIN_SIZE = 8


def default_overlap(size: int) -> int:
    """Return the tokens that a chunk of `size` tokens repeats where no overlap is given."""
    return min(size // 8, 64)


class Piece(NamedTuple):
    """A span that stays together, without white space at its ends.

    strength: how firmly the text may be cut after it; KEPT where it may not, after a heading.
    """

    begin: int
    end: int
    strength: int


class Cut(NamedTuple):
    """A document's chunks, and what is read before each: the headings and the table's header above it."""

    spans: list[Span]
    contexts: list[str]


def chunk(text: str, rules: ChunkRules, count: Count) -> list[Span]:
    """Return the spans of the chunks in order, see `cut`."""
    return cut(text, rules, count).spans


def cut(text: str, rules: ChunkRules, count: Count, title: str | None = None) -> Cut:
    """Return the chunks in order, each without white space at its ends.

    Together they hold every character that is neither white space nor noise. A text of at most `size`
    tokens is one chunk, unless it has noise or more than UNCOUNTED_CHARACTERS; one of white space only,
    or empty, is the span (0, len(text)). No chunk counts more than `size` with its context, but for a
    lone character that does. A chunk repeats the last whole sentences of the one before, as far as
    `overlap` reaches, unless an article, an item of a list or a section ends between; of a sentence that
    had to be split, it repeats pieces. title: a heading of the same name is no context. What `count` raises
    is passed on.
    """
    whole = Span(len(text) - len(text.lstrip()), len(text.rstrip()))
    if whole.begin >= whole.end:
        return Cut([Span(0, len(text))], [""])
    parts = _without_noise(text)
    if len(parts) == 1 and parts[0] == (0, len(text)):
        if whole.end - whole.begin <= _most_characters(rules.size):
            if count([text[whole.begin : whole.end]])[0] <= rules.size:
                return Cut([whole], [""])
    outline = Outline.of(text)
    pieces, tokens = _pieces(text, rules.size, count, outline, parts)
    row = _Row(text, pieces, tokens, count)
    contexts = _Contexts(outline, title, rules.size, count)
    found = Cut([], [])
    for span, context in _packed(text, row, rules, count, contexts):
        found.spans.append(span)
        found.contexts.append(context)
    return found


def _without_noise(text: str) -> list[Span]:
    """Return the parts of a text that are no noise; all of it where nothing would be left."""
    found, begin = list[Span](), 0
    for row in chain(noise(text), [Span(len(text), len(text))]):
        # What stands alone beside noise is a bracket or the like.
        if WORD.search(text, begin, row.begin):
            found.append(Span(begin, row.begin))
        begin = row.end
    return found or [Span(0, len(text))]


# --- packing ------------------------------------------------------------------------------------------


class _Contexts:
    """What is read before chunks, and its tokens; each is counted once."""

    def __init__(self, outline: Outline, title: str | None, size: int, count: Count) -> None:
        self._outline = outline
        self._title = title
        self._most = size // LEAST_SHARE_OF_TEXT
        self._count = count
        self._known: tuple[tuple[int, int], str, int] = ((-1, -1), "", 0)

    def at(self, place: int) -> tuple[str, int]:
        """Return the context of a chunk that begins at a place, and its tokens.

        Outer headings are left out where all would take too much room.
        """
        key = self._outline.key(place)
        if key != self._known[0]:
            for skip in range(MOST_HEADINGS):
                context = self._outline.context(place, self._title, skip)
                tokens = self._count([context])[0] if context else 0
                if tokens <= self._most:
                    break
            else:
                context, tokens = "", 0
            self._known = (key, context, tokens)
        return self._known[1], self._known[2]


class _Row:
    """Pieces in order, with running totals of their tokens, from which any range is counted."""

    def __init__(
        self, text: str, pieces: Sequence[Piece], tokens: Sequence[int], count: Count
    ) -> None:
        self.pieces = pieces
        ends = [pieces[0].begin, *(piece.end for piece in pieces)]
        # Noise between pieces is never within a chunk.
        gaps = [
            between if not (between := text[end : piece.begin]).strip() else ""
            for end, piece in zip(ends, pieces, strict=False)
        ]
        kinds = sorted(set(gaps))
        gap_tokens = dict(zip(kinds, _counts(kinds, count), strict=True))
        self._gaps = [gap_tokens[gap] for gap in gaps]
        both = (gap + own for gap, own in zip(self._gaps, tokens, strict=True))
        self._totals = list(accumulate(both, initial=0))
        # By strength: the ends of the pieces after which the text may be cut as firmly.
        self._ends = {
            strength: [at for at, piece in enumerate(pieces, 1) if piece.strength >= strength]
            for strength in (NOISE, HEADING, ARTICLE, ITEM, LINE)
        }

    def tokens(self, start: int, end: int) -> int:
        """Return the tokens of pieces start to end, half open, and of the white space between them."""
        return self._totals[end] - self._totals[start] - self._gaps[start]

    def end(self, start: int, done: int, size: int) -> int:
        """Return where a chunk from piece `start` should end; `done` if it has no room for more.

        A chunk with room for nothing else holds piece `start` alone. What fits into a chunk whole, an
        article or a section, is not cut, unless that left this chunk less than half full for nothing.
        """
        room = self._totals[start] + self._gaps[start] + size
        full = max(bisect_right(self._totals, room) - 1, start + 1)
        noise = self._ends[NOISE]
        if (at := bisect_right(noise, max(start, done))) < len(noise) and noise[at] <= full:
            return noise[at]
        if full == len(self.pieces):
            return full
        for strength in (HEADING, ARTICLE, ITEM, LINE):
            ends = self._ends[strength]
            at = bisect_right(ends, full) - 1
            if at < 0 or ends[at] <= done:
                continue
            end = ends[at]
            if 2 * self.tokens(start, end) >= size:
                return end
            following = ends[at + 1] if at + 1 < len(ends) else len(self.pieces)
            if strength >= ITEM and self.tokens(end, following) <= size:
                return end
        return max(self._before_headings(start, done, full), done)

    def _before_headings(self, start: int, done: int, end: int) -> int:
        """Return an end that does not part a heading from what follows it, where there is one."""
        found = end
        while found > max(start + 1, done) and self.pieces[found - 1].strength == KEPT:
            found -= 1
        return end if self.pieces[found - 1].strength == KEPT else found

    def overlap_start(self, start: int, done: int, rules: ChunkRules) -> int:
        """Return where the chunk begins that follows the chunk of pieces start to done."""
        first = done
        if self.pieces[done - 1].strength >= ITEM:
            return first
        while first - 1 > start and self.tokens(first - 1, done) <= rules.overlap:
            first -= 1
        while first < done < len(self.pieces) and self.tokens(first, done + 1) > rules.size:
            first += 1
        return first


def _packed(
    text: str, row: _Row, rules: ChunkRules, count: Count, contexts: _Contexts
) -> Iterator[tuple[Span, str]]:
    """Yield chunks: each from `start`, with pieces before `done` that the last one had, to `end`."""
    start = done = 0
    while done < len(row.pieces):
        context, length = contexts.at(row.pieces[start].begin)
        end, step = row.end(start, done, rules.size - length), 1
        while end > done:
            span = Span(row.pieces[start].begin, row.pieces[end - 1].end)
            fits = count([context + text[span.begin : span.end]])[0] <= rules.size
            if fits or end == start + 1:
                yield span, context if fits else ""
                break
            end = max(end - step, done if start < done else start + 1)
            step *= 2
        # A chunk that has no room for more than it would repeat repeats nothing.
        start = row.overlap_start(start, end, rules) if end > done else done
        done = end


# --- splitting ----------------------------------------------------------------------------------------

# Places where pieces end, in order, each with how firmly the text may be cut there.
Ends = Iterable[tuple[int, int]]


def _pieces(
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
    known = dict(zip(pieces, _tokens(text, pieces, size, count), strict=True))
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
        known.update(zip(fresh, _tokens(text, fresh, size, count), strict=True))
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
    verbatim = iter(outline.verbatim)
    block, line = next(verbatim, None), begin
    for mark in SENTENCE_END.finditer(text, begin, end):
        place, stops = mark.end(), mark[1]
        while block is not None and block.end <= mark.start():
            block = next(verbatim, None)
        is_verbatim = block is not None and block.begin <= mark.start()
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
