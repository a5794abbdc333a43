"""Collections as files that other programs read: a document a line, or vectors and their texts.

A file is written under a temporary name and appears whole. No file is held in memory as a whole.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from server.api.documents.export import line as exported_line
from server.cli.ingest import Indexed, Meter, index_documents
from server.cli.local import Local
from server.cli.target import Target, TooLargeForServer
from server.collections.writing.given import SAME_MODEL
from server.errors import BadSettings, RequestTooLarge, StoreError
from server.inference.comparison import row_cosines
from server.messages.message import Message
from server.messages.terminal import Terminal, as_json
from server.sources.decoding import check_encoding, lines
from server.sources.notes import Notes
from server.sources.readers import STDIN
from server.store.collection import Collection
from server.store.documents import Documents
from server.store.faiss_files import StoredVectors, write_vectors
from server.store.reading.parts import Parts
from server.store.records import Document, text_id, titled
from server.store.upkeep.integrity import spans_of
from server.system import atomic_file
from server.types import Labels, Vectors

PAGE_DOCUMENTS = 256
# Of one question for vectors.
PAGE_WITH_VECTORS = 64
SAMPLE = 16
# Returns the documents of ids that are still there, with their chunks.
ReadWithParts = Callable[[Sequence[str]], Awaitable[Sequence[tuple[Document, Parts | None]]]]


async def export_documents(
    target: Target, destination: str, meter: Meter, read: ReadWithParts | None = None
) -> int:
    """Write id, text, title and metadata of each document as a line of JSON; return how many.

    read: reads documents again with their vectors, which are written too; None where they are not wanted.
    """
    number, total = 0, await target.count()
    try:
        with _opened(destination) as file:
            async for page in target.pages():
                if read is None:
                    for document in page:
                        file.write(as_json(document.fields()).encode() + b"\n")
                    number += len(page)
                else:
                    for begin in range(0, len(page), PAGE_WITH_VECTORS):
                        some = page[begin : begin + PAGE_WITH_VECTORS]
                        number += await _write_with_vectors(file, [each.id for each in some], read)
                said = Message("exported {number:,}", number=number)
                meter.show(said, number, min(number / max(total, 1), 1))
    finally:
        meter.finish()
    return number


async def _write_with_vectors(file: BinaryIO, ids: Sequence[str], read: ReadWithParts) -> int:
    """Write documents with their vectors, all as they are now; return how many are still there.

    They are read in several steps where one reply cannot hold them.
    """
    try:
        found = await read(ids)
    except (RequestTooLarge, TooLargeForServer):
        half = len(ids) // 2
        if not half:
            raise
        first = await _write_with_vectors(file, ids[:half], read)
        return first + await _write_with_vectors(file, ids[half:], read)
    file.writelines(exported_line(each, parts, as_base64=True) for each, parts in found)
    return len(found)


def export_pair(collection: Collection, index: Path, texts: Path, meter: Meter) -> tuple[int, int]:
    """Write the vectors of all chunks as an IndexFlatIP, and their texts, one a line, in its order.

    The line of a chunk is what was embedded, with the document's title before it. Return the number
    of chunks, and in how many of them line breaks became spaces.
    """
    documents = collection.documents
    total = len(documents.labels())
    done = joined = 0

    def written(lines: BinaryIO) -> Iterator[Vectors]:
        nonlocal done, joined
        for labels, parts in _parts(documents):
            flat = [" ".join(part.splitlines()) for part in parts]
            lines.write("".join(f"{line}\n" for line in flat).encode())
            yield documents.vectors(labels)
            done += len(labels)
            joined += sum(line != part for line, part in zip(flat, parts, strict=True))
            meter.show(Message("exported {number:,}", number=done), done, done / total)

    try:
        with replacing(index) as rows, replacing(texts) as lines:
            write_vectors(rows, collection.info.dimension, total, written(lines))
    finally:
        meter.finish()
    return total, joined


def _parts(documents: Documents) -> Iterator[tuple[Labels, list[str]]]:
    """Return labels of all chunks, int64 (B,), and what was embedded for each, page by page."""
    after = 0
    while page := documents.page(after, PAGE_DOCUMENTS):
        spans = spans_of(documents, after, page[-1][0])
        parts = [
            (label, titled(document.title, document.text[begin:end]))
            for number, document in page
            for label, (begin, end) in spans[number]
        ]
        yield np.array([label for label, _ in parts], dtype=np.int64), [text for _, text in parts]
        after = page[-1][0]


@contextmanager
def _opened(destination: str) -> Iterator[BinaryIO]:
    if destination == STDIN:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with replacing(Path(destination)) as file:
        yield file


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block ends, whole and on the disk, or not at all."""
    if path.exists() and not path.is_file():
        raise BadSettings("{path} is not a file; name another, or - for standard output", path=path)
    try:
        with atomic_file.replacing(path) as file:
            yield file
    except OSError as error:
        raise StoreError(
            "{path} cannot be written: {strerror}", path=path, strerror=error.strerror
        ) from error


