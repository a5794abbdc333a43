"""What a process does to the files in a folder, as strace reports it, with all bytes that it writes.

`record` runs a command and returns its changes in order; `torn_disk` makes disks of them.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = (
    "openat,creat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "fsync,fdatasync,dup,dup2,dup3,sendfile,copy_file_range"
)
LINE = re.compile(
    r"(?P<thread>\d+) +(?P<call>\w+)\((?P<given>.*)\) += (?P<result>-?\d+)", re.DOTALL
)
UNFINISHED = re.compile(r"(\d+) +(.*?) *<unfinished \.\.\.>")
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)", re.DOTALL)
# A descriptor or AT_FDCWD with its path, a text, or a word: flags and numbers.
ARGUMENT = re.compile(r'(?P<fd>AT_FDCWD|\d+)<(?P<path>[^>]*)>|"(?P<text>[^"]*)"|(?P<word>[^,\s]+)')


@dataclass(frozen=True, slots=True)
class Change:
    """One change. kind: create, mkdir, write, truncate, rename, remove, sync, or mark.

    path: of the file or folder, at that time. data: of a write or a mark. at: the offset of a write, the new
    size of a truncate. target: the new path of a rename.
    """

    kind: str
    path: Path
    at: int = 0
    data: bytes = b""
    target: Path | None = None


def record(
    command: Sequence[str], folder: Path, marks: Path, log: Path, environ: Mapping[str, str]
) -> list[Change]:
    """Run a command to its end; returns its changes below `folder`, and what it wrote to the file `marks`."""
    traced = ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "100000000", "-o", str(log)]
    try:
        done = subprocess.run([*traced, "-e", f"trace={CALLS}", *command], env=environ)
    except FileNotFoundError:
        pytest.skip("no strace")
    if done.returncode and not log.read_bytes():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0
    return list(_Reader(folder, marks).changes(log))


@dataclass(slots=True)
class _Open:
    path: Path
    offset: int
    appends: bool


class _Reader:
    """Follows descriptors and sizes, so that each write has a path and an offset."""

    def __init__(self, folder: Path, marks: Path) -> None:
        self._folder, self._marks = folder, marks
        self._open: dict[int, _Open] = {}
        self._sizes: dict[Path, int] = {}

    def changes(self, log: Path) -> Iterator[Change]:
        begun: dict[str, str] = {}
        with log.open(encoding="ascii") as lines:
            for line in lines:
                if found := UNFINISHED.match(line):
                    begun[found[1]] = found[2]
                    continue
                if found := RESUMED.match(line):
                    line = f"{found[1]} {begun.pop(found[1])}{found[2]}"
                if (call := LINE.match(line)) and int(call["result"]) >= 0:
                    yield from self._of(call["call"], call["given"], int(call["result"]))

    def _of(self, call: str, given: str, result: int) -> Iterator[Change]:
        match call:
            case "openat":
                folder, name, flags = _arguments(given)[:3]
                yield from self._opened(_path(folder, name), str(flags), result)
            case "close":
                self._open.pop(_number(given), None)
            case "lseek":
                if (file := self._open.get(_number(given))) is not None:
                    file.offset = result
            case "write" | "pwrite64":
                yield from self._written(call, given, result)
            case "ftruncate" | "fsync" | "fdatasync":
                yield from self._by_descriptor(call, given)
            case (
                "rename"
                | "renameat"
                | "renameat2"
                | "unlink"
                | "unlinkat"
                | "mkdir"
                | "mkdirat"
                | "rmdir"
            ):
                yield from self._named(call, _paths(given))
            case _:
                # None of these is used in the folder; a new one needs a line here.
                assert _hex(str(self._folder)) not in given, f"{call} is not known"

    def _opened(self, path: Path, flags: str, descriptor: int) -> Iterator[Change]:
        self._open.pop(descriptor, None)
        if not self._of_interest(path):
            return
        self._open[descriptor] = _Open(path, 0, "O_APPEND" in flags)
        if path != self._marks and "O_CREAT" in flags and path not in self._sizes:
            self._sizes[path] = 0
            yield Change("create", path)
        if "O_TRUNC" in flags and self._sizes.get(path):
            self._sizes[path] = 0
            yield Change("truncate", path)

    def _written(self, call: str, given: str, result: int) -> Iterator[Change]:
        file = self._open.get(_number(given))
        if file is None:
            return
        arguments = _arguments(given)
        data = arguments[1]
        assert isinstance(data, bytes)
        if file.path == self._marks:
            yield Change("mark", file.path, data=data)
            return
        path = _path(arguments[0], b"")
        if not self._of_interest(path) or path not in self._sizes:
            return  # It was deleted.
        size = self._sizes[path]
        if call == "pwrite64":
            at = int(str(arguments[3]))
        else:
            at = size if file.appends else file.offset
            file.offset = at + result
        self._sizes[path] = max(size, at + result)
        yield Change("write", path, at, data[:result])

    def _by_descriptor(self, call: str, given: str) -> Iterator[Change]:
        arguments = _arguments(given)
        path = _path(arguments[0], b"")
        if not self._of_interest(path):
            return
        if call == "ftruncate":
            self._sizes[path] = int(str(arguments[1]))
            yield Change("truncate", path, self._sizes[path])
        else:
            yield Change("sync", path)

    def _named(self, call: str, paths: Sequence[Path]) -> Iterator[Change]:
        path = paths[0]
        if not self._of_interest(path):
            return
        if call.startswith("mkdir"):
            yield Change("mkdir", path)
        elif call.startswith("rename"):
            target = paths[1]
            self._moved(path, target)
            yield Change("rename", path, target=target)
        else:
            self._sizes.pop(path, None)
            yield Change("remove", path)

    def _moved(self, path: Path, target: Path) -> None:
        for known in [each for each in self._sizes if each == path or path in each.parents]:
            self._sizes[target / known.relative_to(path)] = self._sizes.pop(known)

    def _of_interest(self, path: Path) -> bool:
        if path.name.endswith("-shm"):
            return False  # Written as memory, and rebuilt by the first process that opens the database.
        return path == self._marks or path == self._folder or self._folder in path.parents


def _arguments(given: str) -> list[tuple[int, str] | bytes | str]:
    """Return descriptors with their paths, texts as bytes, and words."""
    found: list[tuple[int, str] | bytes | str] = []
    for each in ARGUMENT.finditer(given):
        if each["fd"] is not None:
            number = -1 if each["fd"] == "AT_FDCWD" else int(each["fd"])
            found.append((number, os.fsdecode(_bytes(each["path"]))))
        elif each["text"] is not None:
            found.append(_bytes(each["text"]))
        else:
            found.append(each["word"])
    return found


def _paths(given: str) -> list[Path]:
    """Return the paths among the arguments of a call, each with the folder it is relative to."""
    found: list[Path] = []
    folder: tuple[int, str] | bytes | str = (-1, os.getcwd())
    for each in _arguments(given):
        if isinstance(each, tuple):
            folder = each
        elif isinstance(each, bytes):
            found.append(_path(folder, each))
    return found


def _path(folder: tuple[int, str] | bytes | str, name: bytes | tuple[int, str] | str) -> Path:
    assert isinstance(folder, tuple) and isinstance(name, bytes)
    return Path(folder[1]) / os.fsdecode(name)


def _number(given: str) -> int:
    found = re.match(r"\d+", given)
    return int(found[0]) if found else -1


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))
