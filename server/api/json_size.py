"""Counts the values of a large JSON body before it is decoded: small values are what costs.

The decoder holds the interpreter lock until it ends. 32 MB of long texts take 0.15 s, and as many bytes of
one-letter documents 5 s (2026-11-29, 2 cores). So a body with too many values is refused first. Counting
gives the lock up again and again, wherever it runs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from server.errors import RequestTooLarge

# Bodies up to this size are not counted: what they can hold is decoded in some 0.1 s.
UNCOUNTED_BYTES = 1 << 18
# A list or an object takes 2 us to decode, a text 0.1 us, a number less. 2,048 texts of 512 token ids each are a
# million values in 2,049 lists; 10,000 documents with metadata are 20,001 objects.
MAX_CONTAINERS, MAX_VALUES = 100_000, 1_100_000
# Different keys of one object take 0.2 us each, and 0.4 us where there are a million. So many keys are possible
# in any case, and so many for each list and object: more than a document's metadata may have.
MAX_KEYS, KEYS_EACH = 250_000, 5_000
# Bytes that one call looks at.
SLICE = 1 << 16
# Levels at which decoding fails.
TOO_DEEP = 2_000
QUOTE = 0x22


class Size(NamedTuple):
    """Lists and objects of a JSON text, and its commas: it has at most one more value a container.

    keys: its colons.
    """

    containers: int
    commas: int
    keys: int

    @property
    def is_wide(self) -> bool:
        """Whether it has more keys than its lists and objects need."""
        return self.keys > max(MAX_KEYS, KEYS_EACH * self.containers)

    @property
    def fits(self) -> bool:
        few = self.containers <= MAX_CONTAINERS and self.commas <= MAX_VALUES
        return few and not self.is_wide


def check_size(body: bytes) -> None:
    """Raise RequestTooLarge for a body with more values than one request may have; from any thread."""
    # What texts contain only adds to this count, so most bodies need no closer look.
    if _with_texts(body).fits:
        return
    size = _outside_texts(body)
    if size.is_wide:
        raise RequestTooLarge(
            f"the body has more than {MAX_KEYS} keys in {size.containers} lists and objects; send fewer at once"
        )
    if not size.fits:
        raise RequestTooLarge(
            f"the body has more than {MAX_CONTAINERS} lists and objects, or more than {MAX_VALUES}"
            " values; send fewer at once"
        )


def _with_texts(body: bytes) -> Size:
    """Count everywhere, also inside of texts."""
    containers = commas = keys = 0
    for start in range(0, len(body), SLICE):
        stop = start + SLICE
        containers += body.count(b"{", start, stop) + body.count(b"[", start, stop)
        commas += body.count(b",", start, stop)
        keys += body.count(b":", start, stop)
    return Size(containers, commas, keys)


def _outside_texts(body: bytes) -> Size:
    """Count what stands outside of texts, up to the first count that does not fit.

    It also ends at a depth that the decoder refuses without reading on.
    """
    size, depth = Size(0, 0, 0), 0
    for rest in _without_texts(body):
        opened = rest.count(b"{") + rest.count(b"[")
        depth += opened - rest.count(b"}") - rest.count(b"]")
        if depth > TOO_DEEP:
            break
        size = Size(
            size.containers + opened, size.commas + rest.count(b","), size.keys + rest.count(b":")
        )
        # Lists and objects that come later may make room for keys.
        if not size._replace(keys=0).fits:
            break
    return size


def _without_texts(body: bytes) -> Iterator[bytes]:
    """Yield the body slice by slice, without what stands inside of texts.

    A byte is inside of a text if the quotes up to it are an odd number. Escaped ones are no quotes.
    """
    inside = escaped = False
    for start in range(0, len(body), SLICE):
        piece = body[start : start + SLICE]
        if escaped:
            piece = b"_" + piece[1:]
        piece = piece.replace(b"\\\\", b"__")
        escaped = piece.endswith(b"\\")
        codes = np.frombuffer(piece.replace(b'\\"', b"__"), np.uint8)
        within = np.bitwise_xor.accumulate(codes == QUOTE) ^ inside
        inside = bool(within[-1])
        yield codes[~within].tobytes()
