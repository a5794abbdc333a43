"""Bytes of a file or of standard input as text and lines, and how their encoding is found.

A byte order mark at the beginning decides. Without a mark it is the encoding that was asked for. If
none was, it is UTF-8 where all bytes are, else GB 18030 where the result looks like Chinese. What is
known to be in another encoding than was asked for is refused: text that was decoded in a wrong way is
stored like any other, and no error would show it.

UTF-16 and UTF-32 without a mark are not guessed. Their texts in Latin letters are valid UTF-8, with a NUL
beside each letter, so they are noticed by their NULs and refused.

A file is examined as a whole before its first line is used. A pipe can be read only once, so its
first 64 KB that are not plain ASCII decide.
"""

import codecs
import encodings
import encodings.aliases
import io
import os
import pkgutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from server.errors import BadSettings
from server.sources.notes import Notes

READ_BYTES = 1 << 16
# Python's codecs in their normal form. At import: the process that reads files cannot list a folder later.
KNOWN = frozenset(
    (
        *(module.name for module in pkgutil.iter_modules(encodings.__path__)),
        *encodings.aliases.aliases,
    )
)
UTF_8, GB18030 = "utf-8", "gb18030"
# UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    ("\ufeff".encode(GB18030), GB18030),
)
MARK_BYTES = 4
# Least share of characters of GB 2312, the common ones, in text that is taken for GB 18030. Simplified
# Chinese has 0.996 (this project's README; its worst line 0.86), Chinese with traditional characters
# 0.83. Damaged UTF-8 has 0.7 at most (4,600 lines with a byte dropped), Big5 0.26, Shift JIS 0.
# Latin and Cyrillic encodings are not valid GB 18030 at all. Measured 2026-11-29.
COMMON_SHARE = 0.75
# The same bytes in EUC-JP are kana, half of a Japanese text, and in EUC-KR syllables, all of a Korean one.
# Of Chinese characters, these rows have half: in pinyin those from A to R.
KANA, KANA_SHARE = b"\xa4\xa5", 0.2
HANGUL, NO_LETTERS = bytes(range(0xB0, 0xC9)), bytes(range(0xA1, 0xB0))
# Korean of some length has so many different ones, and few others.
LEAST_HANGUL, HANJA_SHARE = 32, 0.15
# Least share of NULs in what is UTF-16 or UTF-32. Latin letters have 0.5 and 0.75; other texts none.
NUL_SHARE = 0.25
WIDE = ("utf-16", "utf-32")
# Characters of a line or of a file that is one document. A server takes bodies of 32 MB.
MOST_CHARACTERS = 32 * 1024 * 1024

Line = tuple[int, str, int]  # its number, from 1; its text without the end; bytes read so far
Sample = Callable[[], Iterator[bytes]]


def decoded(file: Path | None, encoding: str | None, notes: Notes) -> Iterator[tuple[str, int]]:
    """Yield text as it is read, each line end a line feed, with the number of bytes read so far.

    encoding: None to detect it. A byte order mark is left out. Raises BadSettings.
    """
    name, n_read = shown_name(file), 0
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    with _opened(file) as opened:
        decoder = _Decoder(name, encoding, notes)
        if is_regular(opened):
            decoder.examine(lambda: _pieces(opened, name), whole=True, first=True)
        for data in _pieces(opened, name):
            n_read += len(data)
            text = decoder.decode(data, n_read)
            yield newlines.decode(text, final=not data), n_read


def lines(file: Path | None, encoding: str | None, notes: Notes) -> Iterator[Line]:
    """Yield every line that a line feed or the end of the file closes; raises BadSettings."""
    number, n_read, length = 1, 0, 0
    parts: list[str] = []
    for text, n_read in decoded(file, encoding, notes):
        first, *others = text.split("\n")
        parts.append(first)
        length = len(others[-1]) if others else length + len(first)
        check_length(file, length)
        for other in others:
            yield number, "".join(parts), n_read
            number, parts = number + 1, [other]
    if last := "".join(parts):
        yield number, last, n_read


def check_length(file: Path | None, length: int) -> None:
    """Raise BadSettings for a text of so many characters that none of its kind can be stored."""
    if length > MOST_CHARACTERS:
        raise BadSettings(
            "{name} has a line or text of more than {most:,} characters; split it",
            name=shown_name(file),
            most=MOST_CHARACTERS,
        )


