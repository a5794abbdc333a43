"""Puts an artifact on disk, whole or not at all, and recognises one that is already there."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from export.errors import CannotWrite
from server.errors import BadArtifact
from server.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, Manifest, read_manifest


def settings_hash(settings: dict[str, Any]) -> str:
    """Identity of everything that went into an export, as one sha256."""
    return hashlib.sha256(canonical_json(settings)).hexdigest()


def canonical_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def fingerprint(model: bytes, tokenizer: bytes, text_rules: dict[str, Any]) -> str:
    """Identity of the vector space: the same graph, vocabulary and text preparation.

    Instructions are left out: they are put before a text, they do not change the space.
    """
    digest = hashlib.sha256()
    for part in (model, tokenizer, canonical_json(text_rules)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def is_current(folder: Path, settings: str) -> bool:
    """Whether `folder` holds an undamaged artifact made with the same settings."""
    try:
        return read_manifest(folder).settings_sha256 == settings
    except BadArtifact:
        return False


def check_replaceable(folder: Path) -> None:
    """Refuse to put an artifact where something else is: it would be lost."""
    try:
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise CannotWrite(
            f"cannot write {folder}: {error.strerror}", f"无法写入 {folder}：{error.strerror}"
        ) from None
    others = sorted(set(names) - {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE})
    if others:
        raise CannotWrite(
            f"{folder} holds {others[0]}, which is no part of an artifact and would be lost;"
            " choose another --out",
            f"{folder} 中有不属于导出结果的 {others[0]}，覆盖会使其丢失；请用 --out 指定其他文件夹",
        )


def write_artifact(folder: Path, model: bytes, tokenizer: bytes, manifest: Manifest) -> None:
    """Write the three files beside `folder`, then move them there in one step."""
    folder = folder.resolve()
    files = {
        MODEL_FILE: model,
        TOKENIZER_FILE: tokenizer,
        MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n",
    }
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    # In a container a killed export had the same process id.
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        for name, content in files.items():
            _write_durably(scratch / name, content)
        _replace_folder(folder, scratch)
    except OSError as error:
        size = sum(map(len, files.values())) / 1e6
        if error.errno == errno.ENOSPC:
            raise CannotWrite(
                f"no space left to write {size:.0f} MB beside {folder}; free some and run again",
                f"磁盘空间不足，无法在 {folder} 旁写入 {size:.0f} MB；请释放空间后重试",
            ) from None
        raise CannotWrite(
            f"cannot write {folder}: {error.strerror}", f"无法写入 {folder}：{error.strerror}"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace_folder(folder: Path, scratch: Path) -> None:
    """A folder cannot replace one with files in it, so the old one steps aside first."""
    if not folder.exists():
        scratch.rename(folder)
        return
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(aside)
    try:
        scratch.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
