"""Toy checkpoints of BERT's relatives, made from a toy BERT so that they compute what it computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.support.checkpoints import change_json
from tests.support.toys import VOCABULARY, write_toy_checkpoint

POSITIONS, TOKEN_TYPES = (
    f"embeddings.{name}_embeddings.weight" for name in ("position", "token_type")
)
PARTS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
MPNET_PARTS = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}
GENERATOR = np.random.default_rng(7)


def _loaded(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def _store(folder: Path, tensors: dict[str, Any], **config: Any) -> None:
    save_file(tensors, folder / "model.safetensors")
    change_json(folder / "config.json", **config)
    change_json(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        pad_token="[PAD]",
        model_input_names=["input_ids", "attention_mask"],
    )


def as_roberta(folder: Path, padding: int = 1, kind: str = "xlm-roberta") -> None:
    """Give the positions rows for the padding in front, and one token type, as XLM-R has."""
    tensors = _loaded(folder)
    rows = tensors[POSITIONS]
    unused = GENERATOR.standard_normal((padding + 1, rows.shape[1])).astype(np.float32)
    tensors[POSITIONS] = np.concatenate([unused, rows])
    tensors[TOKEN_TYPES] = tensors[TOKEN_TYPES][:1]
    _store(
        folder,
        {f"roberta.{name}": tensor for name, tensor in tensors.items()},
        model_type=kind,
        architectures=["XLMRobertaModel"],
        max_position_embeddings=len(rows) + padding + 1,
        pad_token_id=padding,
        type_vocab_size=1,
    )
    change_json(folder / "tokenizer_config.json", model_max_length=len(rows))


def as_ernie(folder: Path) -> None:
    """Take a part of the positions into the embedding of task 0."""
    tensors = _loaded(folder)
    tasks = GENERATOR.standard_normal((3, tensors[POSITIONS].shape[1])).astype(np.float32)
    tensors["embeddings.task_type_embeddings.weight"] = tasks
    tensors[POSITIONS] = tensors[POSITIONS] - tasks[0]
    _store(
        folder,
        tensors,
        model_type="ernie",
        architectures=["ErnieModel"],
        use_task_id=True,
        task_type_vocab_size=3,
    )


def as_distilbert(folder: Path) -> None:
    """Take the token type into the positions, and give everything DistilBERT's name."""
    tensors = _loaded(folder)
    tensors[POSITIONS] = tensors[POSITIONS] + tensors.pop(TOKEN_TYPES)[0]
    named = {}
    for name, tensor in tensors.items():
        name = name.replace("encoder.layer.", "transformer.layer.")
        if name.startswith("transformer."):
            *place, _ = name.split(".", 3)
            part, _, end = name.removeprefix(".".join(place) + ".").rpartition(".")
            name = ".".join([*place, PARTS[part], end])
        named[f"distilbert.{name}"] = tensor
    _store(
        folder,
        named,
        model_type="distilbert",
        architectures=["DistilBertModel"],
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        activation="gelu",
        hidden_size=...,
        num_hidden_layers=...,
        num_attention_heads=...,
        intermediate_size=...,
        layer_norm_eps=...,
        hidden_act=...,
        type_vocab_size=...,
    )


def as_mpnet(folder: Path) -> None:
    """Take the token type into the positions, add a bias by distance that is 0, and rename the parts."""
    tensors = _loaded(folder)
    rows = tensors[POSITIONS] + tensors.pop(TOKEN_TYPES)[0]
    unused = GENERATOR.standard_normal((2, rows.shape[1])).astype(np.float32)
    tensors[POSITIONS] = np.concatenate([unused, rows])
    tensors["encoder.relative_attention_bias.weight"] = np.zeros((32, 4), np.float32)
    named = {}
    for name, tensor in tensors.items():
        for part, own in MPNET_PARTS.items():
            name = name.replace(part, own)
        named[f"mpnet.{name}"] = tensor
    _store(
        folder,
        named,
        model_type="mpnet",
        architectures=["MPNetModel"],
        max_position_embeddings=len(rows) + 2,
        pad_token_id=1,
        type_vocab_size=...,
    )
    change_json(folder / "tokenizer_config.json", model_max_length=len(rows))


RELATIVES: dict[str, Callable[[Path], None]] = {
    "xlm-roberta": as_roberta,
    "xlm-roberta, padding 0": lambda folder: as_roberta(folder, padding=0),
    "roberta": lambda folder: as_roberta(folder, kind="roberta"),
    "ernie": as_ernie,
    "distilbert": as_distilbert,
    "mpnet": as_mpnet,
}

# Transformers gives a token with the padding's id no position of its own.
PADDING_SECOND = ("[UNK]", "[PAD]", *VOCABULARY[2:])
VOCABULARIES = {"xlm-roberta": PADDING_SECOND, "roberta": PADDING_SECOND, "mpnet": PADDING_SECOND}


def write_relative(folder: Path, name: str, **options: Any) -> Path:
    """Write a random toy checkpoint of a relative; it computes what `write_toy_checkpoint`'s computes."""
    RELATIVES[name](
        write_toy_checkpoint(folder, vocabulary=VOCABULARIES.get(name, VOCABULARY), **options)
    )
    return folder
