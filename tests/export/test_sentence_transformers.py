"""Toy folders through sentence-transformers itself: the same texts give the same vectors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.relatives import RELATIVES, write_relative
from tests.support.toys import VOCABULARY, toy_texts, write_json, write_toy_checkpoint

pytestmark = pytest.mark.torch

TEXTS = [
    *toy_texts(20, seed=4),
    "INK Ínk ink",
    " \t墨池\n第二行\u2028ＡＩ ",
    "search" * 40,
    "",
    "[MASK] 墨 [SEP] 池",
]


def as_written(folder: Path) -> None:
    del folder


def without_lower_case_setting(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})


def without_tokenizer_configuration(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()


def with_vocabulary_alone(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def with_cased_vocabulary_alone(folder: Path) -> None:
    with_vocabulary_alone(folder)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "strip_accents": True})


def without_length_limit(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": None})


def with_short_texts(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 7, "do_lower_case": True})


def without_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()


def with_pooling_left_to_its_default(folder: Path) -> None:
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32})


def with_tokenizer_that_pads_and_cuts(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    write_json(path, content)


@pytest.mark.parametrize(
    "prepare",
    [
        as_written,
        without_lower_case_setting,
        without_tokenizer_configuration,
        with_vocabulary_alone,
        with_cased_vocabulary_alone,
        without_length_limit,
        with_short_texts,
        without_modules,
        with_pooling_left_to_its_default,
        with_tokenizer_that_pads_and_cuts,
    ],
    ids=lambda prepare: prepare.__name__,
)
def test_folder_means_what_sentence_transformers_takes_it_for(
    prepare: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = write_toy_checkpoint(tmp_path)
    prepare(folder)
    assert_same_vectors(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "mean"},
        {"pooling": "max", "normalize": False},
        {"activation": "gelu_new"},
        {"activation": "relu", "hidden": 40, "heads": 8},
        {"token_types": 1, "layers": 3, "lower_case": False},
    ],
    ids=str,
)
def test_network_computes_what_torch_computes(options: dict[str, Any], tmp_path: Path) -> None:
    assert_same_vectors(write_toy_checkpoint(tmp_path, **options))


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_compute_what_torch_computes(name: str, tmp_path: Path) -> None:
    assert_same_vectors(write_relative(tmp_path, name, pooling="mean"))


def test_pickled_weights_give_the_same_vectors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = write_toy_checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(
        {name: torch.from_numpy(array) for name, array in tensors.items()},
        folder / "pytorch_model.bin",
    )
    found = read_checkpoint(folder, allow_pickle=True).tensors
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


def test_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = write_toy_checkpoint(tmp_path / "toy")
    (folder / "model.safetensors").unlink()
    # A class outside torch's list of harmless ones is enough to be refused.
    torch.save({"path": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(CorruptFile, match=r"pytorch_model\.bin cannot be read as weights only"):
        read_checkpoint(folder, allow_pickle=True)


def assert_same_vectors(folder: Path) -> None:
    module = pytest.importorskip("sentence_transformers")
    model = module.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = np.concatenate([model.encode([text], show_progress_bar=False) for text in TEXTS])
    checkpoint = read_checkpoint(folder)
    found = one_by_one(float_encoder(checkpoint), token_ids(checkpoint, TEXTS))
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < 1e-5
