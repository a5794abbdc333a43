"""Toy cross-encoders as the hub has them, with random weights, and a slow reference of what they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, processors

from tests.support.checkpoints import change_json
from tests.support.reference_bert import Array, ReferenceBert
from tests.support.relatives import RELATIVES, VOCABULARIES, write_relative
from tests.support.toys import VOCABULARY, write_toy_checkpoint

# Names of a head's two layers, the prefix of the other tensors, and the architecture.
HEADS = {
    "bert": ("bert.pooler.dense", "classifier", "bert.", "BertForSequenceClassification"),
    "xlm-roberta": (
        *("classifier.dense", "classifier.out_proj"),
        *("roberta.", "XLMRobertaForSequenceClassification"),
    ),
    "roberta": (
        *("classifier.dense", "classifier.out_proj"),
        *("roberta.", "RobertaForSequenceClassification"),
    ),
    "distilbert": (
        *("pre_classifier", "classifier"),
        *("distilbert.", "DistilBertForSequenceClassification"),
    ),
    "mpnet": (
        *("classifier.dense", "classifier.out_proj"),
        *("mpnet.", "MPNetForSequenceClassification"),
    ),
}


def write_cross_encoder(
    folder: Path, kind: str = "bert", *, hidden: int = 32, seed: int = 0, **options: Any
) -> Path:
    """Write a random cross-encoder with one label; returns `folder`. options: of `write_toy_checkpoint`."""
    if kind in RELATIVES:
        write_relative(folder, kind, hidden=hidden, seed=seed, **options)
    else:
        write_toy_checkpoint(folder, hidden=hidden, seed=seed, **options)
    dense, output, prefix, architecture = HEADS[kind]
    stored = load_file(folder / "model.safetensors")
    tensors = {f"{prefix}{name.removeprefix(prefix)}": each for name, each in stored.items()}
    generator = np.random.default_rng(seed + 100)
    for name, outputs in ((dense, hidden), (output, 1)):
        weight = generator.standard_normal((outputs, hidden)) * (1.5 * hidden**-0.5)
        tensors[f"{name}.weight"] = weight.astype(np.float32)
        tensors[f"{name}.bias"] = generator.standard_normal(outputs).astype(np.float32) * 0.1
    save_file(tensors, folder / "model.safetensors")
    change_json(
        folder / "config.json",
        architectures=[architecture],
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
    )
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    (folder / "1_Pooling").rmdir()
    if "roberta" in kind:
        _join_as_roberta(folder / "tokenizer.json", VOCABULARIES.get(kind, VOCABULARY))
    return folder


def _join_as_roberta(path: Path, vocabulary: Any) -> None:
    built = Tokenizer.from_file(str(path))
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] [SEP] $B [SEP]",
        special_tokens=[(token, vocabulary.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    built.save(str(path))


class ReferenceCrossEncoder(ReferenceBert):
    """A folder of a BERT cross-encoder as a function from token ids and types to scores before activation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tensors = {name.removeprefix("bert."): each for name, each in self.tensors.items()}

    def score(self, ids: npt.NDArray[np.int64], types: npt.NDArray[np.int64]) -> float:
        """Return the score of one pair; both are int64 (T,)."""
        hidden = self.typed_embeddings(ids[None], types[None])
        for index in range(self.config["num_hidden_layers"]):
            hidden = self.layer(hidden, f"encoder.layer.{index}")
        pooled = np.tanh(self.linear(hidden[:, 0], "pooler.dense"))
        return float(self.linear(pooled, "classifier")[0, 0])

    def typed_embeddings(self, ids: npt.NDArray[np.int64], types: npt.NDArray[np.int64]) -> Array:
        tables = "word_embeddings", "position_embeddings", "token_type_embeddings"
        word, position, kind = (self.tensors[f"embeddings.{name}.weight"] for name in tables)
        total = word[ids] + position[: ids.shape[1]] + kind[types]
        return self.layer_norm(total, "embeddings.LayerNorm")
