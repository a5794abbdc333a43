"""Toy models that give more than one vector a text, and a slow reference of what they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from export.pipeline import export
from export.settings import Settings
from server.inference.model import Model
from server.types import Task
from tests.support.checkpoints import change_json
from tests.support.reference_bert import ACTIVATIONS, Array, ReferenceBert
from tests.support.relatives import PADDING_SECOND, write_relative
from tests.support.toys import (
    write_json,
    write_toy_checkpoint,
    write_toy_texts,
    write_typed_modules,
)

# The width of the toy's ColBERT vectors; other than that of its rows.
COLBERT_WIDTH = 24
# What the toy's tokenizer settings name, so that nothing else counts as special.
SPECIAL = {
    "cls_token": "[CLS]",
    "eos_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
}


def write_toy_m3(folder: Path, **options: Any) -> Path:
    """Write a random XLM-R with the two heads of bge-m3; returns `folder`."""
    write_relative(folder, "xlm-roberta", **options)
    generator = np.random.default_rng(11)
    hidden = options.get("hidden", 32)
    for name, outputs in (("sparse_linear", 1), ("colbert_linear", COLBERT_WIDTH)):
        weight = generator.standard_normal((outputs, hidden)).astype(np.float32) * hidden**-0.5
        bias = generator.standard_normal(outputs).astype(np.float32) * np.float32(0.1)
        save_file({"weight": weight, "bias": bias}, folder / f"{name}.safetensors")
    change_json(folder / "tokenizer_config.json", **SPECIAL)
    return folder


# Prefix of the network's tensors; the head's dense layer, norm and bias; and the architecture.
MASKED = {
    "bert": (
        *("bert.", "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
        *("cls.predictions.bias", "BertForMaskedLM"),
    ),
    "xlm-roberta": (
        *("roberta.", "lm_head.dense", "lm_head.layer_norm"),
        *("lm_head.bias", "XLMRobertaForMaskedLM"),
    ),
    "distilbert": (
        *("distilbert.", "vocab_transform", "vocab_layer_norm"),
        *("vocab_projector.bias", "DistilBertForMaskedLM"),
    ),
}
SPLADE_MODULES = {
    "": "sparse_encoder.models.MLMTransformer",
    "1_SpladePooling": "sparse_encoder.models.SpladePooling",
}


def write_toy_splade(
    folder: Path,
    kind: str = "bert",
    *,
    pooling: str = "max",
    activation: str = "relu",
    **options: Any,
) -> Path:
    """Write a random SPLADE model, about half of whose weights are 0; returns `folder`."""
    if kind == "bert":
        write_toy_checkpoint(folder, **options)
    else:
        write_relative(folder, kind, **options)
    prefix, dense, norm, bias, architecture = MASKED[kind]
    stored = load_file(folder / "model.safetensors")
    tensors = {f"{prefix}{name.removeprefix(prefix)}": each for name, each in stored.items()}
    words, hidden = tensors[f"{prefix}embeddings.word_embeddings.weight"].shape
    generator = np.random.default_rng(12)

    def normal(*shape: int, scale: float = 0.1) -> npt.NDArray[np.float32]:
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    tensors[f"{dense}.weight"] = normal(hidden, hidden, scale=hidden**-0.5)
    tensors[f"{dense}.bias"] = normal(hidden)
    tensors[f"{norm}.weight"], tensors[f"{norm}.bias"] = 0.3 + normal(hidden), normal(hidden)
    tensors[bias] = normal(words) - np.float32(2)
    save_file(tensors, folder / "model.safetensors")
    change_json(folder / "config.json", architectures=[architecture], tie_word_embeddings=True)
    write_typed_modules(folder, SPLADE_MODULES)
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "1_Pooling").rmdir()
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    settings = {"pooling_strategy": pooling, "activation_function": activation}
    write_json(folder / "1_SpladePooling" / "config.json", settings)
    return folder


def export_toy(checkpoint: Path, task: Task | None = None, *, allow_pickle: bool = False) -> Model:
    """Export one task of a toy in float32, and open it."""
    beside = checkpoint.parent
    settings = Settings(
        source=str(checkpoint),
        precision="fp32",
        task=task,
        calibration=write_toy_texts(beside / "calibration.txt", 20),
        verify_texts=write_toy_texts(beside / "verification.txt", 10, seed=1),
        allow_pickle=allow_pickle,
    )
    return Model(export(settings))


class ReferenceRows(ReferenceBert):
    """A toy BERT's or toy m3's folder as a function from the token ids of one text to rows and more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.tensors = {name.removeprefix("bert."): each for name, each in self.tensors.items()}
        if self.config["model_type"] == "xlm-roberta":
            tensors = {name.removeprefix("roberta."): each for name, each in self.tensors.items()}
            position = "embeddings.position_embeddings.weight"
            tensors[position] = tensors[position][self.config["pad_token_id"] + 1 :]
            self.tensors = tensors

    def rows(self, ids: npt.NDArray[np.int64]) -> Array:
        """Return the last hidden state of every token, (T, D)."""
        return np.asarray(self.hidden(ids[None])[0])

    def head(self, name: str, rows: Array) -> Array:
        stored = load_file(self.folder / f"{name}.safetensors")
        return np.asarray(rows @ stored["weight"].T.astype(np.float64) + stored["bias"])

    def colbert(self, ids: npt.NDArray[np.int64]) -> Array:
        """Return the vectors of all tokens but the first, as FlagEmbedding does."""
        found = self.head("colbert_linear", self.rows(ids)[1:])
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    def lexical_weights(self, ids: npt.NDArray[np.int64]) -> dict[int, float]:
        """Return the weights by token id, as FlagEmbedding does."""
        weights = np.maximum(self.head("sparse_linear", self.rows(ids))[:, 0], 0)
        special = {PADDING_SECOND.index(token) for token in SPECIAL.values()}
        found: dict[int, float] = {}
        for token, weight in zip(ids.tolist(), weights, strict=True):
            if token not in special and weight > found.get(token, 0):
                found[token] = float(weight)
        return found

    def words(self, ids: npt.NDArray[np.int64], pooling: str, logarithms: int) -> Array:
        """Return the weight of every word, (V,), as SpladePooling makes it of BertForMaskedLM."""
        head = "cls.predictions"
        rows = self.linear(self.rows(ids), f"{head}.transform.dense")
        active = ACTIVATIONS[self.config["hidden_act"]](rows)
        rows = self.layer_norm(active, f"{head}.transform.LayerNorm")
        table = self.tensors["embeddings.word_embeddings.weight"]
        numbers = np.maximum(rows @ table.T + self.tensors[f"{head}.bias"], 0)
        for _ in range(logarithms):
            numbers = np.log1p(numbers)
        return np.asarray(numbers.max(axis=0) if pooling == "max" else numbers.sum(axis=0))