# --- a pair into a collection -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line(Document):
    """A document whose vector is row `row` of the index."""

    row: int = 0


class Pair:
    """Vectors and texts, one a line, of the same number."""

    def __init__(self, index: Path, texts: Path, encoding: str | None = None) -> None:
        check_encoding(encoding)
        self.vectors = StoredVectors(index)
        self.blank = 0
        self.notes = Notes()
        self._texts, self._encoding = texts, encoding
        number = self.vectors.number
        places = set(np.linspace(0, number - 1, min(SAMPLE, number), dtype=int).tolist())
        # Rows and texts that show which model made the vectors.
        self.sample: list[tuple[int, str]] = []
        n_lines = 0
        for row, line in self._lines():
            n_lines += 1
            if row in places and line.strip():
                self.sample.append((row, line.strip()))
        if n_lines != number:
            raise BadSettings(
                "{index} has {number} vectors, but {texts} has {lines} lines: they do not belong "
                "together",
                index=index,
                number=number,
                texts=texts,
                lines=n_lines,
            )

    def documents(self) -> Iterator[tuple[Document, int]]:
        """Yield a document for each line that is not blank, with the number of lines read."""
        for row, line in self._lines():
            if text := line.strip():
                yield _Line(text_id(text), text, row=row), row + 1
            else:
                self.blank += 1

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield every line with its row, blank ones too; raises BadSettings."""
        for number, line, _ in lines(self._texts, self._encoding, self.notes):
            yield number - 1, line


async def import_pair(
    target: Local, pair: Pair, *, clock: Callable[[], float], terminal: Terminal
) -> Indexed:
    """Store the texts with their vectors, or embed them again if another model made the vectors."""
    foreign = await _foreign(target, pair)
    if foreign is not None:
        terminal.inform("{why}: the texts are embedded again", why=foreign)

    async def store(documents: Sequence[Document]) -> int:
        lines = cast(Sequence[_Line], documents)
        plain = [Document(line.id, line.text) for line in lines]
        if foreign is not None:
            return await target.add(plain)
        first = lines[0].row
        rows = pair.vectors.rows(first, lines[-1].row + 1)
        return await target.add_with_vectors(plain, rows[[line.row - first for line in lines]])

    return await index_documents(
        target, pair.documents(), pair.vectors.number, clock=clock, terminal=terminal, store=store
    )


async def _foreign(target: Local, pair: Pair) -> Message | None:
    """Return what shows that another model made the vectors; None if the served one did."""
    found, served = pair.vectors.dimension, target.info.dimension
    if found != served:
        return Message(
            "the vectors have {found} dimensions, those of the served model {served}",
            found=found,
            served=served,
        )
    least = await _least_cosine(target, pair)
    if least >= SAME_MODEL:
        return None
    return Message(
        "the vectors are not of the served model (least cosine of a sample {least:.3f}, needs "
        "{needed})",
        least=least,
        needed=SAME_MODEL,
    )


async def _least_cosine(target: Local, pair: Pair) -> float:
    """Return the least cosine of given vectors to the served model's; 1 if there are none."""
    if not pair.sample:
        return 1.0
    given = np.concatenate([pair.vectors.rows(row, row + 1) for row, _ in pair.sample])
    made = await target.vectors_of([text for _, text in pair.sample])
    return float(row_cosines(given, made).min())
