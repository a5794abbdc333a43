"""A folder as one archive: the same files give the same bytes, on any machine and at any time."""

import gzip
import hashlib
import tarfile
from pathlib import Path

SUMS = "SHA256SUMS"
# Wheels are compressed already and weights are dense, so the fastest level is within 1 % of the slowest.
LEVEL = 1


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of all other files into the folder, as `sha256sum -c` reads it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in _files(folder)
        if path.name != SUMS
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def pack(folder: Path, out: Path, epoch: int) -> None:
    """Write the folder as a .tar.gz; its files belong to root and have the time `epoch`."""
    with (
        out.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=epoch) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in [folder, *sorted(folder.rglob("*"))]:
            name = Path(folder.name) / path.relative_to(folder)
            archive.add(path, str(name), recursive=False, filter=lambda one: _plain(one, epoch))


def _plain(entry: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = epoch
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