class _Decoder:
    """Decodes the pieces of one file, in the encoding that it chooses when it examines a sample."""

    def __init__(self, name: str, asked: str | None, notes: Notes) -> None:
        self._name, self._asked, self._notes = name, asked, notes
        self._encoding = asked or UTF_8
        self._decoder = _codec(self._encoding)
        self._examined = self._begun = False
        self._is_wide = codecs.lookup(self._encoding).name.startswith(WIDE)

    def examine(self, sample: Sample, *, whole: bool, first: bool) -> None:
        """Choose the encoding; raises BadSettings if it is not the one that was asked for.

        sample: yields the same pieces at each call. whole: they are the whole file. first: they
        begin where the file begins.
        """
        self._examined = True
        mark = _mark_of(next(sample())) if first else None
        if self._asked is not None:
            self._check(self._asked, mark, sample, whole)
            return
        if mark is None:
            self._refuse_wide(sample)
        if mark is not None:
            self._encoding = mark
        elif not _is_valid(UTF_8, sample, whole) and _is_chinese(sample, whole):
            self._encoding = GB18030
        # Else it is UTF-8; where it is not, decoding it names the wrong byte.
        self._decoder = _codec(self._encoding)
        if self._encoding != UTF_8:
            self._notes.found(self._encoding, self._name)

    def _check(self, asked: str, mark: str | None, sample: Sample, whole: bool) -> None:
        normal = codecs.lookup(asked).name
        # utf-16 also means the one of its two byte orders that the mark names.
        if mark is not None and normal not in (mark, mark[:-3], f"{mark}-sig"):
            raise BadSettings(
                "{name} begins with the byte order mark of {found}, so it is not {encoding}; leave "
                "out --encoding",
                name=self._name,
                found=mark,
                encoding=asked,
            )
        if mark is not None:
            return
        self._refuse_wide(sample)
        found = None
        if self._is_wide:
            found = _narrow(sample, whole)
        elif not normal.startswith("utf") and not _is_ascii(sample):
            found = "UTF-8" if _is_valid(UTF_8, sample, whole) else None
        if found:
            raise BadSettings(
                "{name} is valid {found}, and as {encoding} its characters would be wrong; leave out "
                "--encoding",
                name=self._name,
                found=found,
                encoding=asked,
            )

    def _refuse_wide(self, sample: Sample) -> None:
        """Refuse what is in UTF-16 or UTF-32, unless it is what was asked for."""
        found = _wide(sample)
        if found and not found.startswith(codecs.lookup(self._encoding).name):
            raise BadSettings(
                "{name} looks like {found} without a byte order mark; give --encoding {found}",
                name=self._name,
                found=found,
            )

    def decode(self, data: bytes, n_read: int) -> str:
        """Return the text of the next piece, b"" at the end; n_read: bytes up to its end."""
        if not self._examined and (self._is_wide or not data.isascii()):
            # What came before is ASCII, which is the same in every encoding that can be detected.
            self.examine(lambda: iter([data]), whole=False, first=n_read == len(data))
        elif not self._examined:
            self._refuse_wide(lambda: iter([data]))
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            # Bytes kept from the last piece come before these, so the place counts from the end.
            raise self._undecodable(n_read - len(error.object) + error.start) from None
        except UnicodeError:  # UTF-16 or UTF-32 without its mark
            raise self._undecodable(0) from None
        if text and not self._begun:
            self._begun = True
            return text.removeprefix("\ufeff")
        return text

    def _undecodable(self, offset: int) -> BadSettings:
        return BadSettings(
            "{name} is not {encoding}: wrong bytes at offset {offset}; name its encoding, for example "
            "--encoding {other}",
            name=self._name,
            encoding=self._encoding,
            offset=offset,
            other=UTF_8 if self._encoding.lower().startswith("gb") else GB18030,
        )


