"""A file is replaced whole, in one step, and what is synced comes before what relies on it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.system.atomic_file import install, replacing, scratch_for, sync_folder
from tests.support.fakes import PATIENCE_S
from tests.support.processes import environment


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is synced and renamed, in order: "file", "rename", "folder"."""
    seen: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        seen.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    def rename(self: Path, target: Path) -> Path:
        seen.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    return seen


def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_content_is_durable_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, calls: list[str]
) -> None:
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert calls == ["file", "rename", "folder"]


def test_all_of_the_content_is_durable_and_not_what_was_flushed_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []

    def fsync(handle: int) -> None:
        if os.path.isfile(f"/proc/self/fd/{handle}"):
            synced.append(Path(f"/proc/self/fd/{handle}").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert synced == [b"new"]


def test_finished_file_is_installed_in_the_same_order(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "scratch").write_bytes(b"new")
    (tmp_path / "a").write_bytes(b"old")
    install(tmp_path / "scratch", tmp_path / "a")
    assert calls == ["file", "rename", "folder"]
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_file_that_cannot_be_synced_does_not_replace_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"), replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_named_scratch_file_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    scratch = tmp_path / "a.tmp"
    scratch.write_bytes(b"a long rest of another process")
    with replacing(tmp_path / "a", scratch=scratch) as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
from server.system.atomic_file import replacing
with replacing(Path(sys.argv[1]), mode=0o600) as file:
    file.write(b"half a secret")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_processes_leave_one_scratch_file_and_the_next_one_deletes_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path)], env=environment(), timeout=PATIENCE_S
        )
        assert done.returncode == -signal.SIGKILL
        assert names(tmp_path) == [".a.tmp"]
    with replacing(path, mode=0o644) as file:
        file.write(b"whole")
        assert os.fstat(file.fileno()).st_mode & 0o077, "not the mode of the one that was left"
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["a"]


def test_second_writer_of_a_file_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as file:
        file.write(b"first")
        with pytest.raises(OSError, match="busy") as refusal, replacing(path):
            pass
        assert refusal.value.errno == errno.EBUSY
    assert path.read_bytes() == b"first"
    with replacing(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["a"]


def test_scratch_file_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / ".a.tmp").symlink_to("precious")
    with pytest.raises(OSError), scratch_for(tmp_path / "a"):
        pass
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_new_file_has_the_mode_from_its_first_byte(mode: int, tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        with replacing(tmp_path / "a", mode=mode) as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == mode
    finally:
        os.umask(previous)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_file_is_everybodys_but_for_the_umask_unless_a_mode_is_given(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with replacing(tmp_path / "a"):
            pass
        with scratch_for(tmp_path / "b") as (scratch, _):
            assert scratch.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(previous)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_only_a_file_system_that_cannot_sync_folders_is_excused(
    code: int, raised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    if raised:
        with pytest.raises(OSError, match=os.strerror(code)):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def test_file_is_written_where_the_folder_may_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a folder of mode 300 does to every user but root.
    allowed = os.open

    def refuse_folders(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return allowed(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse_folders)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    (tmp_path / "scratch").write_bytes(b"other")
    install(tmp_path / "scratch", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "b").read_bytes() == b"other"
