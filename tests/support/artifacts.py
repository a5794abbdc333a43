"""An artifact of a few bytes, for tests of how one is put on disk."""

import hashlib
from pathlib import Path

import msgspec

from export.onnx_file import OnnxFile
from server.inference.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Manifest,
    read_manifest,
)

FILES = {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE}
MODEL, TOKENIZER = b"model" * 1000, b"tokenizer"
GRAPH = OnnxFile(MODEL)


def small_manifest(toy_artifact: Path) -> Manifest:
    """Return the toy's manifest, for the bytes above."""
    return msgspec.structs.replace(
        read_manifest(toy_artifact),
        settings_sha256="these settings",
        files={MODEL_FILE: sha256(MODEL), TOKENIZER_FILE: sha256(TOKENIZER)},
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
