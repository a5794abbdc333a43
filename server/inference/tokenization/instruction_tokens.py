"""The tokens of an instruction, where pooling leaves them out: which they are, and how they are marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from server.types import Ids, InputType


class Library(Protocol):
    """What is used of the library's tokenizer."""

    def encode(self, sequence: str) -> Any: ...

    def get_added_tokens_decoder(self) -> Mapping[int, Any]: ...


@dataclass(frozen=True, slots=True)
class InstructionTokens:
    """How many of a text's first tokens are left out, by its kind, where it has an instruction.

    offset: what the ids of these tokens come with. special: how many of them are special tokens before a text.
    """

    offset: int
    counts: Mapping[InputType, int]
    special: int

    @classmethod
    def of(
        cls,
        tokenizer: Library,
        instructions: Mapping[InputType, str],
        offset: int,
        special: int,
    ) -> "InstructionTokens":
        """Count the tokens as sentence-transformers does. tokenizer: cuts to the model's maximum.

        instructions: prepared as texts are. Each is read alone; special tokens before it count, and one
        special token at its end does not.
        """
        if not offset:
            return cls(0, {}, special)
        counts, added = {}, tokenizer.get_added_tokens_decoder()
        for kind, instruction in instructions.items():
            ids = tokenizer.encode(instruction).ids
            last = added.get(ids[-1]) if ids else None
            counts[kind] = len(ids) - (last is not None and last.special)
        return cls(offset, counts, special)

    def mark(self, ids: Ids, input_type: InputType, lost: int) -> None:
        """Add the offset to the ids to leave out. lost: tokens that the beginning of the text lost."""
        count = self.counts[input_type] - lost
        # Without a part of the instruction a text is like one that had none.
        if not lost or count > self.special:
            ids[:count] += self.offset
