"""An export is done again when something that goes into it has changed, and only then."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from export.pipeline import export
from export.settings import Settings
from export.verification.verify import Thresholds
from server.inference.manifest import read_manifest
from tests.support.exports import artifact_files, change, toy_settings
from tests.support.toys import write_toy_checkpoint, write_toy_texts


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return toy_settings(tmp_path)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_two_exports_are_the_same_byte_for_byte(
    precision: Any, settings: Settings, tmp_path: Path
) -> None:
    first = export(change(settings, precision=precision, out=tmp_path / "a"))
    second = export(change(settings, precision=precision, out=tmp_path / "b"))
    assert artifact_files(first) == artifact_files(second)


def test_vector_space_is_the_same_under_another_name_and_with_other_instructions(
    settings: Settings, tmp_path: Path
) -> None:
    first = read_manifest(export(change(settings, precision="fp32")))
    shutil.copytree(tmp_path / "toy", tmp_path / "renamed")
    other = read_manifest(
        export(
            change(
                settings,
                source=str(tmp_path / "renamed"),
                precision="fp32",
                out=tmp_path / "other",
                model_id="renamed",
                query_instruction="查询：",
            )
        )
    )
    assert other.model_id != first.model_id
    assert other.files == first.files
    assert other.fingerprint == first.fingerprint


def test_vector_space_is_another_for_other_precision_bits_or_texts(
    settings: Settings, tmp_path: Path
) -> None:
    other_texts = write_toy_texts(tmp_path / "other.txt", 60, seed=5)
    changes: list[dict[str, Any]] = [
        {},
        {"precision": "fp32"},
        {"weight_bits": 7},
        {"calibration": other_texts},
    ]
    fingerprints = {
        read_manifest(export(change(settings, out=tmp_path / str(index), **values))).fingerprint
        for index, values in enumerate(changes)
    }
    assert len(fingerprints) == 4


def test_second_run_says_that_nothing_changed_and_writes_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(settings)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    said = capsys.readouterr().out
    assert "cosine to float32 on" in said
    assert export(settings) == folder
    said = capsys.readouterr().out
    assert said.splitlines() == [f"{folder} is up to date"]
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before


def exported_again(settings: Settings, folder: Path) -> bool:
    """Export to `folder`; returns whether it was written."""
    before = (folder / "manifest.json").stat().st_ino if (folder / "manifest.json").exists() else 0
    export(change(settings, out=folder))
    return (folder / "manifest.json").stat().st_ino != before


@pytest.mark.parametrize(
    "values",
    [
        {"weight_bits": 7},
        {"thresholds": Thresholds(0.99, 0.89)},
        {"model_id": "another name"},
        {"query_instruction": "查询："},
        {"document_instruction": "文档："},
        {"matryoshka": (16,)},
        {"precision": "fp32"},
        {"force": True},
    ],
    ids=lambda values: next(iter(values)),
)
def test_changed_setting_exports_again(
    values: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert exported_again(settings, folder)
    assert not exported_again(settings, folder)
    assert exported_again(change(settings, **values), folder)


@pytest.mark.parametrize("name", ["calibration", "verify_texts"])
def test_changed_texts_export_again_even_under_the_same_name(
    name: str, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    settings = change(settings, precision="fp32")
    assert exported_again(settings, folder)
    path: Path = getattr(settings, name)
    path.write_text(path.read_text(encoding="utf-8") + "新的一行\n", encoding="utf-8")
    assert exported_again(settings, folder)
    copy = path.rename(tmp_path / "moved.txt")
    assert not exported_again(change(settings, **{name: copy}), folder)


def test_texts_of_a_pipe_are_read_once_and_count(settings: Settings, tmp_path: Path) -> None:
    assert settings.calibration is not None
    content, pipe, folder = settings.calibration.read_bytes(), tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(pipe)

    def exported(content: bytes) -> bool:
        writer = threading.Thread(target=lambda: pipe.write_bytes(content))
        writer.start()
        done = exported_again(change(settings, calibration=pipe), folder)
        writer.join()
        return done

    assert exported(content)
    assert not exported(content)
    assert exported(content + "新的一行\n".encode())


def test_changed_checkpoint_exports_again(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    settings = change(settings, precision="fp32")
    assert exported_again(settings, folder)
    write_toy_checkpoint(tmp_path / "toy", lower_case=False)
    assert exported_again(settings, folder)
    write_toy_checkpoint(tmp_path / "toy", lower_case=False, seed=1)
    assert exported_again(settings, folder)
    assert not exported_again(settings, folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", [None, b"damaged"], ids=["gone", "damaged"])
def test_damaged_artifact_is_exported_again(
    name: str, damage: bytes | None, settings: Settings
) -> None:
    settings = change(settings, precision="fp32")
    folder = export(settings)
    whole = artifact_files(folder)
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage)
    export(settings)
    assert artifact_files(folder) == whole
