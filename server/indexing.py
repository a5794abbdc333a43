"""A text file into a collection, one document a line; what is stored already is not embedded again.

Every batch is committed when it is done: an interruption loses at most one, and running the same
command again takes up where it stopped.
"""

import codecs
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from server.errors import BadSettings
from server.store.collection import Collection
from server.store.documents import Document
from server.types import Vectors

STDIN = "-"
CHUNK_BYTES = 1 << 16
PLAIN_PROGRESS_S = 10.0  # a log wants a line now and then, a terminal one that moves


@dataclass(frozen=True, slots=True)
class Indexed:
    """What was done; a line that comes twice counts once as added and once as unchanged."""

    added: int
    unchanged: int
    seconds: float


def index_texts(
    collection: Collection,
    embed: Callable[[Sequence[str]], Vectors],
    source: str,
    *,
    clock: Callable[[], float],
    encoding: str = "utf-8",
    batch_size: int = 256,
    progress: TextIO | None = None,
) -> Indexed:
    """Read `source`, a path or "-" for standard input, and store each line that is not blank.

    embed: texts to float32 (B, D), as documents. progress: where to tell, standard error if None.
    Raises BadSettings where the source cannot be opened or is not in this encoding.
    """
    started = clock()
    added = unchanged = 0
    with _opened(source) as (file, size):
        lines = _lines(file, source, encoding)
        meter = _Meter(progress or sys.stderr, clock, size)
        try:
            while batch := list(islice(lines, batch_size)):
                n_fresh = _store(collection, embed, [text for text, _ in batch])
                added += n_fresh
                unchanged += len(batch) - n_fresh
                meter.show(added, unchanged, batch[-1][1])
        finally:
            meter.finish()
    return Indexed(added, unchanged, clock() - started)


def text_id(text: str) -> str:
    """80 bits of SHA-256: among ten million texts, two share an id with chance 4e-11."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _store(
    collection: Collection, embed: Callable[[Sequence[str]], Vectors], texts: Sequence[str]
) -> int:
    """Embed and commit those that are new; returns how many that were."""
    by_id = {text_id(text): text for text in texts}
    known = collection.unchanged(by_id)
    fresh = [Document(id, text) for id, text in by_id.items() if id not in known]
    if fresh:
        collection.add(fresh, embed([document.text for document in fresh]))
    return len(fresh)


@contextmanager
def _opened(source: str) -> Iterator[tuple[BinaryIO, int]]:
    """The source as bytes, and how many there are, 0 if unknown."""
    if source == STDIN:
        yield sys.stdin.buffer, 0
        return
    try:
        file = Path(source).open("rb")
    except OSError as error:
        raise BadSettings(
            f"{source} cannot be read: {error.strerror}", f"{source} 无法读取：{error.strerror}"
        ) from None
    with file:
        yield file, os.fstat(file.fileno()).st_size


def _lines(file: BinaryIO, source: str, encoding: str) -> Iterator[tuple[str, int]]:
    """Lines that are not blank, stripped, each with the number of bytes read so far."""
    decoder = io.IncrementalNewlineDecoder(_decoder(encoding), translate=True)
    rest, n_read, chunk = "", 0, b"-"
    while chunk:
        chunk = file.read(CHUNK_BYTES)
        n_read += len(chunk)
        try:
            rest += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            # Bytes kept from the last chunk come before this one, so the place counts from its end.
            raise _undecodable(source, encoding, n_read - len(error.object) + error.start) from None
        except UnicodeError:  # UTF-16 or UTF-32 without its mark
            raise _undecodable(source, encoding, 0) from None
        *complete, rest = rest.split("\n")
        for line in complete if chunk else [*complete, rest]:
            if text := line.strip():
                yield text, n_read


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        "".encode(encoding)  # refuses codecs that are no text encodings
        name = codecs.lookup(encoding).name
    except LookupError:
        raise BadSettings(
            f"--encoding {encoding} is unknown; examples: utf-8, gb18030, utf-16",
            f"--encoding {encoding} 不是已知的编码；例如：utf-8、gb18030、utf-16",
        ) from None
    # Windows editors put a byte order mark before UTF-8; it is no part of the first text.
    return codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()


def _undecodable(source: str, encoding: str, offset: int) -> BadSettings:
    return BadSettings(
        f"{source} is not {encoding}: wrong bytes at offset {offset}; say how it is encoded, for"
        " example --encoding gb18030",
        f"{source} 不是 {encoding} 编码：偏移 {offset} 处的字节无效；请指明文件编码，"
        "例如 --encoding gb18030",
    )


class _Meter:
    """One line that moves on a terminal, plain lines elsewhere; the last state always stays."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], n_bytes: int) -> None:
        self._stream = stream
        self._clock = clock
        self._n_bytes = n_bytes
        self._moves = stream.isatty()
        self._started = self._shown = clock()
        self._line = ""

    def show(self, added: int, unchanged: int, n_read: int) -> None:
        now = self._clock()
        elapsed = max(now - self._started, 1e-9)
        self._line = (
            f"已索引 indexed {added:,} · 未变 unchanged {unchanged:,}"
            f" · {(added + unchanged) / elapsed:,.0f}/s"
        )
        left = ""
        if self._n_bytes:
            left = f" · 剩余 left {_duration(elapsed * max(self._n_bytes / n_read - 1, 0))}"
        if self._moves:
            self._write(f"\r{self._line}{left}\x1b[K")
        elif now - self._shown >= PLAIN_PROGRESS_S:
            self._write(f"{self._line}{left}\n")
            self._shown = now

    def finish(self) -> None:
        if self._line:
            self._write(f"\r{self._line}\x1b[K\n" if self._moves else f"{self._line}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
