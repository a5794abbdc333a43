"""The commands that a refusal shows, run as they stand, with sentence-transformers and peft."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.checkpoint import read_checkpoint
from export.errors import UnsupportedModel
from export.kinds.commands import merge_command, save_command
from server.inference.comparison import row_cosines
from tests.support.checkpoints import change_json, refusal
from tests.support.toys import write_toy_checkpoint

pytestmark = pytest.mark.torch


def run(command: str, folder: Path) -> None:
    """Run a command as a shell does, with this Python."""
    done = subprocess.run(
        command.replace("python", sys.executable, 1),
        shell=True,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_merged_adapter_gives_the_vectors_of_the_adapted_model(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    peft = pytest.importorskip("peft")
    base = write_toy_checkpoint(tmp_path / "base")
    adapted = library.SentenceTransformer(str(base), device="cpu")
    plain = adapted.encode(["ink 墨"])
    adapted.add_adapter(
        peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    )
    expected = adapted.encode(["ink 墨"])
    adapted.save(str(tmp_path / "adapter"))
    change_json(tmp_path / "adapter/adapter_config.json", base_model_name_or_path=str(base))
    error = refusal(tmp_path / "adapter", UnsupportedModel)
    command = merge_command(str(base), str(tmp_path / "adapter"))
    assert command in error.english
    run(command, tmp_path)
    assert read_checkpoint(tmp_path / "merged").settings.pooling == "cls"
    found = library.SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode(["ink 墨"])
    assert row_cosines(found, expected).min() > 0.99999
    assert row_cosines(plain, expected).min() < 0.99


def test_folder_is_saved_in_the_layout_of_sentence_transformers(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    folder = write_toy_checkpoint(tmp_path / "toy")
    (folder / "modules.json").unlink()
    change_json(folder / "config.json", architectures=["BertForMaskedLM"])
    run(save_command(str(folder)), tmp_path)
    assert read_checkpoint(tmp_path / "saved").settings.pooling == "mean"
