"""Files of a model's folder that are no files, or too large, or begin with a byte order mark."""

import json
import os
from pathlib import Path

import pytest

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile
from export.source.file import MOST_SETTINGS, MOST_TABLE
from export.source.json_file import DEEPEST
from tests.support.checkpoints import SETTINGS, refusal
from tests.support.toys import VOCABULARY, write_toy_checkpoint

FILES = (*SETTINGS, "tokenizer.json", "model.safetensors")
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy", prompts={"query": "q: "})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("link", "is a link to a file that does not exist"),
        ("circle", "cannot be read: Too many levels of symbolic links"),
        ("folder", "cannot be read: Is a directory"),
        ("pipe", "cannot be read: Not a regular file"),
        ("device", "cannot be read: Not a regular file"),
    ],
)
def test_what_is_no_file_is_named_at_once(name: str, kind: str, reason: str, folder: Path) -> None:
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": "none", "circle": path.name, "device": "/dev/zero"}[kind])
    refusal(folder, CorruptFile, f"{path} {reason}")


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("name", ["vocab.txt", "pytorch_model.bin", "model.safetensors.index.json"])
def test_file_of_the_second_choice_is_checked_too(name: str, kind: str, folder: Path) -> None:
    (folder / ("tokenizer.json" if name == "vocab.txt" else "model.safetensors")).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("none")
    with pytest.raises(CorruptFile, match=name):
        read_checkpoint(folder, allow_pickle=True)


def test_shard_that_is_no_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    shard = "model-00001-of-00001.safetensors"
    index = {"weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    os.mkfifo(folder / shard)
    refusal(folder, CorruptFile, f"{shard} cannot be read: Not a regular file")


@pytest.mark.parametrize("name", ["a\0b.safetensors", "a\n.safetensors", ".safetensors", "a.onnx"])
def test_name_of_a_shard_that_is_none_is_refused(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    refusal(folder, CorruptFile, repr(name), "no plain name of a shard")


def test_links_to_files_are_followed_as_in_the_cache_of_a_hub(folder: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(folder)
    (tmp_path / "blobs").mkdir()
    for number, name in enumerate(FILES):
        (folder / name).rename(tmp_path / "blobs" / str(number))
        (folder / name).symlink_to(tmp_path / "blobs" / str(number))
    linked = read_checkpoint(folder)
    assert (linked.sha256, linked.settings) == (whole.sha256, whole.settings)


@pytest.mark.parametrize("name", FILES[:-1])
def test_file_that_is_too_large_is_refused_with_the_limit(name: str, folder: Path) -> None:
    most = MOST_TABLE if name == "tokenizer.json" else MOST_SETTINGS
    os.truncate(folder / name, most + 1)
    refusal(folder, CorruptFile, f"{name} has more than {most:,} bytes")


@pytest.mark.parametrize("name", SETTINGS)
def test_depth_is_bounded_before_anything_walks_through_the_value(name: str, folder: Path) -> None:
    nested = '{"a": ' + "[" * DEEPEST + "]" * DEEPEST + "}"
    (folder / name).write_text(nested, encoding="utf-8")
    refusal(folder, CorruptFile, f"{name} nests objects or arrays too deeply")


def test_byte_order_marks_are_read_over(folder: Path) -> None:
    whole = read_checkpoint(folder)
    for name in FILES[:-1]:
        (folder / name).write_bytes(MARK + (folder / name).read_bytes())
    marked = read_checkpoint(folder)
    assert (marked.settings, marked.shape) == (whole.settings, whole.shape)
    assert marked.tokenizer_json == whole.tokenizer_json


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_before_a_vocabulary_is_no_part_of_a_token(
    folder: Path, end: bytes
) -> None:
    (folder / "tokenizer.json").unlink()
    lines = [token.encode() for token in VOCABULARY]
    (folder / "vocab.txt").write_bytes(MARK + end.join(lines) + end)
    marked = json.loads(read_checkpoint(folder).tokenizer_json)["model"]["vocab"]
    assert marked == {token: place for place, token in enumerate(VOCABULARY)}


@pytest.mark.parametrize("name", ["more.json", "vocab.txt"])
def test_file_that_is_only_hashed_is_bounded_too(name: str, folder: Path) -> None:
    (folder / name).touch()
    os.truncate(folder / name, 1 << 40)
    refusal(folder, CorruptFile, f"{name} has more than {MOST_TABLE:,} bytes")
