"""A manifest is accepted only if every file has the hash that it states."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.families.batches import GROUPS
from export.families.bert.attention import LONG
from server.errors import BadArtifact
from server.inference.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MODEL_FILE,
    MOST_BYTES,
    TOKENIZER_FILE,
    file_sha256,
    read_manifest,
)
from server.types import Packing

HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture
def folder(toy_artifact: Path, tmp_path: Path) -> Path:
    """A copy of the toy artifact that a test may damage."""
    return Path(shutil.copytree(toy_artifact, tmp_path / "artifact"))


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def check_refused(folder: Path, *said: str) -> None:
    with pytest.raises(BadArtifact) as refusal:
        read_manifest(folder)
    assert HAN.search(refusal.value.chinese) and not HAN.search(refusal.value.english)
    for word in said:
        assert word in refusal.value.english
        assert word in refusal.value.chinese


def test_sound_artifact_is_read_whole(toy_artifact: Path) -> None:
    manifest = read_manifest(toy_artifact)
    assert (manifest.model_id, manifest.dimension, manifest.precision) == ("toy", 32, "int8")
    assert (manifest.text.max_tokens, manifest.text.query_instruction) == (64, "搜索：")
    assert manifest.files.keys() == {MODEL_FILE, TOKENIZER_FILE}
    assert all(len(test.vector) == manifest.dimension for test in manifest.self_test)


def test_manifest_of_an_earlier_version_reads_as_one_of_dense_vectors(
    folder: Path, toy_artifact: Path
) -> None:
    def age(manifest: Any) -> None:
        del manifest["task"]
        manifest["inputs"] = ["input_ids"]

    edit(folder, age)
    assert read_manifest(folder) == read_manifest(toy_artifact)
    assert read_manifest(folder).task == "dense"


def test_missing_artifact_says_how_to_make_one(tmp_path: Path) -> None:
    check_refused(tmp_path / "nothing", MANIFEST_FILE, "make export", str(tmp_path / "nothing"))


def test_folder_in_place_of_the_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()
    check_refused(tmp_path, MANIFEST_FILE)


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE])
def test_pipe_in_place_of_a_file_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BadArtifact, match=f"{name} cannot be read: Not a regular file") as caught:
        read_manifest(folder)
    assert "不是普通文件" in caught.value.chinese


def test_byte_order_mark_before_the_manifest_is_read_over(folder: Path) -> None:
    manifest = read_manifest(folder)
    path = folder / MANIFEST_FILE
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_manifest(folder) == manifest


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    check_refused(folder, name)


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_one_changed_bit_is_noticed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    expected = file_sha256(folder / name)
    (folder / name).write_bytes(content)
    check_refused(folder, name, expected, file_sha256(folder / name))


def test_file_cut_short_is_noticed(folder: Path) -> None:
    content = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(content[:-1])
    check_refused(folder, MODEL_FILE)


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_file_that_the_manifest_does_not_vouch_for_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda manifest: manifest["files"].pop(name))
    check_refused(folder, name)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0])
def test_other_format_is_named_and_not_taken_for_damage(folder: Path, version: int) -> None:
    def change(manifest: Any) -> None:
        manifest["format_version"] = version
        manifest["key_of_the_future"] = {}
        del manifest["agreement"]

    edit(folder, change)
    check_refused(folder, f" {version}", f" {FORMAT_VERSION}")
    with pytest.raises(BadArtifact, match=rf"format {version}.*export the model again"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("fingerprint"),
        lambda manifest: manifest.pop("format_version"),
        lambda manifest: manifest.update(pooling=None),
        lambda manifest: manifest.update(unknown=1),
        lambda manifest: manifest["text"].update(max_tokens="64"),
        lambda manifest: manifest.update(self_test=[]),
        lambda manifest: manifest.update(task="translate"),
        lambda manifest: manifest.update(dimension=10**9),
        lambda manifest: manifest.update(groups=10**9),
        lambda manifest: manifest.update(packed_tokens=-1),
        lambda manifest: manifest["text"].update(max_tokens=10**9),
        lambda manifest: manifest.update(matryoshka_dimensions=[64]),
        lambda manifest: manifest["files"].update({"../other": "0"}),
        lambda manifest: manifest.update(self_test=manifest["self_test"] * 100),
    ],
    ids=[
        *("missing", "no version", "null", "unknown", "wrong type", "no self-test", "no such task"),
        *("dimension", "groups", "packed tokens", "longest text", "longer than whole", "outside"),
        "self-tests",
    ],
)
def test_manifest_that_is_not_as_it_should_be_is_refused(
    folder: Path, change: Callable[[Any], object]
) -> None:
    edit(folder, change)
    check_refused(folder, MANIFEST_FILE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format_version": 1',
        b"\xff\xfe{}",
        b'{"a":"\xff"}',
        b'{"format_version": 1, "inputs": ' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b', "format_version": 1}',
        b" " * (MOST_BYTES + 1),
    ],
    ids=range(10),
)
def test_manifest_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    check_refused(folder, MANIFEST_FILE)


def test_shipped_artifact_is_sound(shipped_artifact: Path) -> None:
    manifest = read_manifest(shipped_artifact)
    assert (manifest.dimension, manifest.text.max_tokens) == (512, 512)
    assert manifest.agreement.mean > 0.999
    assert manifest.packing == Packing(GROUPS, LONG - 1)
