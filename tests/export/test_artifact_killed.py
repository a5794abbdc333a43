"""A write that is killed leaves one whole artifact, and the next one tidies up."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from export import artifact
from export.artifact import (
    MARK,
    NEW,
    OLD,
    recover,
    write_artifact,
)
from export.errors import CannotWrite
from server.inference.manifest import (
    MODEL_FILE,
    Manifest,
    read_manifest,
)
from server.system import atomic_file
from tests.support.artifacts import GRAPH, TOKENIZER, names, small_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def manifest(toy_artifact: Path) -> Manifest:
    return small_manifest(toy_artifact)


# Writes the files in SOURCE to TARGET, with the process killed at call number N of those that change
# a folder or make it durable; in a child of its own for each N, until one comes to its end. `way` is
# how the folders change places. Prints for each N what it left.
KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from export import artifact
from export.onnx_file import OnnxFile
from server.inference.manifest import read_manifest

way, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
old, graph = read_manifest(target), OnnxFile((source / "model.onnx").read_bytes())
tokenizer = (source / "tokenizer.json").read_bytes()
new = read_manifest(source)

def write():
    artifact.write_artifact(target, graph, tokenizer, new)

def deadly(module, name, calls, at):
    call = getattr(module, name)
    def dies(*values, **options):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*values, **options)
    setattr(module, name, dies)

def state():
    if not target.exists():
        return "nothing"
    return {old.fingerprint: "old", new.fingerprint: "new"}[read_manifest(target).fingerprint]

if way == "aside":
    artifact._exchange = lambda one, other: False
for at in itertools.count():
    if not os.fork():
        calls = itertools.count()
        for name in ("mkdir", "rename", "fsync", "unlink", "rmdir", "close"):
            deadly(os, name, calls, at)
        deadly(artifact, "_exchange", calls, at)
        write()
        os._exit(0)
    ended = os.WIFEXITED(os.wait()[1])
    left = state()
    artifact.recover(target)
    print(left, state(), ",".join(sorted(path.name for path in target.parent.iterdir())))
    if ended:
        break
    shutil.rmtree(target)
    shutil.copytree(sys.argv[4], target)
"""


@pytest.fixture
def versions(manifest: Manifest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A new artifact, the place for it with an old one in it, and a copy of that old one."""
    new, target, old = tmp_path / "new", tmp_path / "place" / "onnx-int8", tmp_path / "old"
    write_artifact(new, GRAPH, TOKENIZER, msgspec.structs.replace(manifest, fingerprint="1" * 32))
    write_artifact(old, GRAPH, TOKENIZER, manifest)
    shutil.copytree(old, target)
    return new, target, old


@pytest.mark.parametrize("way", ["exchange", "aside"])
def test_process_killed_at_any_step_leaves_one_whole_artifact(
    way: str, versions: tuple[Path, Path, Path]
) -> None:
    new, target, old = map(str, versions)
    command = [sys.executable, "-c", KILLED, way, new, target, old]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    # mkdir twice, 5 fsyncs at least, the exchange, 3 files and a folder: many steps died at.
    assert len(lines) > 12
    assert [left for left, _, _ in lines].count("nothing") == (1 if way == "aside" else 0)
    assert {left for left, _, _ in lines} >= {"old", "new"}
    for left, recovered, beside in lines:
        # Killed between two renames, the old one is put back.
        assert recovered == ("old" if left == "nothing" else left)
        assert beside == "onnx-int8"
    assert lines[-1][0] == "new"


def traced(strace_options: list[str], versions: tuple[Path, Path, Path]) -> int:
    """Write under strace, which tampers with system calls; returns the exit code."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.decode().strip()}")
    program = (
        "import sys; from pathlib import Path; from server.inference.manifest import read_manifest\n"
        "from export.artifact import write_artifact; source, target = map(Path, sys.argv[1:])\n"
        "from export.onnx_file import OnnxFile\n"
        "graph = OnnxFile((source / 'model.onnx').read_bytes())\n"
        "tokenizer = (source / 'tokenizer.json').read_bytes()\n"
        "write_artifact(target, graph, tokenizer, read_manifest(source))\n"
    )
    command = [strace, "-qq", "-o", os.devnull, "-e", "trace=renameat2", *strace_options]
    done = subprocess.run(
        [*command, sys.executable, "-c", program, str(versions[0]), str(versions[1])],
        cwd=ROOT,
        check=False,
    )
    return done.returncode


def test_process_killed_at_the_exchange_leaves_the_old_artifact_and_the_next_write_tidies_up(
    versions: tuple[Path, Path, Path],
) -> None:
    new, target, old = versions
    assert traced(["-e", "inject=renameat2:signal=KILL"], versions) != 0
    assert read_manifest(target) == read_manifest(old)
    assert len(names(target.parent)) == 2
    write_artifact(target, GRAPH, TOKENIZER, read_manifest(new))
    assert read_manifest(target) == read_manifest(new)
    assert names(target.parent) == {"onnx-int8"}


