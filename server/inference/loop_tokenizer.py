"""A model's tokenizer on the event loop: long work is cut into slices or done in a thread."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from server.errors import InvalidRequest, RequestTooLarge
from server.inference.tokenizer import Kept, Token, Tokenizer
from server.system.turns import Turns
from server.types import Ids, InputType, Tokens

T = TypeVar("T")

# Characters tokenised before other requests get a turn on the loop: about 2 ms of work.
SLICE_CHARACTERS = 2048
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
        encode: Callable[[Sequence[str], InputType], Tokens] = self._tokenizer.encode
        if keep == "end":
            encode = partial(self._tokenizer.encode, keep=keep)
        try:
            if sum(map(len, texts)) <= SLICE_CHARACTERS:
                return encode(texts, input_type)
            return await _in_slices(encode, texts, input_type, check_room)
        except UnicodeEncodeError as error:
            index = next(place for place, text in enumerate(texts) if not _is_unicode(text))
            raise InvalidRequest(
                f"text {index} is not valid Unicode, and UTF-8 cannot hold it: {error.reason}"
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
        for begin, end in _slices(texts):
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
    encode: Callable[[Sequence[str], InputType], Tokens],
    texts: Sequence[str],
    input_type: InputType,
    check_room: CheckRoom,
) -> Tokens:
    ids: list[Ids] = []
    truncated: list[int] = []
    found = 0
    for begin, end in _slices(texts):
        # No text has less than one token.
        check_room(found + len(texts) - begin)
        part = texts[begin:end]
        tokens = await _beside(sum(map(len, part)), partial(encode, part, input_type))
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


def _slices(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return consecutive ranges of about SLICE_CHARACTERS characters, each at least one text."""
    bounds, begin, size = [], 0, 0
    for index, text in enumerate(texts):
        if size and size + len(text) > SLICE_CHARACTERS:
            bounds.append((begin, index))
            begin, size = index, 0
        size += len(text)
    return [*bounds, (begin, len(texts))]
