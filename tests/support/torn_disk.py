"""Disks as a power cut may leave them, made from the changes that a process wanted.

What was synced before the cut is there. Every later write and name is there, missing or, at random, there in
part: only sectors of 512 bytes are whole. A file's sync keeps its bytes, and a folder's the names in it. Neither
keeps the other. This is the least that POSIX promises; most file systems do better.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.support.disk_trace import Change

SECTOR = 512


class Written(NamedTuple):
    """Bytes at an offset; or a new size, where there are none."""

    at: int
    data: bytes | None


# What a folder's names mean from now on; several change in one step where a name moves.
Names = dict[str, "File | Folder | None"]


@dataclass(slots=True, eq=False)
class File:
    changes: list[tuple[int, Written]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Folder:
    changes: list[tuple[int, Names]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)
    now: Names = field(default_factory=dict)


class Disk:
    """All that happened below `top`, a folder that was empty."""

    def __init__(self, top: Path, changes: Sequence[Change]) -> None:
        self._top, self._root = top, Folder()
        for time, change in enumerate(changes):
            if change.kind != "mark":
                self._apply(time, change)

    def _apply(self, time: int, change: Change) -> None:
        name = change.path.name
        match change.kind:
            case "create":
                self._rename(time, change.path, {name: File()})
            case "mkdir":
                self._rename(time, change.path, {name: Folder()})
            case "remove":
                self._rename(time, change.path, {name: None})
            case "rename":
                assert change.target is not None and change.target.parent == change.path.parent
                moved = {change.target.name: self._node(change.path)}
                self._rename(time, change.path, {name: None, **moved})
            case "sync":
                self._node(change.path).syncs.append(time)
            case _:
                file = self._node(change.path)
                assert isinstance(file, File)
                data = None if change.kind == "truncate" else change.data
                file.changes.append((time, Written(change.at, data)))

    def _rename(self, time: int, path: Path, names: Names) -> None:
        folder = self._node(path.parent)
        assert isinstance(folder, Folder)
        folder.changes.append((time, names))
        folder.now |= names

    def _node(self, path: Path) -> File | Folder:
        node: File | Folder | None = self._root
        for name in path.relative_to(self._top).parts:
            assert isinstance(node, Folder)
            node = node.now[name]
        assert node is not None
        return node

    def whole(self, into: Path) -> None:
        """Write the disk as it is at the end, where nothing was cut."""
        _Cut(None, 1.0, random.Random(0)).folder(self._root, into)

    def cut(self, time: int, into: Path, choose: random.Random) -> None:
        """Write a disk as a power cut after the change of this number may leave it."""
        # Of what was not synced: nothing, all, half, or any share of it.
        share = choose.choice((0.0, 1.0, 0.5, choose.random()))
        _Cut(time, share, choose).folder(self._root, into)


Each = TypeVar("Each")


@dataclass(frozen=True, slots=True)
class _Cut:
    """A cut after the change of a number, or none; share: of what was not synced and is there all the same."""

    time: int | None
    share: float
    choose: random.Random

    def folder(self, folder: Folder, into: Path) -> None:
        kept, chosen = self._chosen(folder.changes, folder.syncs)
        found: Names = {}
        for names in (*kept, *chosen):
            found |= names
        into.mkdir()
        for name, node in found.items():
            if isinstance(node, Folder):
                self.folder(node, into / name)
            elif node is not None:
                (into / name).write_bytes(self._content(node))

    def _content(self, file: File) -> bytes:
        kept, chosen = self._chosen(file.changes, file.syncs)
        content = bytearray()
        for written in kept:
            _write(content, written)
        for written in chosen:
            for part in self._torn(written):
                _write(content, part)
        return bytes(content)

    def _chosen(
        self, changes: Sequence[tuple[int, Each]], syncs: Sequence[int]
    ) -> tuple[list[Each], list[Each]]:
        """Return what is there for certain, and what is there by chance, in order."""
        if self.time is None:
            return [change for _, change in changes], []
        synced = max((time for time in syncs if time <= self.time), default=-1)
        later = [change for time, change in changes if synced < time <= self.time]
        if self.choose.random() < 0.5:
            # In the order in which they were made, as a journal keeps them.
            later = later[: round(self.share * len(later))]
        else:
            later = [change for change in later if self.choose.random() < self.share]
        return [change for time, change in changes if time <= synced], later

    def _torn(self, written: Written) -> list[Written]:
        """Return a write, or in one of three cases a part of its sectors."""
        at, data = written
        if not data or self.choose.random() > 1 / 3:
            return [written]
        # Sectors of the disk, not of the write.
        begins = [0, *range(SECTOR - at % SECTOR, len(data), SECTOR), len(data)]
        parts = [Written(at + begin, data[begin:end]) for begin, end in pairwise(begins)]
        if self.choose.random() < 0.5:
            return parts[: self.choose.randint(0, len(parts))]
        return [part for part in parts if self.choose.random() < 0.5]


def _write(content: bytearray, written: Written) -> None:
    size = written.at if written.data is None else written.at + len(written.data)
    if written.data is None:
        del content[size:]
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if written.data is not None:
        content[written.at : size] = written.data
