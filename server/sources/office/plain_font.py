"""The font that PDFium uses in place of one that a file names and does not contain.

PDFium looks for such fonts among those of the machine. The process that reads files can open none. A machine
without fonts, such as most containers, has none either, and PDFium then drops lines whose characters have no
shape. So every character gets the same shape here, a square. Only the text of a file is read, not its look.
PDFium has fonts for Latin letters and symbols built in.
"""

import ctypes
import struct
from typing import Any

import pypdfium2.raw as raw

UNITS = 1000  # of the side of a letter
# What PDFium calls the scripts that it has fonts for.
BUILT_IN = {raw.FXFONT_ANSI_CHARSET, raw.FXFONT_DEFAULT_CHARSET, raw.FXFONT_SYMBOL_CHARSET}


def font() -> bytes:
    """Return a TrueType font whose one glyph, for every character, is a square."""
    corners = ((0, 0), (0, 800), (800, 800), (800, 0))
    steps = [
        (0, 0),
        *((b[0] - a[0], b[1] - a[1]) for a, b in zip(corners, corners[1:], strict=False)),
    ]
    glyph = struct.pack(">5h2H4B", 1, 0, 0, 800, 800, 3, 0, 1, 1, 1, 1)
    glyph += b"".join(struct.pack(">h", x) for x, _ in steps)
    glyph += b"".join(struct.pack(">h", y) for _, y in steps)
    tables = {
        # Format 13: one glyph for all characters of a range.
        b"cmap": struct.pack(">HHHHIHHIIIIII", 0, 1, 3, 10, 12, 13, 0, 28, 0, 1, 0, 0x10FFFF, 1),
        b"glyf": glyph,
        b"head": struct.pack(
            ">IIIIHHQQ4hHHhhh",
            0x10000,
            0,
            0,
            0x5F0F3CF5,
            0,
            UNITS,
            0,
            0,
            0,
            0,
            800,
            800,
            0,
            8,
            2,
            1,
            0,
        ),
        b"hhea": struct.pack(">I3hH11hH", 0x10000, 800, 0, 0, UNITS, *(0,) * 11, 2),
        b"hmtx": struct.pack(">HhHh", UNITS, 0, UNITS, 0),
        b"loca": struct.pack(">III", 0, 0, len(glyph)),
        b"maxp": struct.pack(">I14H", 0x10000, 2, 4, 1, *(0,) * 11),
    }
    head = struct.pack(">IHHHH", 0x10000, len(tables), 64, 2, len(tables) * 16 - 64)
    place = len(head) + 16 * len(tables)
    directory, body = b"", b""
    for name, data in tables.items():
        directory += struct.pack(">4sIII", name, 0, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    return head + directory + body


FONT = font()
_kept: list[Any] = []  # what PDFium refers to must stay in memory


def install() -> None:
    """Have PDFium use this font in place of those of the machine."""

    def map_font(_: Any, weight: int, italic: int, charset: int, *__: Any) -> int:
        return 0 if charset in BUILT_IN else 1

    def data_of(_: Any, __: Any, table: int, buffer: Any, size: int) -> int:
        data = FONT if table == 0 else table_of(table)
        if buffer and size >= len(data):
            ctypes.memmove(buffer, data, len(data))
        return len(data)

    def nothing(*_: Any) -> int:
        return 0

    info = raw.FPDF_SYSFONTINFO()
    info.version = 1
    kinds = dict(raw.FPDF_SYSFONTINFO._fields_)
    for name, function in (
        ("MapFont", map_font),
        ("GetFontData", data_of),
        ("GetFaceName", nothing),
        ("GetFontCharset", nothing),
    ):
        setattr(info, name, kinds[name](function))
    _kept.append(info)
    raw.FPDF_SetSystemFontInfo(info)


def table_of(number: int) -> bytes:
    """Return one table of the font, whose name is the number's bytes; empty for another one."""
    name = number.to_bytes(4, "big")
    for entry in range(12, 12 + 16 * struct.unpack(">H", FONT[4:6])[0], 16):
        found, _, begin, size = struct.unpack(">4sIII", FONT[entry : entry + 16])
        if found == name:
            return FONT[begin : begin + size]
    return b""
