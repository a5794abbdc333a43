"""The files of a corpus, and the units that one task each reads."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from server.errors import BadSettings

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".ndjson.gz": "jsonl.gz",
    ".csv": "csv",
    ".csv.gz": "csv.gz",
}
# Bytes that one task reads where a file can be split: some seconds of reading, minutes of embedding.
UNIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Unit:
    """What one task reads of a file: lines that begin in bytes [begin, end), row groups [begin, end), or all.

    end: 0 for all. base: rows of the file before it, None where they are known only after reading.
    state: size and time of change of the file, so that a changed file is read again.
    """

    file: str
    format: str
    begin: int = 0
    end: int = 0
    base: int | None = 0
    state: tuple[int, int] = (0, 0)

    def key(self, rules: str) -> str:
        """Return the name of what is read of it by rules, which differs for everything that matters."""
        said = repr((self.file, self.format, self.begin, self.end, self.state, rules))
        return hashlib.sha256(said.encode()).hexdigest()[:32]


def find_files(given: Sequence[str], out: Path) -> list[str]:
    """Return the absolute paths of files, of files in folders and of patterns, each once, in order.

    out: the absolute path of the folder of results, which is never read. Raises BadSettings where one gives nothing.
    """
    found: dict[str, None] = {}
    # subtle: either may be reached over a link.
    own = {out, out.resolve()}
    for name in given:
        some = [os.path.abspath(each) for each in _matching(name)]
        some = [each for each in some if own.isdisjoint(_folders(each))]
        if not some:
            raise BadSettings(
                "{name} is no file, folder or pattern with files of {suffixes}",
                name=name,
                suffixes=", ".join(SUFFIXES),
            )
        found |= dict.fromkeys(some)
    return list(found)


def _folders(file: str) -> set[Path]:
    return {*Path(file).parents, *Path(file).resolve().parents}


def _matching(name: str) -> list[str]:
    path = Path(name)
    if path.is_file():
        return [name] if format_of(name) else []
    paths = path.rglob("*") if path.is_dir() else map(Path, glob.glob(name, recursive=True))
    return sorted(str(each) for each in paths if each.is_file() and format_of(each.name))


def format_of(name: str) -> str | None:
    """Return the format of a file by its suffix, None for another kind of file."""
    lower = name.lower()
    return next((SUFFIXES[each] for each in SUFFIXES if lower.endswith(each)), None)


def state_of(file: str) -> tuple[int, int]:
    """Return size and time of change of a file; raises OSError."""
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns


def units_of(files: Sequence[str]) -> Iterator[Unit]:
    """Yield the units of files, in order; raises BadSettings for one that cannot be opened."""
    for file in files:
        try:
            yield from _units(file, format_of(file) or "", state_of(file))
        except (OSError, pa.ArrowException) as error:
            raise BadSettings("{file} cannot be read: {why}", file=file, why=error) from None


def _units(file: str, format: str, state: tuple[int, int]) -> Iterator[Unit]:
    if format == "parquet":
        yield from _row_groups(file, state)
    elif format == "jsonl" and state[0] > UNIT_BYTES:
        for begin in range(0, state[0], UNIT_BYTES):
            end = min(begin + UNIT_BYTES, state[0])
            yield Unit(file, format, begin, end, None if begin else 0, state)
    else:
        yield Unit(file, format, state=state)


def _row_groups(file: str, state: tuple[int, int]) -> Iterator[Unit]:
    with pq.ParquetFile(file) as opened:
        facts = opened.metadata
        groups = [facts.row_group(place) for place in range(facts.num_row_groups)]
    begin = rows = rows_here = size = 0
    for place, group in enumerate(groups):
        rows_here += group.num_rows
        size += group.total_byte_size
        if size >= UNIT_BYTES or place == len(groups) - 1:
            yield Unit(file, "parquet", begin, place + 1, rows, state)
            begin, rows, rows_here, size = place + 1, rows + rows_here, 0, 0