def _mark_of(head: bytes) -> str | None:
    """Return the encoding whose byte order mark is at the beginning."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)


def _wide(sample: Sample) -> str | None:
    """Return which UTF-16 or UTF-32 has so many NULs at such places; None for a text in neither."""
    counts, n_bytes = [0, 0, 0, 0], 0
    for data in sample():
        for place in range(4):
            counts[(n_bytes + place) % 4] += data[place::4].count(0)
        n_bytes += len(data)
    if sum(counts) <= NUL_SHARE * n_bytes:
        return None
    # In UTF-32 two of four bytes are NUL whatever the character.
    always = [0.9 * n_bytes < 4 * count for count in counts]
    if all(always[2:]) or all(always[:2]):
        return "utf-32-le" if always[3] else "utf-32-be"
    return "utf-16-le" if counts[0] + counts[2] < counts[1] + counts[3] else "utf-16-be"


def _narrow(sample: Sample, whole: bool) -> str | None:
    """Return the encoding of what is UTF-8 or GB 18030, and so is not UTF-16 or UTF-32."""
    if not any(sample()) or _wide(sample):
        return None
    if _is_valid(UTF_8, sample, whole):
        return "UTF-8"
    # Of Chinese in UTF-16 no pair of bytes is a common character of GB 18030.
    return "GB 18030" if _is_chinese(sample, whole) else None


def _is_ascii(sample: Sample) -> bool:
    return all(data.isascii() for data in sample())


def _is_valid(encoding: str, sample: Sample, whole: bool) -> bool:
    try:
        for _ in _texts(encoding, sample, whole):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _is_chinese(sample: Sample, whole: bool) -> bool:
    """Return whether it is valid GB 18030, mostly of common characters, and not Japanese or Korean."""
    number = common = kana = 0
    different = set[str]()
    try:
        for text in _texts(GB18030, sample, whole):
            rows = _rows(text)
            number += len(text) - len(text.encode("ascii", "ignore"))
            # Python's gb2312 has look-alikes in the place of these two.
            common += len(rows) + text.count("—") + text.count("·")
            kana += len(rows) - len(rows.translate(None, KANA))
            different.update(text)
    except UnicodeDecodeError:
        return False
    if not number or common < COMMON_SHARE * number or kana > KANA_SHARE * number:
        return False
    letters = _rows("".join(different)).translate(None, NO_LETTERS)
    others = len(letters.translate(None, HANGUL))
    return len(letters) < LEAST_HANGUL or others > HANJA_SHARE * len(letters)


def _rows(text: str) -> bytes:
    """Return a byte for each character of GB 2312 that is not ASCII: its row, as its first byte there."""
    return text.encode("gb2312", "ignore").translate(None, bytes(range(0x80)))[::2]


def is_chinese(data: bytes) -> bool:
    """Return whether bytes are GB 18030 whose characters are mostly common ones."""
    return _is_chinese(lambda: iter([data]), True)


def _texts(encoding: str, sample: Sample, whole: bool) -> Iterator[str]:
    """Yield the text of a sample; a character that it cuts off at its end is no error."""
    decoder = _codec(encoding)
    for data in sample():
        yield decoder.decode(data)
    if whole:
        yield decoder.decode(b"", final=True)


def check_encoding(encoding: str | None) -> None:
    """Raise BadSettings for an encoding that is unknown; None is fine."""
    if encoding is not None:
        _codec(encoding)


def _codec(encoding: str) -> codecs.IncrementalDecoder:
    try:
        # subtle: Python keeps every unknown name that is looked up, for good.
        if _normal(encoding) not in KNOWN:
            raise LookupError(encoding)
        "".encode(encoding)  # raises for a codec that is not a text encoding
        return codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError):
        raise BadSettings(
            "--encoding {encoding} is unknown; examples: utf-8, gb18030, utf-16", encoding=encoding
        ) from None


def _normal(encoding: str) -> str:
    return encodings.normalize_encoding(encoding).replace(".", "_").lower()


def is_regular(file: BinaryIO) -> bool:
    """Return whether a file can be read twice, unlike a pipe or standard input."""
    if isinstance(file, io.BytesIO):
        return True
    return file is not sys.stdin.buffer and stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def can_be_read_twice(file: Path | None) -> bool:
    """Return whether a source is a file on a disk, which can be examined before it is read."""
    return file is not None and file.is_file()


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    with reading(shown_name(file)):
        opened = file.open("rb")
    with opened:
        yield opened


def _pieces(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the bytes of a file, from its beginning where it has one, and b"" at the end."""
    if is_regular(file):
        file.seek(0)
    size, data = max(READ_BYTES, MARK_BYTES), b"-"
    while data:
        with reading(name):
            data = file.read(size)
        yield data
        size = READ_BYTES


def shown_name(file: Path | str | None) -> str:
    """Return the name of a file as text; bytes that are not UTF-8 are escaped."""
    return "<stdin>" if file is None else escaped(str(file))


def escaped(name: str) -> str:
    r"""Return a file's name with bytes that are not UTF-8 as escapes: "\xd6\xd0.txt"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise BadSettings for a file that cannot be read."""
    try:
        yield
    except OSError as error:
        where = shown_name(error.filename or name)
        raise BadSettings(
            "{where} cannot be read: {strerror}", where=where, strerror=error.strerror
        ) from None
