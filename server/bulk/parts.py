"""The files of vectors: one a range of digests, so that equal texts are always in the same file.

A part depends on its rows, the layout and the model only. It is written beside its place and takes its name in
one step, and its metadata names what it was made of. So a part is there and whole or not there at all, and
whether it is the right one can be seen without a record of what was done.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from server.bulk.layout import Layout
from server.bulk.scanning import run_schema
from server.bulk.work_file import replacing
from server.errors import BadSettings
from server.types import Vectors

# A part is held in memory with its vectors: 16 MB of them with 512 numbers each, and at most 128 MB.
PART_ROWS, MOST_PART_ROWS, PART_CHARACTERS = 1 << 13, 1 << 16, 8 << 20
# A small corpus has so many parts that all cores end at about the same time, and a large one, from 33 million
# rows on, no more than these: each part looks into each run.
SMALL_PART_ROWS, SMALL_PARTS, MANY_PARTS = 1 << 9, 32, 1 << 12
GROUP_ROWS = 4096
KEYS = 1 << 64
FACTS = b"inkwell"


@dataclass(frozen=True, slots=True)
class Space:
    """The vectors of a model, as the metadata of each part states them."""

    model_id: str
    fingerprint: str
    dimension: int
    normalized: bool


class Facts(msgspec.Struct, frozen=True):
    """The metadata of a part. made_of: hash of its rows and its layout. rejects: lines of rows without a vector.

    given: rows of the runs in its range. rows: those of the part; ids that come twice with one text are one.
    """

    model_id: str
    fingerprint: str
    dimension: int
    normalized: bool
    made_of: str
    given: int
    rows: int
    rejects: list[str]


@dataclass(frozen=True, slots=True)
class Range:
    """The digests of part `index` of `number`, which is a power of two."""

    index: int
    number: int

    @property
    def name(self) -> str:
        return f"part-{self.index:05}-of-{self.number:05}.parquet"

    @property
    def keys(self) -> tuple[int, int]:
        """The first key and the last."""
        width = KEYS // self.number
        return self.index * width, (self.index + 1) * width - 1

    def meets(self, other: "Range") -> bool:
        (begin, end), (first, last) = self.keys, other.keys
        return begin <= last and first <= end


def number_of_parts(rows: int, characters: int) -> int:
    """Return how many parts a corpus has: a power of two, so that more parts cut those of before."""
    small = min(SMALL_PARTS, rows // SMALL_PART_ROWS)
    usual = min(MANY_PARTS, max(rows // PART_ROWS, characters // PART_CHARACTERS))
    large = max(rows // MOST_PART_ROWS, characters // (8 * PART_CHARACTERS))
    least = max(1, small, usual, large)
    return 1 << (least - 1).bit_length()


def range_of(path: Path) -> Range | None:
    """Return the range that a name states, None for another file."""
    pieces = path.stem.split("-")
    if len(pieces) == 4 and pieces[0] == "part" and pieces[2] == "of" and path.suffix == ".parquet":
        index, number = pieces[1], pieces[3]
        if index.isdecimal() and number.isdecimal() and int(index) < int(number):
            return Range(int(index), int(number))
    return None


def rows_in(range: Range, runs: Sequence[Path], layout: Layout) -> Any:
    """Return the rows of runs in a range, sorted by digest and id; of equal ones, the first of the input first."""
    first, last = (pa.scalar(each, pa.uint64()) for each in range.keys)
    within = (pc.field("key") >= first) & (pc.field("key") <= last)
    found = [pq.read_table(run, filters=within, partitioning=None) for run in runs]
    table = pa.concat_tables([run_schema(layout).empty_table(), *found]).combine_chunks()
    # Arrow sorts keep the order of equal rows.
    order = pc.sort_indices(table, [("digest", "ascending"), ("id", "ascending")])
    return table.take(order)


def without_repeats(table: Any) -> Any:
    """Return sorted rows without those that repeat id and digest."""
    ids, digests = table["id"].to_pylist(), table["digest"].to_pylist()
    before = [(None, None), *zip(ids, digests, strict=True)]
    keep = [each != last for each, last in zip(before[1:], before, strict=False)]
    return table.filter(pa.array(keep, pa.bool_()))


def made_of(table: Any, layout: Layout) -> str:
    """Return the hash of rows and layout, of which a part with the same one is made, too."""
    found = hashlib.sha256(repr(layout).encode())
    shown = ["digest", "id", "title", *(each.name for each in layout.kept)]
    for row in table.select(shown).to_pylist():
        found.update(repr(tuple(row.values())).encode())
    return found.hexdigest()


def facts_of(path: Path) -> Facts | None:
    """Return the metadata of a part, None where there is no such file or it is no part."""
    try:
        schema = pq.read_schema(path)
        facts = msgspec.json.decode((schema.metadata or {})[FACTS], type=Facts)
        wanted = pa.list_(pa.float32(), facts.dimension), pa.binary(32)
        found = schema.field("vector").type, schema.field("digest").type
        return facts if found == wanted else None
    except (OSError, KeyError, ValueError, pa.ArrowException, msgspec.MsgspecError):
        return None


def vectors_in(path: Path) -> Iterator[tuple[bytes, Vectors]]:
    """Yield digest and vector, float32 (D,), of each row of a part; one that is damaged ends before the damage."""
    with suppress(OSError, pa.ArrowException):
        for batch in _batches(path, ["digest", "vector"]):
            vectors = rows_of_vectors(batch["vector"])
            if not np.isfinite(vectors).all():
                return
            yield from zip(batch["digest"].to_pylist(), vectors, strict=True)


def rows_of_part(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part by column; a vector is float32 (D,). Raises BadSettings for a damaged file."""
    try:
        for batch in _batches(path):
            names = [name for name in batch.schema.names if name != "vector"]
            rows = batch.select(names).to_pylist()
            for row, vector in zip(rows, rows_of_vectors(batch["vector"]), strict=True):
                yield {**row, "vector": vector}
    except (OSError, pa.ArrowException) as error:
        raise BadSettings("{file} cannot be read: {why}", file=path, why=error) from None


def _batches(path: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """Yield batches of a part; raises pa.ArrowException or OSError where it is damaged."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=columns):
            if batch["vector"].null_count:
                raise pa.ArrowInvalid("a row has no vector")
            yield batch


def rows_of_vectors(column: Any) -> Vectors:
    """Return the vectors of a column of a batch, float32 (B, D)."""
    flat: Vectors = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def write_part(path: Path, rows: Any, vectors: Vectors, layout: Layout, facts: Facts) -> None:
    """Write rows with their vectors, float32 (B, D); whole or not at all."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1), pa.float32())
    columns = {
        "id": rows["id"],
        "digest": rows["digest"],
        "vector": pa.FixedSizeListArray.from_arrays(flat, facts.dimension),
    }
    shown = (["title", "text"] if layout.with_text else []) + [each.name for each in layout.kept]
    columns |= {name: rows[name] for name in shown}
    table = pa.table(columns).replace_schema_metadata({FACTS: msgspec.json.encode(facts)})
    with replacing(path) as file:
        pq.write_table(
            table,
            file,
            row_group_size=GROUP_ROWS,
            compression="zstd",
            # Neither makes vectors smaller.
            use_dictionary=[],
            # A bit that changes on the disk would be another vector, and nobody would see it.
            write_page_checksum=True,
            write_statistics=["id", "digest"],
        )
