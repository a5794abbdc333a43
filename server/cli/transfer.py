"""Collections as files that other programs read: a document a line, or vectors beside their texts.

Files appear whole, under a temporary name first, and nothing is ever in memory as a whole.
"""

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np

from server.cli.ingest import Indexed, Meter, index_documents
from server.cli.local import Local
from server.cli.readers import STDIN
from server.cli.target import Target
from server.errors import BadSettings, StoreError
from server.inference.comparison import row_cosines
from server.store import Labels
from server.store.collection import Collection
from server.store.documents import Documents
from server.store.faiss_files import StoredVectors, write_vectors
from server.store.integrity import spans_of
from server.store.records import Document, text_id
from server.types import Vectors

PAGE_DOCUMENTS = 256
SAMPLE = 16
# Vectors of one text by a float32 model and by its int8 artifact have 0.99; another model's have none.
SAME_MODEL = 0.95


async def export_documents(target: Target, destination: str, meter: Meter) -> int:
    """Write id, text, title and metadata of each document as a line of JSON; returns how many."""
    number, total = 0, await target.count()
    try:
        with _opened(destination) as file:
            async for page in target.pages():
                for document in page:
                    file.write(json.dumps(asdict(document), ensure_ascii=False).encode() + b"\n")
                number += len(page)
                meter.show(f"已导出 exported {number:,}", number, min(number / max(total, 1), 1))
    finally:
        meter.finish()
    return number


def export_pair(collection: Collection, index: Path, texts: Path, meter: Meter) -> tuple[int, int]:
    """Write the vectors of all parts as an IndexFlatIP, and their texts, one a line, in its order.

    A part's line is what was embedded: its document's title stands before it. Returns how many
    parts there are, and in how many of them line breaks became spaces.
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
            meter.show(f"已导出 exported {done:,}", done, done / total)

    try:
        with replacing(index) as rows, replacing(texts) as lines:
            write_vectors(rows, collection.info.dimension, total, written(lines))
    finally:
        meter.finish()
    return total, joined


def _parts(documents: Documents) -> Iterator[tuple[Labels, list[str]]]:
    """Labels of all parts, int64 (B,), and what was embedded for each, page by page."""
    after = 0
    while page := documents.page(after, PAGE_DOCUMENTS):
        spans = spans_of(documents, after, page[-1][0])
        parts = [
            (label, _embedded(document, begin, end))
            for number, document in page
            for label, (begin, end) in spans[number]
        ]
        yield np.array([label for label, _ in parts], dtype=np.int64), [text for _, text in parts]
        after = page[-1][0]


def _embedded(document: Document, begin: int, end: int) -> str:
    part = document.text[begin:end]
    return f"{document.title}\n{part}" if document.title else part


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
    """A file that takes the place of `path` when the block ends, whole and on the disk, or never."""
    if path.exists() and not path.is_file():
        raise BadSettings(
            "{path} is no file that could be replaced; name another, or - for standard output",
            path=path,
        )
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise StoreError(
            "{path} cannot be written: {strerror}", path=path, strerror=error.strerror
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


# --- a pair into a collection -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line(Document):
    """A document whose vector is row `row`."""

    row: int = 0


class Pair:
    """Vectors and texts that have been found to belong together, by their number."""

    def __init__(self, index: Path, texts: Path, encoding: str = "utf-8") -> None:
        self.vectors = StoredVectors(index)
        self.blank = 0
        self._texts, self._encoding = texts, encoding
        number = self.vectors.number
        places = set(np.linspace(0, number - 1, min(SAMPLE, number), dtype=int).tolist())
        # Rows and texts by which the model is told.
        self.sample: list[tuple[int, str]] = []
        n_lines = 0
        for row, line in enumerate(_lines(texts, encoding)):
            n_lines += 1
            if row in places and line.strip():
                self.sample.append((row, line.strip()))
        if n_lines != number:
            raise BadSettings(
                "{index} has {number} vectors, and {texts} has {n_lines} lines: they do not belong "
                "together",
                index=index,
                number=number,
                texts=texts,
                n_lines=n_lines,
            )

    def documents(self) -> Iterator[tuple[Document, int]]:
        """One a line that is not blank, each with how many lines were read."""
        for row, line in enumerate(_lines(self._texts, self._encoding)):
            if text := line.strip():
                yield _Line(text_id(text), text, row=row), row + 1
            else:
                self.blank += 1


async def import_pair(
    target: Local, pair: Pair, *, clock: Callable[[], float], progress: TextIO
) -> Indexed:
    """Store the texts with the vectors given, or embed them again where another model made those."""
    foreign = await _foreign(target, pair)
    if foreign is not None:
        progress.write(foreign)

    async def store(documents: Sequence[Document]) -> int:
        lines = cast(Sequence[_Line], documents)
        plain = [Document(line.id, line.text) for line in lines]
        if foreign is not None:
            return await target.add(plain)
        first = lines[0].row
        rows = pair.vectors.rows(first, lines[-1].row + 1)
        return await target.add_with_vectors(plain, rows[[line.row - first for line in lines]])

    return await index_documents(
        target,
        pair.documents(),
        pair.vectors.number,
        clock=clock,
        progress=progress,
        store=store,
    )


async def _foreign(target: Local, pair: Pair) -> str | None:
    """What tells that another model made the vectors; None where the served one did."""
    found, served = pair.vectors.dimension, target.collection.info.dimension
    if found != served:
        return (
            f"向量有 {found} 维，而当前模型为 {served} 维：将重新计算\n"
            f"the vectors have {found} numbers, those of the served model {served}: the texts are"
            " embedded again\n"
        )
    least = await _least_cosine(target, pair)
    if least >= SAME_MODEL:
        return None
    return (
        f"向量不是由当前模型生成的（抽样余弦最低 {least:.3f}，应不低于 {SAME_MODEL}）：将重新计算\n"
        f"the vectors are not of the served model (least cosine of a sample {least:.3f}, at least"
        f" {SAME_MODEL} is needed): the texts are embedded again\n"
    )


async def _least_cosine(target: Local, pair: Pair) -> float:
    """Of given vectors with what the served model makes of their texts; 1 where there are none."""
    if not pair.sample:
        return 1.0
    given = np.concatenate([pair.vectors.rows(row, row + 1) for row, _ in pair.sample])
    made = await target.vectors_of([text for _, text in pair.sample])
    return float(row_cosines(given, made).min())


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Every line, blank ones too, without its end; raises BadSettings."""
    try:
        # Windows editors put a mark before UTF-8, which is no part of the first text.
        name = "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding
        with path.open(encoding=name) as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError as error:
        raise BadSettings(
            "{path} cannot be read: {strerror}", path=path, strerror=error.strerror
        ) from None
    except (LookupError, UnicodeError) as error:
        raise BadSettings(
            "{path} is not {encoding} ({error}); say how it is encoded, for example --encoding "
            "gb18030",
            path=path,
            encoding=encoding,
            error=error,
        ) from None
