"""Counts the values of a large JSON body before it is decoded: small values are what costs.

The decoder holds the interpreter lock until it ends. 32 MB of long texts take 0.15 s, and as many bytes of
one-letter documents 5 s (2026-11-29, 2 cores). So a body with too many values is refused first. Counting
gives the lock up again and again, wherever it runs.
"""

import re
from typing import NamedTuple

from server.errors import RequestTooLarge

# Bodies up to this size are not counted: what they can hold is decoded in some 0.1 s.
UNCOUNTED_BYTES = 1 << 18
# A list or an object takes 2 us to decode, a text 0.1 us, a number less. 2,048 texts of 512 token ids each are a
# million values in 2,049 lists; 10,000 documents with metadata are 20,001 objects.
MAX_CONTAINERS, MAX_VALUES = 100_000, 1_100_000
# Bytes that one call looks at.
SLICE = 1 << 16
# Levels at which decoding fails.
TOO_DEEP = 2_000
QUOTE, BACKSLASH = b'"', 0x5C
# A text, or the beginning of one at the end of a slice. subtle: without the second, and with quantifiers that
# give back what they took, a slice of quotes takes quadratic time.
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("|\\?\Z)', re.DOTALL)


class Size(NamedTuple):
    """Lists and objects of a JSON text, and its commas: it has at most one more value a container."""

    containers: int
    commas: int

    @property
    def fits(self) -> bool:
        return self.containers <= MAX_CONTAINERS and self.commas <= MAX_VALUES


def check_size(body: bytes) -> None:
    """Raise RequestTooLarge for a body with more values than one request may have; from any thread."""
    # What texts contain only adds to this count, so most bodies need no closer look.
    if _with_texts(body).fits:
        return
    size = _outside_texts(body)
    if not size.fits:
        raise RequestTooLarge(
            f"the body has more than {MAX_CONTAINERS} lists and objects, or more than {MAX_VALUES}"
            " values; send fewer at once"
        )


def _with_texts(body: bytes) -> Size:
    """Count everywhere, also inside of texts."""
    containers = commas = 0
    for start in range(0, len(body), SLICE):
        stop = start + SLICE
        containers += body.count(b"{", start, stop) + body.count(b"[", start, stop)
        commas += body.count(b",", start, stop)
    return Size(containers, commas)


def _outside_texts(body: bytes) -> Size:
    """Count what stands outside of texts, up to the first count that does not fit.

    It also ends at a depth that the decoder refuses without reading on.
    """
    size, depth, place = Size(0, 0), 0, 0
    while size.fits and place < len(body):
        rest, place = _without_texts(body, place)
        opened = rest.count(b"{") + rest.count(b"[")
        depth += opened - rest.count(b"}") - rest.count(b"]")
        if depth > TOO_DEEP:
            break
        size = Size(size.containers + opened, size.commas + rest.count(b","))
    return size


def _without_texts(body: bytes, place: int) -> tuple[bytes, int]:
    """Return a slice of the body, which begins outside of a text, without its texts, and where it ends."""
    end = min(place + SLICE, len(body))
    rest = TEXT.sub(_unless_whole, body[place:end])
    quote = rest.find(QUOTE)
    if quote < 0:
        return rest, end
    # A text begins in this slice and does not end in it.
    begin = end - (len(rest) - quote)
    return rest[:quote], _text_end(body, begin + 1)


def _unless_whole(text: re.Match[bytes]) -> bytes:
    return b"" if text[1] == QUOTE else text[0]


def _text_end(body: bytes, place: int) -> int:
    """Return where the text that begins at `place` ends, behind its quote."""
    while (end := body.find(QUOTE, place)) >= 0:
        first = end
        while first > place and body[first - 1] == BACKSLASH:
            first -= 1
        if (end - first) % 2 == 0:
            return end + 1
        place = end + 1
    return len(body)
