"""The folder of results: its manifest, what it may be continued with, and one writer at a time."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from server.bulk.parts import Space
from server.errors import BadSettings
from server.system.atomic_file import replacing

# Readers of a folder of Parquet leave out names that begin so.
MANIFEST_FILE, REJECTS_FILE = "_manifest.json", "_rejects.jsonl"
LOCK_FILE, WORK_FOLDER = ".lock", ".work"


class Output(msgspec.Struct, frozen=True):
    """What a complete folder holds. parts: the rows of each file of vectors.

    given: documents of the input. rows: of them, those with a vector, each id with each of its texts once.
    rejected: rows in the file of rejects. layout: what was read and written.
    """

    model_id: str
    fingerprint: str
    dimension: int
    normalized: bool
    with_text: bool
    kept: dict[str, str]
    files: list[str]
    parts: dict[str, int]
    given: int
    rows: int
    rejected: int


def read_output(folder: Path) -> Output | None:
    """Return the manifest of a folder, None where it has none; raises BadSettings for a damaged one."""
    path = folder / MANIFEST_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Output)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise BadSettings("{file} cannot be read: {why}", file=path, why=error) from None


def set_aside(folder: Path) -> None:
    """Make a folder incomplete until its run ends: its manifest goes where only the next run looks for it."""
    (folder / WORK_FOLDER).mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        (folder / MANIFEST_FILE).replace(folder / WORK_FOLDER / MANIFEST_FILE)


def write_output(folder: Path, output: Output) -> None:
    with replacing(folder / MANIFEST_FILE) as file:
        file.write(msgspec.json.format(msgspec.json.encode(output), indent=2))


def check_continues(
    folder: Path, space: Space, files: Sequence[str], *, forget: bool = False
) -> None:
    """Raise BadSettings where the folder has vectors of another model, or of files that are not given now.

    forget: whether rows of files that are not given now may go.
    """
    before = read_output(folder) or read_output(folder / WORK_FOLDER)
    if before is None:
        return
    if before.fingerprint != space.fingerprint:
        raise BadSettings(
            "{out} has vectors of {found}, and the model is {wanted}; choose another --out",
            out=folder,
            found=f"{before.model_id} ({before.fingerprint})",
            wanted=f"{space.model_id} ({space.fingerprint})",
        )
    missing = sorted(set(before.files) - set(files))
    if missing and not forget:
        raise BadSettings(
            "{out} has rows of {number} files that are not given now, such as {file}; give them too, choose"
            " another --out, or drop their rows with --forget",
            out=folder,
            number=len(missing),
            file=missing[0],
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one run; raises BadSettings while another one holds it."""
    with _opened(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSettings("another run writes to {out}; wait for its end", out=folder) from None
        except OSError as error:
            raise _cannot_write(folder, error) from None
        yield


def _opened(folder: Path) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOCK_FILE).open("ab")
    except OSError as error:
        raise _cannot_write(folder, error) from None


def _cannot_write(folder: Path, error: OSError) -> BadSettings:
    return BadSettings("--out {out} cannot be written: {why}", out=folder, why=error)