@pytest.mark.parametrize("error", ["ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM"])
def test_kernel_that_cannot_exchange_folders_is_done_without(
    error: str, versions: tuple[Path, Path, Path]
) -> None:
    new, target, _ = versions
    assert traced(["-e", f"inject=renameat2:error={error}"], versions) == 0
    assert read_manifest(target) == read_manifest(new)
    assert names(target.parent) == {"onnx-int8"}


def test_failed_exchange_leaves_the_old_artifact(
    versions: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, target, old = versions

    def fail(*_: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(artifact, "_exchange", fail)
    with pytest.raises(CannotWrite, match="Input/output error"):
        write_artifact(target, GRAPH, TOKENIZER, read_manifest(new))
    assert read_manifest(target) == read_manifest(old)
    assert names(target.parent) == {"onnx-int8"}


# --- what the killed ones left --------------------------------------------------------------------


def leave(parent: Path, *rests: str, inside: str = NEW, mark: bool = True) -> None:
    """Make scratch folders, each with a file that holds the folder's name."""
    for rest in rests:
        (parent / rest / inside).mkdir(parents=True)
        (parent / rest / inside / MODEL_FILE).write_text(rest)
        if mark:
            (parent / rest / MARK).touch()


def test_scratch_folders_go_where_the_artifact_is_there(tmp_path: Path) -> None:
    leave(tmp_path, "onnx-int8", mark=False, inside=".")
    leave(tmp_path, ".onnx-int8.aaaaaaa1.tmp", ".onnx-int8.aaaaaa_2.tmp")
    leave(tmp_path, ".onnx-int8.aaaaaaa3.tmp", inside=OLD)
    (tmp_path / ".onnx-int8.aaaaaaa4.tmp").mkdir()
    recover(tmp_path / "onnx-int8")
    assert names(tmp_path) == {"onnx-int8"}
    assert (tmp_path / "onnx-int8" / MODEL_FILE).read_text() == "onnx-int8"


def test_last_old_artifact_is_put_back_where_there_is_none(tmp_path: Path) -> None:
    leave(tmp_path, ".a.aaaaaaa9.tmp", ".a.aaaaaa10.tmp", inside=OLD)
    leave(tmp_path, ".a.aaaaaaa1.tmp")
    old = tmp_path / ".a.aaaaaaa9.tmp" / OLD
    old.rename(old.with_name("moved")).rename(old)
    recover(tmp_path / "a")
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a" / MODEL_FILE).read_text() == ".a.aaaaaaa9.tmp"


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    others = [
        ".b.12345678.tmp",
        ".a.1.12345678.tmp",
        ".a.x.tmp",
        ".a.12345678.tmpx",
        "x.a.12345678.tmp",
    ]
    leave(tmp_path, *others, ".aa.12345678.tmp", ".a.1")
    leave(tmp_path, ".a.12345678.tmp", mark=False)
    leave(tmp_path, ".a.123.tmp", ".a.123.old", mark=False, inside=OLD)
    (tmp_path / ".a.abcdefgh.tmp").symlink_to(tmp_path / ".a.1")
    before = names(tmp_path)
    recover(tmp_path / "a")
    assert names(tmp_path) == before


def test_foreign_file_in_a_marked_scratch_folder_is_kept(tmp_path: Path) -> None:
    leave(tmp_path, ".a.12345678.tmp")
    (tmp_path / ".a.12345678.tmp" / "thesis.txt").write_text("years")
    recover(tmp_path / "a")
    assert names(tmp_path / ".a.12345678.tmp") == {MARK, "thesis.txt"}


def test_name_with_signs_of_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    leave(tmp_path, ".a[1]*.12345678.tmp", ".a1.12345678.tmp")
    recover(tmp_path / "a[1]*")
    assert names(tmp_path) == {".a1.12345678.tmp"}


def test_nothing_to_recover_is_no_error(tmp_path: Path) -> None:
    recover(tmp_path / "none" / "a")
    (tmp_path / "file").write_bytes(b"")
    recover(tmp_path / "file" / "a")
    assert names(tmp_path) == {"file"}


def test_write_tidies_up_first(manifest: Manifest, tmp_path: Path) -> None:
    leave(tmp_path, ".a.12345678.tmp")
    leave(tmp_path, ".a.22345678.tmp", inside=OLD)
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    assert names(tmp_path) == {"a"}
    assert read_manifest(tmp_path / "a") == manifest


def test_writes_hold_each_other_off_so_that_no_live_scratch_folder_is_swept(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_free() -> bool:
        handle = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    seen: list[bool] = []
    write = artifact._write

    def watched(folder: Path, files: artifact.Files) -> None:
        seen.append(is_free())
        write(folder, files)

    monkeypatch.setattr(artifact, "_write", watched)
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    assert (seen, is_free()) == ([False], True)


def test_folder_that_cannot_be_locked_or_synced_is_written_all_the_same(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(atomic_file, "_sync_file", lambda _: None)  # of folders only
    monkeypatch.setattr(os, "fsync", refuse)
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    assert read_manifest(tmp_path / "a") == manifest
