"""Changes to a toy checkpoint's folder, and the error that reading it then raises."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import read_checkpoint
from export.errors import (
    ExportError,
)
from tests.support.toys import read_json, write_json

WORDS = "embeddings.word_embeddings.weight"
# Files of settings of a whole toy checkpoint.
SETTINGS = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
)


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; the value `...` removes a key."""
    content = read_json(path)
    content |= values
    write_json(path, {key: value for key, value in content.items() if value is not ...})


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder: Path, kind: type[ExportError], *parts: str) -> ExportError:
    """Expect an error of exactly this kind, with these parts, in both languages; returns it."""
    with pytest.raises(ExportError) as caught:
        read_checkpoint(folder)
    error = caught.value
    assert type(error) is kind, error.english
    for part in parts:
        assert part in error.english
    assert any("\u4e00" <= character <= "\u9fff" for character in error.chinese)
    assert not error.english.endswith(".") and not error.chinese.endswith("。")
    return error


def write_safetensors(path: Path, tensors: dict[str, tuple[str, Any, bytes]]) -> None:
    """Write the format by hand: name -> (element type, shape, bytes)."""
    header, content = {}, b""
    for name, (element, shape, raw) in tensors.items():
        span = [len(content), len(content) + len(raw)]
        header[name] = {"dtype": element, "shape": list(shape), "data_offsets": span}
        content += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content)
