"""An artifact appears whole or not at all, and never in place of something else."""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from export import artifact
from export.artifact import (
    check_replaceable,
    fingerprint,
    is_current,
    recover,
    settings_hash,
    write_artifact,
)
from export.errors import CannotWrite
from export.onnx_file import OnnxFile
from server.inference.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Manifest,
    read_manifest,
)

ROOT = Path(__file__).parents[2]
FILES = {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE}
MODEL, TOKENIZER = b"model" * 1000, b"tokenizer"
GRAPH = OnnxFile(MODEL)


@pytest.fixture
def manifest(toy_artifact: Path) -> Manifest:
    """The toy's manifest, for the bytes above."""
    return msgspec.structs.replace(
        read_manifest(toy_artifact),
        settings_sha256="these settings",
        files={MODEL_FILE: sha256(MODEL), TOKENIZER_FILE: sha256(TOKENIZER)},
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_artifact_is_three_files_that_the_server_reads_back(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "onnx-int8"
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    assert names(folder) == FILES
    assert read_manifest(folder) == manifest
    assert (folder / MODEL_FILE).read_bytes() == MODEL
    assert names(folder.parent) == {"onnx-int8"}


def test_new_artifact_replaces_the_old_one_and_nothing_else_stays(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "onnx-int8"
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    other = b"another model"
    changed = msgspec.structs.replace(manifest, files=manifest.files | {MODEL_FILE: sha256(other)})
    write_artifact(folder, OnnxFile(other), TOKENIZER, changed)
    assert read_manifest(folder) == changed
    assert names(tmp_path) == {"onnx-int8"}


def test_artifact_may_be_read_by_others(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "onnx-int8"
    previous = os.umask(0o022)
    try:
        write_artifact(folder, GRAPH, TOKENIZER, manifest)
    finally:
        os.umask(previous)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_rest_of_a_killed_export_is_no_obstacle(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "onnx-int8"
    scratch = tmp_path / f".onnx-int8.{os.getpid()}.tmp"
    scratch.mkdir()
    (scratch / "half").write_bytes(b"half")
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    assert names(folder) == FILES
    assert names(tmp_path) == {"onnx-int8"}


def test_link_is_followed_and_stays(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    link = tmp_path / "onnx-int8"
    link.symlink_to(tmp_path / "disk" / "real")
    write_artifact(link, GRAPH, TOKENIZER, manifest)
    assert link.is_symlink()
    assert names(tmp_path / "disk" / "real") == FILES
    assert names(tmp_path / "disk") == {"real"}


# --- killed ---------------------------------------------------------------------------------------

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


def leave(parent: Path, *rests: str) -> None:
    """Make folders, each with a file that holds the folder's name."""
    for rest in rests:
        (parent / rest).mkdir()
        (parent / rest / MODEL_FILE).write_text(rest)


def test_scratch_and_old_folders_go_where_the_artifact_is_there(tmp_path: Path) -> None:
    leave(tmp_path, "onnx-int8", ".onnx-int8.1.tmp", ".onnx-int8.22.tmp", ".onnx-int8.3.old")
    recover(tmp_path / "onnx-int8")
    assert names(tmp_path) == {"onnx-int8"}
    assert (tmp_path / "onnx-int8" / MODEL_FILE).read_text() == "onnx-int8"


def test_last_old_artifact_is_put_back_where_there_is_none(tmp_path: Path) -> None:
    leave(tmp_path, ".a.9.old", ".a.1.tmp", ".a.10.old")
    (tmp_path / ".a.9.old").rename(tmp_path / ".a.8.old")
    recover(tmp_path / "a")
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a" / MODEL_FILE).read_text() == ".a.9.old"


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    others = [".b.1.tmp", ".a.1.7.tmp", ".a.x.tmp", ".a.1.tmpx", "x.a.1.tmp", ".aa.1.old", ".a.1"]
    leave(tmp_path, *others)
    recover(tmp_path / "a")
    assert names(tmp_path) == set(others)


def test_name_with_signs_of_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    leave(tmp_path, ".a[1]*.7.tmp", ".a1.7.tmp")
    recover(tmp_path / "a[1]*")
    assert names(tmp_path) == {".a1.7.tmp"}


def test_nothing_to_recover_is_no_error(tmp_path: Path) -> None:
    recover(tmp_path / "none" / "a")
    (tmp_path / "file").write_bytes(b"")
    recover(tmp_path / "file" / "a")
    assert names(tmp_path) == {"file"}


def test_write_tidies_up_first(manifest: Manifest, tmp_path: Path) -> None:
    leave(tmp_path, ".a.1.tmp", ".a.2.old")
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
    monkeypatch.setattr(artifact, "_write_durably", lambda path, parts: path.write_bytes(*parts))
    monkeypatch.setattr(os, "fsync", refuse)
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    assert read_manifest(tmp_path / "a") == manifest


# --- current or not -------------------------------------------------------------------------------


def test_artifact_is_current_for_its_own_settings_only(manifest: Manifest, tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    assert is_current(tmp_path / "a", "these settings")
    assert not is_current(tmp_path / "a", "other settings")
    assert not is_current(tmp_path / "none", "these settings")


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["gone", "empty", "changed", "longer"])
def test_damaged_artifact_is_not_current(
    name: str, damage: str, manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    path = folder / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"empty": b"", "changed": b"#" + content[1:], "longer": content + b"#"}[damage]
        )
    assert not is_current(folder, "these settings")


# --- nothing else is lost -------------------------------------------------------------------------


@pytest.mark.parametrize("names_inside", [[], [MODEL_FILE], sorted(FILES)])
def test_folder_with_nothing_but_an_artifact_may_be_replaced(
    names_inside: list[str], tmp_path: Path
) -> None:
    for name in names_inside:
        (tmp_path / name).write_bytes(b"")
    check_replaceable(tmp_path)
    check_replaceable(tmp_path / "new")


@pytest.mark.parametrize("deep", ["", "not/yet/there"])
def test_asking_leaves_everything_as_it_is(deep: str, tmp_path: Path) -> None:
    check_replaceable(tmp_path / deep / "new")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("way", ["file/new", "file/deep/new", "/proc/none/new", "x" * 250])
def test_place_that_cannot_be_written_is_refused_when_asked(way: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    with pytest.raises(CannotWrite) as caught:
        check_replaceable(tmp_path / way)
    assert "cannot write" in caught.value.english and "无法写入" in caught.value.chinese
    assert names(tmp_path) == {"file"}


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    recover(tmp_path / "a")
    with pytest.raises(CannotWrite, match="cannot write"):
        check_replaceable(tmp_path / "a" / "new")
    assert names(tmp_path) == {"a", "b"}


def test_what_was_saved_there_meanwhile_is_not_lost(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "onnx-int8"
    check_replaceable(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_bytes(b"years")
    with pytest.raises(CannotWrite, match=r"thesis\.txt"):
        write_artifact(folder, GRAPH, TOKENIZER, manifest)
    assert (names(tmp_path), names(folder)) == ({"onnx-int8"}, {"thesis.txt"})


def test_folder_with_anything_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(b"model")
    (tmp_path / "thesis.txt").write_bytes(b"years")
    with pytest.raises(CannotWrite) as caught:
        check_replaceable(tmp_path)
    assert "thesis.txt" in caught.value.english and "thesis.txt" in caught.value.chinese
    assert "--out" in caught.value.english
    assert (tmp_path / "thesis.txt").read_bytes() == b"years"


def test_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "onnx-int8").write_bytes(b"a file")
    with pytest.raises(CannotWrite, match="Not a directory"):
        check_replaceable(tmp_path / "onnx-int8")


def test_file_on_the_way_is_refused_and_untouched(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    with pytest.raises(CannotWrite) as caught:
        write_artifact(tmp_path / "file" / "onnx-int8", GRAPH, TOKENIZER, manifest)
    assert "cannot write" in caught.value.english and "无法写入" in caught.value.chinese
    assert (tmp_path / "file").read_bytes() == b"a file"


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command here")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("mounting a tmpfs needs privileges that this user does not have")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_leaves_nothing_and_says_how_much_is_needed(
    manifest: Manifest, small_disk: Path
) -> None:
    with pytest.raises(CannotWrite) as caught:
        write_artifact(small_disk / "onnx-int8", OnnxFile(b"0" * 3_000_000), TOKENIZER, manifest)
    assert "no space left to write 3 MB" in caught.value.english
    assert "磁盘空间不足" in caught.value.chinese
    assert names(small_disk) == set()


def test_mount_point_cannot_be_replaced_and_is_left_alone(
    manifest: Manifest, small_disk: Path
) -> None:
    with pytest.raises(CannotWrite, match="cannot write .*: "):
        write_artifact(small_disk, GRAPH, TOKENIZER, manifest)
    with pytest.raises(CannotWrite, match="is a mount point"):
        check_replaceable(small_disk)
    check_replaceable(small_disk / "onnx-int8")
    assert names(small_disk) == set()
    assert names(small_disk.parent) == {"disk"}


def test_disk_that_may_not_be_written_is_refused_when_asked(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CannotWrite, match="Read-only file system"):
        check_replaceable(small_disk / "onnx-int8")


def test_full_disk_leaves_the_old_artifact_whole(manifest: Manifest, small_disk: Path) -> None:
    folder = small_disk / "onnx-int8"
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    with pytest.raises(CannotWrite, match="no space left"):
        write_artifact(folder, OnnxFile(b"0" * 3_000_000), TOKENIZER, manifest)
    assert names(small_disk) == {"onnx-int8"}
    assert read_manifest(folder) == manifest
    # Room for the second only beside the first, so nothing was left behind.
    write_artifact(folder, GRAPH, TOKENIZER, manifest)


# --- identities -----------------------------------------------------------------------------------


def test_fingerprint_changes_with_graph_vocabulary_and_text_rules() -> None:
    rules = {"lower_case": True, "max_tokens": 512}
    base = fingerprint(OnnxFile(b"model"), b"tokenizer", rules)
    assert len(base) == 32
    assert fingerprint(OnnxFile(b"model"), b"tokenizer", dict(reversed(rules.items()))) == base
    others = {
        fingerprint(OnnxFile(b"model2"), b"tokenizer", rules),
        fingerprint(OnnxFile(b"model"), b"tokenizer2", rules),
        fingerprint(OnnxFile(b"modelt"), b"okenizer", rules),
        fingerprint(OnnxFile(b"model", (b"weights",)), b"tokenizer", rules),
        fingerprint(OnnxFile(b"model", (b"weights2",)), b"tokenizer", rules),
        fingerprint(OnnxFile(b"model"), b"tokenizer", rules | {"lower_case": False}),
        fingerprint(OnnxFile(b"model"), b"tokenizer", rules | {"max_tokens": 256}),
    }
    assert len(others) == 7
    assert base not in others


def test_settings_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert settings_hash({"a": 1, "b": [2]}) == settings_hash({"b": [2], "a": 1})
    assert settings_hash({"a": 1, "b": [2]}) != settings_hash({"a": 1, "b": [3]})
