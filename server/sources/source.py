"""A source of documents: the files to read, and how to read them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from server.sources.notes import Notes
from server.store.records import Document

Format = Literal["txt", "jsonl", "csv", "tsv", "md"]
FORMATS: tuple[str, ...] = get_args(Format)

Read = tuple[Document, int]  # with the bytes of the file read so far
Reader = Iterator[Read]


@dataclass(frozen=True, slots=True)
class Source:
    """Files to read, found but not opened yet.

    files: in the order of reading; None is standard input. folder: names of whole files are relative
    to it. n_bytes: of all files together, 0 if unknown. encoding: None to detect it for each file.
    numbers: columns of a table to store as numbers; None for those that hold nothing else.
    """

    format: Format
    files: tuple[Path | None, ...]
    folder: Path
    n_bytes: int
    encoding: str | None = None
    numbers: tuple[str, ...] | None = None
    notes: Notes = field(default_factory=Notes)
