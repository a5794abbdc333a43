"""Packs the pieces of a text into chunks, in order: as many as fit, but no article or section in two
where that can be helped.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from server.collections.cutting.counting import Count, counts
from server.collections.cutting.piece import KEPT, NOISE, Piece
from server.store.passages.lines import ARTICLE, HEADING, ITEM, LINE
from server.store.passages.outline import Outline
from server.store.records import ChunkRules, Span

# Of a chunk's tokens, so many parts at most go to its headings.
LEAST_SHARE_OF_TEXT = 4
MOST_HEADINGS = 12


class Contexts:
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


class Row:
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
        gap_tokens = dict(zip(kinds, counts(kinds, count), strict=True))
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


def packed(
    text: str, row: Row, rules: ChunkRules, count: Count, contexts: Contexts
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
