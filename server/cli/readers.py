"""Files, folders and standard input as documents, one after the other.

No file is held in memory whole unless it is one document. `formats` says what each format holds; in
a folder each .txt and .md file is one document.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from server.cli.decoding import decoder, reading
from server.cli.formats import FORMATS, Format, Read, documents_of
from server.errors import BadSettings
from server.messages.message import Message

STDIN = "-"
OF_SUFFIX: Mapping[str, str] = {"": "txt", ".ndjson": "jsonl"} | {f".{f}": f for f in FORMATS}
IN_FOLDERS = {".txt", ".md"}


@dataclass(frozen=True, slots=True)
class Source:
    """Files to read, found but not opened yet.

    files: in the order of reading; None is standard input. folder: names of whole files are relative
    to it. n_bytes: of all files together, 0 if unknown.
    """

    format: Format
    encoding: str
    files: tuple[Path | None, ...]
    folder: Path
    n_bytes: int


def find_source(name: str, *, format: str | None = None, encoding: str = "utf-8") -> Source:
    """Find a file, a folder, or standard input, which is "-".

    format: one of FORMATS, or None for the one of the suffix, txt without a suffix. A folder takes no
    format: its .txt and .md files are read at any depth, in the order of their paths, without hidden
    files and symbolic links. Raises BadSettings for what is missing, empty or unknown.
    """
    decoder(encoding)
    if name == STDIN:
        return Source(_format(name, "", format), encoding, (None,), Path(), 0)
    path = Path(name)
    with reading(name):
        status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        n_bytes = status.st_size
        return Source(_format(name, path.suffix, format), encoding, (path,), path.parent, n_bytes)
    if format is not None:
        raise BadSettings(
            "{name} is a folder: its .txt and .md files are read, each as one document; --format "
            "{format} is for a single file",
            name=name,
            format=format,
        )
    with reading(name):
        files = _files_of(path)
        n_bytes = sum(file.stat().st_size for file in files)
    if not files:
        raise BadSettings(
            "{name} has no .txt or .md files; give files of other formats one at a time", name=name
        )
    return Source("md", encoding, tuple(files), path, n_bytes)


def read_documents(source: Source) -> Iterator[Read]:
    """Yield documents in order, each with the number of bytes read so far, of all files.

    Raises BadSettings at what cannot be read or decoded or is not a document, after yielding what
    came before it.
    """
    n_before = 0
    for file in source.files:
        n_read = 0
        for document, n_read in documents_of(file, source.format, source.encoding, source.folder):
            yield document, n_before + n_read
        n_before += n_read


def _format(name: str, suffix: str, given: str | None) -> Format:
    found = OF_SUFFIX.get(suffix.lower()) if given is None else given
    if found in FORMATS:
        return cast(Format, found)
    wrong = (
        Message("--format {given} is unknown", given=given)
        if given is not None
        else Message("{name}: the suffix {suffix} is not a known format", name=name, suffix=suffix)
    )
    raise BadSettings("{wrong}; give --format, one of {formats}", wrong=wrong, formats=FORMATS)


def _files_of(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in IN_FOLDERS and path.is_file() and not path.is_symlink():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
