"""Unpacks a model's folder from a tar archive, plain or compressed with gzip.

Nothing in an archive is trusted. Its names stay inside the new folder, links and devices are refused, and
the number of entries, their sizes and the headers between them are bounded. Hidden files stay packed. All
others come, because a model's kind is judged by the names of all its files. An archive is unpacked apart
from the artifacts and whole: under a scratch name until all files have come, then under the hash of the
archive, by which the next export finds it again.
"""

import gzip
import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from export.errors import CannotWrite, CorruptFile, NoSuchModel, UnsupportedModel
from export.source.file import open_file
from export.source.folder_lock import Waiting, only_one
from export.source.hubs.errors import cannot_write

SUFFIXES = (".tar", ".tar.gz", ".tgz")
# A published model has some 30 files.
MOST_ENTRIES = 10_000
MOST_BYTES = 64 * 1024**3
# Folders inside each other.
DEEPEST = 8
# What is read of an archive at a time; so no header can be larger.
BLOCK = 64 * 1024
END = bytes(tarfile.BLOCKSIZE)
# What the disk keeps free.
LEFT_FREE = 256 * 1024 * 1024
SCRATCH = ".unpacking"


def is_archive(source: str) -> bool:
    """Return whether `source` names an archive, be there one or not."""
    return source.lower().endswith(SUFFIXES)


def archive_name(archive: Path) -> str:
    """Return the name of an archive's model: its file's name without the suffix."""
    name = archive.name
    suffix = next(each for each in reversed(SUFFIXES) if name.lower().endswith(each))
    return name[: -len(suffix)]


def unpack(archive: Path, downloads: Path, waiting: Waiting = lambda _: None) -> Path:
    """Unpack an archive into a folder of its own in `downloads` and return the model's folder.

    Does nothing where the same archive has been unpacked before. Raises an ExportError.
    """
    with open_file(archive) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        folder = downloads / f"tar:{digest}"
        try:
            downloads.mkdir(parents=True, exist_ok=True)
            with only_one(downloads, waiting):
                if not folder.is_dir():
                    _unpack_to(downloads / SCRATCH, file, archive)
                    (downloads / SCRATCH).rename(folder)
        except OSError as error:
            raise cannot_write(error, folder) from None
    return _model_in(folder)


def _unpack_to(scratch: Path, file: BufferedReader, archive: Path) -> None:
    """Unpack to a new folder, which is removed if that fails, as is one of an export that was killed."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    whole = False
    try:
        room = shutil.disk_usage(scratch).free - LEFT_FREE
        for name, size, content in _files(file, archive):
            room -= size
            if room < 0:
                raise CannotWrite(
                    "there is no room for {name} of {archive} in {folder}",
                    name=name,
                    archive=archive,
                    folder=scratch.parent,
                )
            _write(scratch / name, content, archive, name)
        if not any(scratch.iterdir()):
            raise NoSuchModel("{archive} holds no files", archive=archive)
        whole = True
    except (tarfile.TarError, _Damaged, ValueError, OverflowError, RecursionError) as error:
        raise CorruptFile(
            "{archive} cannot be unpacked: {error}", archive=archive, error=str(error)[:200]
        ) from None
    finally:
        if not whole:
            shutil.rmtree(scratch, ignore_errors=True)


def _write(path: Path, content: Iterator[bytes], archive: Path, name: PurePosixPath) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise CorruptFile("{archive} holds {name} twice", archive=archive, name=name) from None
    with out:
        for block in content:
            out.write(block)


def _files(
    file: BufferedReader, archive: Path
) -> Iterator[tuple[PurePosixPath, int, Iterator[bytes]]]:
    """Yield name, size and content of each file that is not hidden, in the archive's order."""
    source = _Source(file)
    count = size = 0
    with tarfile.open(fileobj=cast(BinaryIO, source), mode="r:") as tar:
        for member in tar:
            count, size = count + 1, size + member.size
            name = _checked(member, archive)
            if count > MOST_ENTRIES or size > MOST_BYTES:
                raise UnsupportedModel(
                    "{archive} holds more than {entries:,} entries or {size:,} bytes; pack only the "
                    "model's folder",
                    archive=archive,
                    entries=MOST_ENTRIES,
                    size=MOST_BYTES,
                )
            if member.isreg() and not any(part.startswith(".") for part in name.parts):
                yield name, member.size, _content(tar, member)
    # subtle: tarfile takes an archive that ends early, or a damaged header, for the end.
    if source.last != END:
        raise _Damaged("it ends too early")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(member)
    assert content is not None
    left = member.size
    while left:
        block = content.read(min(BLOCK, left))
        if not block:
            raise _Damaged("it ends too early")
        left -= len(block)
        yield block


def _checked(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """Return the name of an entry; refuses all but plain files and folders with plain names."""
    name = PurePosixPath(member.name)
    plain = all(
        part != ".." and part.isprintable() and len(part.encode()) <= 255 for part in name.parts
    )
    if name.is_absolute() or not plain or len(name.parts) > DEEPEST:
        raise CorruptFile(
            "{archive} holds the name {name!r}, which leads out of the folder or is not plain",
            archive=archive,
            name=member.name[:200],
        )
    if member.islnk() or member.issym():
        raise UnsupportedModel(
            "{archive} holds the link {name}; pack the files themselves: tar --dereference "
            "--hard-dereference",
            archive=archive,
            name=name,
        )
    if member.size < 0 or member.issparse() or not (member.isreg() or member.isdir()):
        raise UnsupportedModel(
            "{archive} holds {name}, which is neither a plain file nor a folder",
            archive=archive,
            name=name,
        )
    return name


def _model_in(folder: Path) -> Path:
    """Return the model's folder, which may be the only thing in other folders."""
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


class _Damaged(Exception):
    pass


class _Source:
    """An archive as tarfile reads it; a header cannot make it read much at once."""

    def __init__(self, file: BufferedReader) -> None:
        packed = file.peek(2).startswith(b"\x1f\x8b")
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file) if packed else file)
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= BLOCK:
            raise _Damaged("a header is too large")
        try:
            self.last = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise _Damaged(str(error)) from None
        return self.last

    def seek(self, place: int) -> int:
        try:
            return self._file.seek(place)
        except (OSError, EOFError, zlib.error) as error:
            raise _Damaged(str(error)) from None

    def tell(self) -> int:
        return self._file.tell()
