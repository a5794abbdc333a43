"""A model's tokenizer on the event loop: long work is cut into slices or done in a thread."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from server.errors import InvalidRequest, RequestTooLarge
from server.inference.tokenization.pairs import Bare, Template
from server.inference.tokenizer import Kept, Token, Tokenizer
from server.system.turns import Turns
from server.types import Ids, InputType, Pair, Tokens

T = TypeVar("T")
Item = TypeVar("Item")

# Characters tokenised before other requests get a turn on the loop: about 2 ms of work.
SLICE_CHARACTERS = 2048
# Characters that are tokenised in the time in which the tokens of two texts are joined: 20 µs.
JOINED_CHARACTERS = 16
# A slice of pairs longer than this is tokenised in a thread.
LONG_CHARACTERS = 4 * SLICE_CHARACTERS
# A single text larger than this is tokenised in a thread: handing it over costs 0.1 ms, and 10 MB
# without a space take seconds.
HUGE_CHARACTERS = 65_536
# Most characters of texts whose tokens are listed, and most token ids that are decoded: a token takes 70
# bytes of the reply, and 200 before.
MAX_LISTED_CHARACTERS = 262_144

# Long listings and decodings run one at a time: each holds the interpreter lock again and again, and with
# eight of them at once other requests waited 2 s (2026-11-29, 2 cores).
LISTING = Turns(1)

# Called with a lower bound of the tokens that a request has; raises where there is no room for them.
CheckRoom = Callable[[int], None]


class LoopTokenizer:
    """Tokenises texts without keeping the event loop from others."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def encode(
        self, texts: Sequence[str], input_type: InputType, keep: Kept, check_room: CheckRoom
    ) -> Tokens:
        """Return what the tokenizer's `encode` does; raises InvalidRequest and what check_room raises."""
        encode = partial(self._tokenizer.encode, input_type=input_type)
        if keep == "end":
            encode = partial(encode, keep=keep)
        sizes = [len(text) for text in texts]
        try:
            return await _in_slices(encode, texts, sizes, check_room)
        except UnicodeEncodeError as error:
            index = next(place for place, text in enumerate(texts) if not _is_unicode(text))
            raise InvalidRequest(
                f"text {index} is not valid Unicode, and UTF-8 cannot hold it: {error.reason}"
            ) from None

    async def encode_pairs(
        self,
        pairs: Sequence[Pair],
        keep: Kept,
        check_room: CheckRoom,
        template: Template | None = None,
    ) -> Tokens:
        """Return what the tokenizer's `encode_pairs` does; raises what `encode` raises.

        A first text is read once for all pairs that follow with it, also in other slices.
        """
        known: dict[str, Bare] = {}
        read = self._tokenizer.encode_pairs
        encode = partial(read, keep=keep, known=known, template=template)
        sizes = _pair_sizes(pairs)
        try:
            return await _in_slices(encode, pairs, sizes, check_room, LONG_CHARACTERS)
        except UnicodeEncodeError as error:
            index = next(
                place for place, pair in enumerate(pairs) if not all(map(_is_unicode, pair))
            )
            raise InvalidRequest(
                f"text {index} or its query is not valid Unicode, and UTF-8 cannot hold it:"
                f" {error.reason}"
            ) from None

    async def length(self, text: str, input_type: InputType) -> int | None:
        """Return a text's tokens without a maximum; None for a huge text, which would take seconds."""
        if len(text) > HUGE_CHARACTERS:
            return None
        count = partial(self._tokenizer.length, text, input_type)
        return await _beside(len(text), count, most=SLICE_CHARACTERS)

    async def tokens(
        self, texts: Sequence[str], input_type: InputType, *, special: bool
    ) -> list[list[Token]]:
        """Return the tokens of each text as a whole, beyond what the model reads."""
        _check_listed(sum(map(len, texts)), "characters")
        tokenise = partial(self._tokenizer.tokens, input_type=input_type, special=special)
        found: list[list[Token]] = []
        for begin, end in _slices([len(text) for text in texts]):
            part = texts[begin:end]
            size = sum(map(len, part))
            found += await _listed(size, partial(tokenise, part))
            await asyncio.sleep(0)
        return found

    async def decode(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """Return the text of each row of token ids."""
        size = sum(map(len, ids))
        _check_listed(size, "token ids")
        decode = partial(self._tokenizer.decode, skip_special=skip_special)
        try:
            return await _listed(size, partial(decode, ids))
        except ValueError as error:
            raise InvalidRequest(str(error), param="ids") from None


async def _in_slices(
    encode: Callable[[Sequence[Item]], Tokens],
    items: Sequence[Item],
    sizes: Sequence[int],
    check_room: CheckRoom,
    on_loop: int = HUGE_CHARACTERS,
) -> Tokens:
    """Return the tokens of all items.

    sizes: their characters. on_loop: the most characters of a slice that needs no thread.
    """
    if sum(sizes) <= SLICE_CHARACTERS:
        return encode(items)
    ids: list[Ids] = []
    truncated: list[int] = []
    found = 0
    for begin, end in _slices(sizes):
        # Nothing has less than one token.
        check_room(found + len(items) - begin)
        tokens = await _beside(sum(sizes[begin:end]), partial(encode, items[begin:end]), on_loop)
        ids += tokens.ids
        found += sum(map(len, tokens.ids))
        truncated += (begin + index for index in tokens.truncated)
        await asyncio.sleep(0)
    return Tokens(ids, truncated)


async def _beside(characters: int, work: Callable[[], T], most: int = HUGE_CHARACTERS) -> T:
    """Return what `work` returns; it runs in a thread if it is about more than `most` characters."""
    return await asyncio.to_thread(work) if characters > most else work()


async def _listed(size: int, work: Callable[[], T]) -> T:
    """Return what `work` returns; where it is long, no other such work runs meanwhile."""
    if size <= SLICE_CHARACTERS:
        return work()
    async with LISTING.here():
        return await _beside(size, work, most=SLICE_CHARACTERS)


def _is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_listed(count: int, what: str) -> None:
    if count > MAX_LISTED_CHARACTERS:
        raise RequestTooLarge(
            f"the request has {count} {what}, at most {MAX_LISTED_CHARACTERS} are taken at once"
        )


def _pair_sizes(pairs: Sequence[Pair]) -> list[int]:
    """Return the characters of each pair; a first text counts once for all pairs of it that follow."""
    sizes, last = [], None
    for first, second in pairs:
        read = len(second) if first is last else len(first) + len(second)
        sizes.append(JOINED_CHARACTERS + read)
        last = first
    return sizes


def _slices(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return consecutive ranges of about SLICE_CHARACTERS characters, each at least one text."""
    bounds, begin, total = [], 0, 0
    for index, size in enumerate(sizes):
        if total and total + size > SLICE_CHARACTERS:
            bounds.append((begin, index))
            begin, total = index, 0
        total += size
    return [*bounds, (begin, len(sizes))]
