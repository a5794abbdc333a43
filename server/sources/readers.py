"""Files, folders and standard input as documents, one after the other.

No file is held in memory whole unless it is one document. `formats` says what each format holds; in
a folder each .txt and .md file is one document.
"""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.decoding import check_encoding, escaped, reading, shown_name
from server.sources.formats import documents_of
from server.sources.notes import Notes
from server.sources.source import FORMATS, Format, Read, Source
from server.store.records import Document

STDIN = "-"
OF_SUFFIX: Mapping[str, str] = {"": "txt", ".ndjson": "jsonl"} | {f".{f}": f for f in FORMATS}
IN_FOLDERS = {".txt", ".md"}
TABLES = {"csv", "tsv"}


def find_source(
    name: str,
    *,
    format: str | None = None,
    encoding: str | None = None,
    numbers: tuple[str, ...] | None = None,
) -> Source:
    """Find a file, a folder, or standard input, which is "-".

    format: one of FORMATS, or None for the one of the suffix, txt without a suffix. encoding: None to
    detect it. numbers: columns of a table. A folder takes no format: its .txt and .md files are read
    at any depth, in the order of their paths, without hidden files. Raises BadSettings for what is
    missing, empty or unknown.
    """
    check_encoding(encoding)
    if name == STDIN:
        found = _format(name, "", format, numbers)
        return Source(found, (None,), Path(), 0, encoding, numbers)
    path = Path(name)
    with reading(name):
        status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        found = _format(name, path.suffix, format, numbers)
        return Source(found, (path,), path.parent, status.st_size, encoding, numbers)
    return _of_folder(path, format, encoding, numbers)


def read_documents(source: Source) -> Iterator[Read]:
    """Yield documents in order, each with the number of bytes read so far, of all files.

    Raises BadSettings at what cannot be read or decoded or is not a document, after yielding what
    came before it.
    """
    n_before, replacements = 0, Replacements()
    for file in source.files:
        n_read = 0
        for document, n_read in documents_of(file, source):
            if replacements.has(document):
                source.notes.replaced[shown_name(file)] += 1
            yield document, n_before + n_read
        n_before += n_read


class Replacements:
    """Recognises documents that take the place of another one: the same id, and another content.

    It keeps two hashes of each document, of some 100 bytes together.
    """

    def __init__(self) -> None:
        self._contents: dict[int, int] = {}

    def has(self, document: Document) -> bool:
        """Remember a document; return whether one before it has its id and is another one."""
        content = hash((document.text, document.title, repr(document.metadata)))
        before = self._contents.get(hash(document.id), content)
        self._contents[hash(document.id)] = content
        return before != content


def _format(name: str, suffix: str, given: str | None, numbers: tuple[str, ...] | None) -> Format:
    found = OF_SUFFIX.get(suffix.lower()) if given is None else given
    if found in FORMATS:
        if numbers and found not in TABLES:
            raise BadSettings(
                "--numbers is for the columns of csv and tsv, and {name} is read as {format}",
                name=name,
                format=found,
            )
        return cast(Format, found)
    wrong = (
        Message("--format {given} is unknown", given=given)
        if given is not None
        else Message("{name}: the suffix {suffix} is not a known format", name=name, suffix=suffix)
    )
    raise BadSettings("{wrong}; give --format, one of {formats}", wrong=wrong, formats=FORMATS)


# --- folders ------------------------------------------------------------------------------------------


def _of_folder(
    folder: Path, format: str | None, encoding: str | None, numbers: tuple[str, ...] | None
) -> Source:
    name = str(folder)
    if format is not None:
        raise BadSettings(
            "{name} is a folder: its .txt and .md files are read, each as one document; --format "
            "{format} is for a single file",
            name=name,
            format=format,
        )
    _format(name, ".md", None, numbers)
    notes = Notes()
    with reading(name):
        files = _files_of(folder, notes)
        n_bytes = sum(file.stat().st_size for file in files)
    if not files:
        raise BadSettings(
            "{name} has no .txt or .md files; give files of other formats one at a time", name=name
        )
    _check_ids(folder, files)
    return Source("md", tuple(files), folder, n_bytes, encoding, None, notes)


def _files_of(folder: Path, notes: Notes) -> list[Path]:
    """Return the files of a folder, each once, in the order of their paths.

    A link is followed within the folder only, so a folder from elsewhere cannot make other files of
    this machine searchable. What is reached without links keeps its own path. The rest has the path
    of the first link to it. That is how Kubernetes mounts a ConfigMap: a.txt -> ..data/a.txt, where
    ..data -> a hidden folder.
    """
    root = os.path.realpath(folder)
    found: dict[str, Path] = {}  # by its path without links
    folders, seen = deque([folder]), set[str]()
    while folders:
        links: list[Path] = []
        while folders:
            place = folders.popleft()
            if (real := os.path.realpath(place)) not in seen:
                seen.add(real)
                files, inner, more = _entries(place, notes)
                folders += inner
                links += more
                for file in files:
                    found.setdefault(os.path.realpath(file), file)
        for link in sorted(links):
            real, text = os.path.realpath(link), link.suffix.lower() in IN_FOLDERS
            if os.path.commonpath((root, real)) != root or not link.exists():
                if text or link.is_dir():
                    notes.left_out.append(shown_name(link))
            elif link.is_dir():
                folders.append(link)
            elif text and link.is_file():
                found.setdefault(real, link)
    return sorted(found.values(), key=lambda path: path.relative_to(folder).as_posix())


def _entries(folder: Path, notes: Notes) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the texts, the folders and the links in a folder, without hidden ones."""
    files, folders, links = list[Path](), list[Path](), list[Path]()
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                links.append(path)
            elif entry.is_dir():
                folders.append(path)
            elif entry.is_file() and path.suffix.lower() in IN_FOLDERS:
                files.append(path)
            elif entry.is_file():
                notes.others.append(shown_name(path))
    return files, folders, links


def _check_ids(folder: Path, files: Iterable[Path]) -> None:
    """Refuse two names that are the same once bytes that are not UTF-8 are escapes."""
    of_id: dict[str, Path] = {}
    for file in files:
        other = of_id.setdefault(escaped(file.relative_to(folder).as_posix()), file)
        if other is not file:
            raise BadSettings(
                "two files would be the document {name}, one of them with bytes that are not UTF-8 in "
                "its name; rename it",
                name=shown_name(file),
            )
