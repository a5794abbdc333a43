"""An artifact appears whole or not at all, and never in place of something else."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from export import artifact
from export.artifact import (
    check_replaceable,
    check_same_model,
    fingerprint,
    is_current,
    recover,
    settings_hash,
    write_artifact,
)
from export.errors import CannotWrite
from export.onnx_file import OnnxFile
from server.inference.manifest import (
    MODEL_FILE,
    Manifest,
    read_manifest,
)
from tests.support.artifacts import FILES, GRAPH, MODEL, TOKENIZER, names, sha256, small_manifest


@pytest.fixture
def manifest(toy_artifact: Path) -> Manifest:
    return small_manifest(toy_artifact)


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


def test_files_are_on_the_disk_before_they_are_served_and_before_the_old_ones_go(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    steps: list[str] = []
    replace, remove = artifact._replace_folder, shutil.rmtree

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        size = path.stat().st_size if path.is_file() else 0
        steps.append(f"{path.name} {size}" if size else f"sync {path.name}")

    def replaced(folder: Path, scratch: Path) -> None:
        steps.append("replace")
        replace(folder, scratch)

    def removed(folder: Path, *, ignore_errors: bool) -> None:
        steps.append("remove")
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(artifact, "_replace_folder", replaced)
    monkeypatch.setattr(shutil, "rmtree", removed)
    write_artifact(tmp_path / "a", GRAPH, TOKENIZER, manifest)
    whole = {f"{path.name} {path.stat().st_size}" for path in (tmp_path / "a").iterdir()}
    assert set(steps[: len(FILES)]) == whole
    assert steps[len(FILES) :] == ["sync new", "replace", f"sync {tmp_path.name}", *["remove"] * 2]


def test_folder_of_someone_else_beside_the_artifact_is_never_removed(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "onnx-int8"
    others = [f".onnx-int8.{os.getpid()}.tmp", ".onnx-int8.12.old", ".onnx-int8.abcdefgh.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / MODEL_FILE).write_bytes(b"years")
    recover(folder)
    check_replaceable(folder)
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    assert names(folder) == FILES
    assert names(tmp_path) == {"onnx-int8", *others}
    assert all((tmp_path / name / MODEL_FILE).read_bytes() == b"years" for name in others)


def test_link_is_followed_and_stays(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    link = tmp_path / "onnx-int8"
    link.symlink_to(tmp_path / "disk" / "real")
    write_artifact(link, GRAPH, TOKENIZER, manifest)
    assert link.is_symlink()
    assert names(tmp_path / "disk" / "real") == FILES
    assert names(tmp_path / "disk") == {"real"}


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


def test_folder_that_may_not_be_listed_is_refused_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a folder of mode 300 does to every user but root: an export could not be locked or made durable.
    allowed = os.open

    def refuse_folders(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY and path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return allowed(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse_folders)
    with pytest.raises(CannotWrite, match="Permission denied"):
        check_replaceable(tmp_path / "new")
    assert names(tmp_path) == set()


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


def test_artifact_of_another_model_is_not_replaced(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "onnx-int8"
    check_same_model(folder, "fork/toy", "another")
    write_artifact(folder, GRAPH, TOKENIZER, manifest)
    check_same_model(folder, manifest.model_id, "another")
    check_same_model(folder, "fork/toy", manifest.checkpoint_sha256)
    with pytest.raises(CannotWrite, match="holds the artifact of toy, .*--out") as caught:
        check_same_model(folder, "fork/toy", "another")
    assert "另一个模型 toy" in caught.value.chinese


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
