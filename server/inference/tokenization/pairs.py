"""How the token ids of two texts become those of a pair: by special tokens, or in a prompt.

The two texts are tokenised apart, so a query is read once for all of its candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.inference.manifest import PairPrompt


@dataclass(frozen=True, slots=True)
class Bare:
    """The token ids of a text without special tokens; at least all that a pair can keep.

    whole: all characters of the text were read.
    """

    ids: list[int]
    whole: bool


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens before, between and after two texts.

    The library does the same inside, but copies every part that it cuts off, in all combinations of the two
    texts.

    offset: added to the ids of the second text, so that the network knows its tokens; 0 where it does not
    tell the texts apart. The special tokens of the second text have it added already.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    offset: int

    @classmethod
    def of(cls, ids: list[int], places: Sequence[int | None], offset: int) -> "PairTemplate":
        """Return the template by the ids of any pair, with the offset.

        places: for each id 0 or 1 for the text that it is of, None for a special token.
        """
        first, second = places.index(0), places.index(1)
        between, after = first + places.count(0), second + places.count(1)
        return cls(ids[:first], ids[between:second], ids[after:], offset)

    @property
    def special(self) -> int:
        """The number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def first(self, text: str) -> str:
        """Return what is tokenised of a first text."""
        return text

    def second(self, text: str) -> str:
        """Return what is tokenised of a second text."""
        return text

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


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The tokens of a prompt around two texts.

    The model's own code tokenises the body of a prompt as one text. A label ends in a space, which belongs to
    the word behind it, so the body is split before that space: the parts have the tokens of the whole.

    before, after: with the tokens that the tokenizer puts around any text. opening: of the body up to the
    first text. first_space, second_space: what stands between a label and its text. second_label: what follows
    the first text.
    """

    before: list[int]
    opening: list[int]
    after: list[int]
    first_space: str
    second_label: str
    second_space: str

    @classmethod
    def of(
        cls,
        read: Callable[[str], list[int]],
        prompt: PairPrompt,
        special: tuple[list[int], list[int]],
    ) -> "PromptTemplate":
        """Return the template of a prompt.

        read: returns the ids of a text without special tokens. special: those that stand before and after
        any text.
        """
        first, second = prompt.first_label.rstrip(), prompt.second_label.rstrip()
        return cls(
            [*read(prompt.before), *special[0]],
            read(f"{prompt.instruction_label}{prompt.instruction}{first}"),
            [*special[1], *read(prompt.after)],
            prompt.first_label[len(first) :],
            second,
            prompt.second_label[len(second) :],
        )

    @property
    def special(self) -> int:
        """The number of tokens that are not of the two texts and their labels."""
        return len(self.before) + len(self.opening) + len(self.after)

    def first(self, text: str) -> str:
        """Return what is tokenised of a first text."""
        return f"{self.first_space}{text}{self.second_label}"

    def second(self, text: str) -> str:
        """Return what is tokenised of a second text."""
        return f"{self.second_space}{text}"

    def room(self, max_tokens: int) -> int:
        """Return the tokens that the body may have."""
        return max(0, max_tokens - len(self.before) - len(self.after))

    def around(self, body: list[int]) -> list[int]:
        """Return the ids of a prompt with this body."""
        return [*self.before, *body, *self.after]

    def join(
        self, first: list[int], second: list[int], max_tokens: int, *, from_end: bool = False
    ) -> tuple[list[int], bool]:
        """Return the ids of the pair, and whether some were cut off.

        from_end: the texts' ends are kept. The second text is cut first, then the first.
        """
        room = self.room(max_tokens)
        excess = len(self.opening) + len(first) + len(second) - room
        if excess > 0 and from_end:
            rest = max(0, excess - len(second))
            first, second = first[rest:], second[excess:]
        return self.around([*self.opening, *first, *second][:room]), excess > 0


Template = PairTemplate | PromptTemplate
