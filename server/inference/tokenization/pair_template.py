"""The special tokens around a pair of texts, and what is left of a pair that is too long."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens before, between and after two texts, which are tokenised apart.

    So a query is read once for all of its candidates. The library does the same inside, but copies every
    part that it cuts off, in all combinations of the two texts.

    offset: added to the ids of the second text, so that the network knows its tokens; 0 where it does not
    tell the texts apart. The special tokens of the second text have it added already.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    offset: int

    @classmethod
    def of(cls, encoding: Any, offset: int) -> "PairTemplate":
        """Return the template of what a tokenizer without truncation makes of any pair of texts."""
        places = encoding.sequence_ids
        ids = [
            token + offset * (kind > 0)
            for token, kind in zip(encoding.ids, encoding.type_ids, strict=True)
        ]
        first, second = places.index(0), places.index(1)
        between, after = first + places.count(0), second + places.count(1)
        return cls(ids[:first], ids[between:second], ids[after:], offset)

    @property
    def special(self) -> int:
        """The number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def join(
        self, first: list[int], second: list[int], max_tokens: int, *, from_end: bool = False
    ) -> tuple[list[int], bool]:
        """Return the ids of the pair, and whether some were cut off; from_end: the texts' ends are kept."""
        room = max(0, max_tokens - self.special)
        lengths = _kept_lengths(len(first), len(second), room)
        cut = sum(lengths) < len(first) + len(second)
        if cut:
            first, second = _cut(first, lengths[0], from_end), _cut(second, lengths[1], from_end)
        if self.offset:
            second = [token + self.offset for token in second]
        return [*self.before, *first, *self.between, *second, *self.after], cut


def _kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how much is left of two texts that have room for `room` tokens: the longer is cut first.

    Where both are cut, the longer keeps the odd token; so do transformers and its CrossEncoder.
    """
    if first + second <= room:
        return first, second
    short = min(first, second)
    half = room // 2
    kept = (short, room - short) if short <= half else (half, room - half)
    return kept if first <= second else (kept[1], kept[0])


def _cut(ids: list[int], length: int, from_end: bool) -> list[int]:
    return ids[len(ids) - length :] if from_end else ids[:length]
