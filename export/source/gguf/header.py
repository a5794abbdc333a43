"""Reads the head of a GGUF file: its settings, and where its tensors lie.

Nothing in the file is trusted. Counts and sizes are checked against bounds and against the file before memory is
spent on them, and each tensor must lie inside the file. No package is needed.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from export.errors import CorruptFile, UnsupportedModel
from export.source.file import open_file
from server.messages.message import Message

MAGIC, VERSIONS = b"GGUF", (2, 3)
# The largest known models have some hundred settings, and a thousand tensors.
MOST_SETTINGS, MOST_TENSORS = 4_096, 65_536
# Of names; of a text, such as a chat template or the table of a normaliser; of all arrays together.
LONGEST_NAME, LONGEST_TEXT, MOST_VALUES = 1_024, 4 * 1024 * 1024, 4_000_000
MOST_DIMENSIONS, MOST_NUMBERS = 4, 2**40
# Kinds of values by their number: those with a format of `struct`, then texts and arrays.
NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
USUAL_ALIGNMENT, MOST_ALIGNMENT = 32, 65_536

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor in the file: its shape with the rows first, the number of its type, and its place."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a file. end: where the tensors begin, from which their offsets count. size: of the file."""

    settings: Settings
    tensors: Mapping[str, Placed]
    end: int
    size: int


def read_header(path: Path) -> Header:
    """Return the head of a GGUF file; raises CorruptFile, or UnsupportedModel for another version."""
    with open_file(path) as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError) as error:
            raise CorruptFile(
                "{path} is no whole GGUF file: {error}", path=path, error=error
            ) from None
        with content:
            return _Reader(path, content).header()


class _Reader:
    """Reads values one after the other."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._size = len(content)
        self._at = 0
        self._values = 0

    def header(self) -> Header:
        if self._bytes(4) != MAGIC:
            self._fail(Message("it does not begin with GGUF"))
        version = self._number("I")
        if version not in VERSIONS:
            raise UnsupportedModel(
                "{path} has version {version} of GGUF, or another byte order; versions {known} are read",
                path=self._path,
                version=version,
                known=str(VERSIONS)[1:-1],
            )
        n_tensors = self._count(MOST_TENSORS)
        n_settings = self._count(MOST_SETTINGS)
        settings = dict(self._settings(n_settings))
        tensors = dict(self._tensors(n_tensors))
        if len(settings) < n_settings or len(tensors) < n_tensors:
            self._fail(Message("it has two entries of one name"))
        alignment = settings.get("general.alignment", USUAL_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= MOST_ALIGNMENT:
            self._fail(Message("its alignment is no number that is used"))
        return Header(settings, tensors, -(-self._at // alignment) * alignment, self._size)

    def _settings(self, number: int) -> Iterator[tuple[str, Any]]:
        for _ in range(number):
            yield self._text(LONGEST_NAME), self._value(self._number("I"))

    def _tensors(self, number: int) -> Iterator[tuple[str, Placed]]:
        for _ in range(number):
            name = self._text(LONGEST_NAME)
            n_dimensions = self._number("I")
            if not 1 <= n_dimensions <= MOST_DIMENSIONS:
                self._fail(Message("a tensor has an impossible shape"))
            dimensions = [self._number("Q") for _ in range(n_dimensions)]
            if not 1 <= math.prod(dimensions) <= MOST_NUMBERS:
                self._fail(Message("a tensor has an impossible shape"))
            kind, offset = self._number("I"), self._number("Q")
            yield name, Placed(tuple(reversed(dimensions)), kind, offset)

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text(LONGEST_TEXT)
        if kind == ARRAY:
            return self._array()
        if kind not in NUMBERS:
            self._fail(Message("a setting is of an unknown type"))
        return self._number(NUMBERS[kind])

    def _array(self) -> list[Any]:
        kind, length = self._number("I"), self._number("Q")
        self._values += length
        if self._values > MOST_VALUES:
            self._fail(Message("its lists are longer than any that is known"))
        if kind == TEXT:
            return [self._text(LONGEST_NAME) for _ in range(length)]
        if kind not in NUMBERS:
            self._fail(Message("a setting is of an unknown type"))
        form = f"<{length}{NUMBERS[kind]}"
        return list(struct.unpack(form, self._bytes(struct.calcsize(form))))

    def _count(self, most: int) -> int:
        count = self._number("Q")
        if count > most:
            self._fail(Message("it has more entries than any model has"))
        return int(count)

    def _text(self, most: int) -> str:
        length = self._number("Q")
        if length > most:
            self._fail(Message("a text in it is longer than any that is known"))
        try:
            return self._bytes(length).decode()
        except UnicodeDecodeError:
            self._fail(Message("a text in it is not UTF-8"))

    def _number(self, form: str) -> Any:
        form = f"<{form}"
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, length: int) -> bytes:
        begin = self._at
        self._at += length
        if self._at > self._size:
            self._fail(Message("it ends too early"))
        return self._content[begin : self._at]

    def _fail(self, error: Message) -> NoReturn:
        raise CorruptFile("{path} is no whole GGUF file: {error}", path=self._path, error=error)
