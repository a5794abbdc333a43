"""One process uses a data folder, and others can see which."""

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from server.errors import StoreError
from server.store.folder import DataFolder
from server.store.folder_lock import LOCK_FILE, Holder, holder_of

SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, pipe: Connection) -> None:
    opened = DataFolder(folder)
    pipe.send(os.getpid())
    pipe.recv()
    opened.close()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold, args=(tmp_path, theirs))
    holder.start()
    pid = ours.recv()
    with pytest.raises(StoreError) as refusal:
        DataFolder(tmp_path)
    assert f"process {pid};" in refusal.value.english
    assert f"进程 {pid} " in refusal.value.chinese
    ours.send("go")
    holder.join()
    DataFolder(tmp_path).close()


def test_a_new_folder_is_its_owners_alone_and_one_that_is_there_keeps_its_mode(
    tmp_path: Path,
) -> None:
    before = os.umask(0o022)
    try:
        DataFolder(tmp_path / "new").close()
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o750)
    DataFolder(tmp_path / "new").close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750


def test_a_server_that_holds_the_folder_is_named_by_its_address(tmp_path: Path) -> None:
    first = DataFolder(tmp_path, "http://127.0.0.1:8000")
    with pytest.raises(StoreError) as refusal:
        DataFolder(tmp_path)
    for message in (refusal.value.english, refusal.value.chinese):
        assert "http://127.0.0.1:8000" in message and "--data" in message
    first.close()


def test_server_names_every_address_once_it_answers(tmp_path: Path) -> None:
    first = DataFolder(tmp_path, "http://a-host-with-a-long-name.example:8000")
    lock = Holder.of(holder_of(tmp_path) or "")
    assert lock == (str(os.getpid()), ("http://a-host-with-a-long-name.example:8000",), "")
    first.announce(["http://127.0.0.1:1", "unix:/a folder/socket"])
    lock = Holder.of(holder_of(tmp_path) or "")
    addresses = ("http://127.0.0.1:1", "unix:/a folder/socket")
    assert lock == (str(os.getpid()), addresses, first.instance)
    first.close()
    second = DataFolder(tmp_path)
    assert Holder.of(holder_of(tmp_path) or "") == (str(os.getpid()), (), "")
    assert second.instance != first.instance
    second.close()


@pytest.fixture
def told_of_waiting() -> Iterator[Callable[[], bytes]]:
    """Return once the kernel reports that a process waits for the lease of this one."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Whichever thread the signal comes to writes into the pipe.
    before = signal.signal(signal.SIGURG, lambda *_: None), signal.set_wakeup_fd(writing)
    yield partial(os.read, reading, 1)
    signal.set_wakeup_fd(before[1])
    signal.signal(signal.SIGURG, before[0])
    os.close(reading)
    os.close(writing)


def test_who_looks_at_a_folder_does_not_keep_a_server_from_starting_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_of_waiting: Callable[[], bytes]
) -> None:
    DataFolder(tmp_path).close()
    started: list[DataFolder] = []
    start = threading.Thread(target=lambda: started.append(DataFolder(tmp_path)))
    ask = fcntl.fcntl

    def ask_and_start(file: Any, command: int, argument: int) -> int:
        done = ask(file, command, argument)
        if command == fcntl.F_SETLEASE:
            start.start()
            told_of_waiting()
        return done

    monkeypatch.setattr(fcntl, "fcntl", ask_and_start)
    assert holder_of(tmp_path) is None
    start.join()
    monkeypatch.undo()
    assert holder_of(tmp_path) == str(os.getpid())
    started[0].close()
    assert holder_of(tmp_path) is None


def test_holder_is_found_where_there_are_no_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "not the owner")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert holder_of(tmp_path) is None, "there is no such file"
    folder = DataFolder(tmp_path, "http://127.0.0.1:8000")
    assert holder_of(tmp_path) == f"{os.getpid()} http://127.0.0.1:8000"
    folder.close()
    assert holder_of(tmp_path) is None


@pytest.mark.parametrize("kind", ["pipe", "folder", "bytes"])
def test_what_is_no_lock_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / LOCK_FILE
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff" * 100_000)
    assert holder_of(tmp_path) is None


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
def test_what_stands_in_the_place_of_the_lock_file_is_refused_and_not_written_to(
    tmp_path: Path, kind: str
) -> None:
    other, data = tmp_path / "other", tmp_path / "data"
    data.mkdir()
    path = data / LOCK_FILE
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(other)
    if kind == "link":
        other.write_text("precious")
    with pytest.raises(StoreError, match="lock cannot be used: it is a link"):
        DataFolder(data)
    assert not other.exists() or other.read_text() == "precious"
    path.rmdir() if kind == "folder" else path.unlink()
    DataFolder(data).close()


def test_deleted_lock_file_lets_no_second_process_in(tmp_path: Path) -> None:
    first = DataFolder(tmp_path, "http://127.0.0.1:8000")
    (tmp_path / LOCK_FILE).unlink()
    with pytest.raises(StoreError, match=r"in use by process \?"):
        DataFolder(tmp_path)
    assert not (tmp_path / LOCK_FILE).exists()
    assert holder_of(tmp_path) == "?"
    first.close()
    assert holder_of(tmp_path) is None and holder_of(tmp_path / "none") is None
    DataFolder(tmp_path).close()


def test_folder_that_is_released_twice_is_released(tmp_path: Path) -> None:
    first = DataFolder(tmp_path)
    first.close()
    second = DataFolder(tmp_path)
    first.close()
    with pytest.raises(StoreError, match="in use"):
        DataFolder(tmp_path)
    second.close()


@pytest.mark.parametrize("refusal", ["open", "flock"])
def test_folder_that_cannot_be_locked_itself_is_locked_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    flock, opened = fcntl.flock, os.open

    def flock_files_only(file: Any, operation: int) -> None:
        if isinstance(file, int):
            raise OSError(errno.ENOTSUP, "Operation not supported")
        flock(file, operation)

    def open_files_only(path: Any, flags: int, *rest: Any, **others: Any) -> int:
        if flags & os.O_DIRECTORY and path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest, **others)

    if refusal == "flock":
        monkeypatch.setattr(fcntl, "flock", flock_files_only)
    else:
        monkeypatch.setattr(os, "open", open_files_only)
    first = DataFolder(tmp_path)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        DataFolder(tmp_path)
    first.close()
    DataFolder(tmp_path).close()
