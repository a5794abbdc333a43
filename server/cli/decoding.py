"""Bytes of a file or of standard input as text and lines."""

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from server.errors import BadSettings

READ_BYTES = 1 << 16

Line = tuple[int, str, int]  # its number, from 1; its text without the end; bytes read so far


def decoded(file: Path | None, encoding: str) -> Iterator[tuple[str, int]]:
    """Yield text as it is read, each line end a line feed, with the number of bytes read so far."""
    name = shown_name(file)
    text_of = io.IncrementalNewlineDecoder(decoder(encoding), translate=True)
    n_read, data = 0, b"-"
    with _opened(file) as opened:
        while data:
            with reading(name):
                data = opened.read(READ_BYTES)
            n_read += len(data)
            try:
                text = text_of.decode(data, final=not data)
            except UnicodeDecodeError as error:
                # Bytes kept from the last read come before these, so the place counts from the end.
                offset = n_read - len(error.object) + error.start
                raise _undecodable(name, encoding, offset) from None
            except UnicodeError:  # UTF-16 or UTF-32 without its mark
                raise _undecodable(name, encoding, 0) from None
            yield text, n_read


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    with reading(shown_name(file)):
        opened = file.open("rb")
    with opened:
        yield opened


def lines(file: Path | None, encoding: str) -> Iterator[Line]:
    """Yield every line that a line feed or the end of the file closes."""
    number, n_read = 1, 0
    parts: list[str] = []
    for text, n_read in decoded(file, encoding):
        first, *others = text.split("\n")
        parts.append(first)
        for other in others:
            yield number, "".join(parts), n_read
            number, parts = number + 1, [other]
    if last := "".join(parts):
        yield number, last, n_read


def decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Return a decoder; raises BadSettings for an unknown encoding."""
    try:
        "".encode(encoding)  # raises for a codec that is not a text encoding
        name = codecs.lookup(encoding).name
    except LookupError:
        raise BadSettings(
            "--encoding {encoding} is unknown; examples: utf-8, gb18030, utf-16", encoding=encoding
        ) from None
    # Windows editors put a byte order mark before UTF-8; it does not belong to the first text.
    return codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()


def _undecodable(name: str, encoding: str, offset: int) -> BadSettings:
    return BadSettings(
        "{name} is not {encoding}: wrong bytes at offset {offset}; name its encoding, for example "
        "--encoding {other}",
        name=name,
        encoding=encoding,
        offset=offset,
        other=other_than(encoding),
    )


def other_than(encoding: str) -> str:
    """Return an encoding to try in place of one that did not fit."""
    return "utf-8" if encoding.lower().startswith("gb") else "gb18030"


def shown_name(file: Path | str | None) -> str:
    """Return the name of a file for errors; bytes that are not UTF-8 are escaped."""
    return "<stdin>" if file is None else str(file).encode(errors="backslashreplace").decode()


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
