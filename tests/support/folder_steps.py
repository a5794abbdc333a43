"""The steps in which operations on a data folder change names and sync: killed, or failing, at each of them."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from server.errors import StoreError
from server.store.folder import DataFolder

CHANGES = ("rename", "replace", "mkdir", "fsync")
KINDS = (*CHANGES, "unlink", "rmdir")


class Steps:
    """The changes of names and the syncs of files and folders while it is entered.

    before: called with the number of each step before it is done. kinds: functions of `os`.
    """

    def __init__(
        self, before: Callable[[int], None] = lambda _: None, *, kinds: Sequence[str] = KINDS
    ) -> None:
        self.seen: list[tuple[str, Path]] = []
        self._before, self._kinds = before, kinds
        self._busy = False
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> "Steps":
        for kind in self._kinds:
            self._patch.setattr(os, kind, self._watched(kind, getattr(os, kind)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _watched(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **options: Any) -> Any:
            if self._busy:
                return real(*given, **options)
            place = given[1] if kind in ("rename", "replace") else given[0]
            where = os.readlink(f"/proc/self/fd/{place}") if kind == "fsync" else place
            self._busy = True
            try:
                self._before(len(self.seen))
            finally:
                self._busy = False
                self.seen.append((kind, Path(where)))
            return real(*given, **options)

        return step


def killed_at_each_step(data: Path, into: Path, operation: Callable[[], None]) -> list[Path]:
    """Run an operation; returns copies of the folder, each as a kill between two steps leaves it."""
    copies: list[Path] = []
    last: list[tuple[str, int]] = []

    def freeze(_: int = 0) -> None:
        found = sorted((str(path), path.lstat().st_size) for path in data.rglob("*"))
        if found != last:
            last[:] = found
            copies.append(shutil.copytree(data, into / str(len(copies))))

    freeze()
    with Steps(freeze):
        operation()
    freeze()
    return copies


class FailingDisk:
    """Copies of a data folder, each on a disk that fails at another step of an operation.

    lasting: whether all later steps fail too. kinds: the functions of `os` that count as steps. step: the
    one at which the disk failed last.
    """

    def __init__(self, data: Path, into: Path, *, lasting: bool, kinds: Sequence[str]) -> None:
        self.step = 0
        self._data, self._into = data, into
        self._lasting, self._kinds = lasting, kinds

    def runs(
        self, operation: Callable[[DataFolder], None]
    ) -> Iterator[tuple[Path, DataFolder, bool]]:
        """Yield each copy, open after the operation, and whether that was refused; the last reaches its end."""
        for self.step in count():
            copy = shutil.copytree(self._data, self._into / str(self.step))
            folder, refused = DataFolder(copy), False
            with Steps(self._fail, kinds=self._kinds) as steps:
                try:
                    operation(folder)
                except StoreError:
                    refused = True
            yield copy, folder, refused
            if len(steps.seen) <= self.step:
                return

    def _fail(self, number: int) -> None:
        if number == self.step or (self._lasting and number > self.step):
            raise OSError(errno.EIO, "Input/output error")
