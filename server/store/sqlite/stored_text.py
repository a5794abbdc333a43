"""Texts as the database keeps them: as they are, or packed into bytes where that takes less room.

A Chinese character has three bytes in UTF-8 and two in UTF-16, and repeats much that deflate finds. So a
law article of 401 bytes takes 202 (20 us to pack, 3 to read, 2026-11-30). Texts of more than MOST characters
stay as they are: a hit reads a document's whole text, and most of the room of a long document goes to its
vectors anyway.

A packed text is a byte that names the encoding, and what raw deflate makes of the encoded text.
"""

import zlib
from typing import Final

# Characters of a text that may be packed: reading one takes 20 us at most.
LEAST, MOST = 24, 4096
UTF8, UTF16 = 1, 2
ENCODINGS: Final = {UTF8: "utf-8", UTF16: "utf-16-le"}
# Bytes of an encoded text of MOST characters.
MOST_BYTES = 4 * MOST
RAW = -15  # deflate without a header or a checksum: a row has its own


def stored(text: str) -> str | bytes:
    """Return what the database keeps of a text."""
    if not LEAST <= len(text) <= MOST:
        return text
    plain, wide = text.encode(), text.encode(ENCODINGS[UTF16])
    kind, encoded = (UTF16, wide) if len(wide) < len(plain) else (UTF8, plain)
    packed = bytes([kind]) + zlib.compress(encoded, wbits=RAW)
    return packed if len(packed) < len(plain) else text


def unpacked(kept: str | bytes) -> str:
    """Return the text of what the database keeps; raises ValueError for what `stored` never returns."""
    if isinstance(kept, str):
        return kept
    if not isinstance(kept, bytes) or not kept or kept[0] not in ENCODINGS:
        raise ValueError("a text is neither one nor packed")
    try:
        inflating = zlib.decompressobj(wbits=RAW)
        # A damaged one must not become gigabytes.
        encoded = inflating.decompress(kept[1:], MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"a packed text is damaged: {error}") from None
    if not inflating.eof or inflating.unused_data:
        raise ValueError("a packed text is damaged: it has another length")
    return encoded.decode(ENCODINGS[kept[0]])
