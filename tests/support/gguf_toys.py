"""Small GGUF files, written by hand: toy checkpoints as llama.cpp's converter stores them."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from export.source.gguf.networks import ARCHITECTURES
from tests.support.toys import SPECIAL, read_json

ALIGNMENT = 32
Array = npt.NDArray[Any]
# The number of a type, and the bytes of an array in it.
Store = tuple[int, Callable[[Array], bytes]]


def as_q8_0(array: Array) -> bytes:
    """Return rows in blocks of 32 numbers, each with a scale, as GGML rounds them."""
    blocks = array.reshape(-1, 32)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
    codes = np.rint(np.divide(blocks, scales, where=scales > 0, out=np.zeros_like(blocks)))
    stored = [scales.astype(np.float16).view(np.uint8), codes.astype(np.int8).view(np.uint8)]
    return np.concatenate(stored, axis=1).tobytes()


F32: Store = (0, lambda array: array.astype(np.float32).tobytes())
F16: Store = (1, lambda array: array.astype(np.float16).tobytes())
Q8_0: Store = (8, as_q8_0)


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def value(given: Any) -> bytes:
    """Return a setting with its type."""
    if isinstance(given, bool):
        return struct.pack("<I?", 7, given)
    if isinstance(given, int):
        return struct.pack("<II", 4, given)
    if isinstance(given, float):
        return struct.pack("<If", 6, given)
    if isinstance(given, str):
        return struct.pack("<I", 8) + text(given)
    kind = 8 if isinstance(given[0], str) else 5
    elements = b"".join(text(each) if kind == 8 else struct.pack("<i", each) for each in given)
    return struct.pack("<IIQ", 9, kind, len(given)) + elements


def write_gguf(
    path: Path, settings: Mapping[str, Any], tensors: Mapping[str, Array], store: Store = F32
) -> Path:
    """Write a file; tensors of one dimension stay in float32, as the converter leaves them."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings))
    head += b"".join(text(key) + value(each) for key, each in settings.items())
    content = b""
    for name, array in tensors.items():
        kind, stored = store if array.ndim > 1 else F32
        dimensions = struct.pack(f"<I{array.ndim}Q", array.ndim, *reversed(array.shape))
        head += text(name) + dimensions + struct.pack("<IQ", kind, len(content))
        content += stored(array)
        content += bytes(-len(content) % ALIGNMENT)
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + content)
    return path


def gguf_of(
    folder: Path,
    path: Path,
    store: Store = F32,
    more: Mapping[str, Array] | None = None,
    **changes: Any,
) -> Path:
    """Write a toy checkpoint's folder as a GGUF file.

    more: tensors besides. changes: settings; `...` leaves one out.
    """
    config = read_json(folder / "config.json")
    pooling = read_json(folder / "1_Pooling" / "config.json")
    architecture = config["model_type"].replace("_", "-")
    tensors = load_file(folder / "model.safetensors")
    stored = {stored_name(architecture, name): each for name, each in tensors.items()}
    settings = {
        "general.architecture": architecture,
        "general.name": "Toy",
        **{f"{architecture}.{key}": each for key, each in SETTINGS[architecture](config).items()},
        f"{architecture}.pooling_type": 1 + FLAGS.index(next(f for f in FLAGS if pooling.get(f))),
        **tokens_of(folder, len(stored["token_embd.weight"])),
    }
    settings |= {key.replace("__", "."): each for key, each in changes.items()}
    kept = {key: each for key, each in settings.items() if each is not ...}
    return write_gguf(path, kept, {**stored, **(more or {})}, store)


def stored_name(architecture: str, name: str) -> str:
    """Return llama.cpp's name of a checkpoint's tensor."""
    names = ARCHITECTURES[architecture].names
    base, _, end = name.rpartition(".")
    whole = {given: stored for stored, given in names.whole.items()}
    if base in whole:
        return f"{whole[base]}.{end}"
    index, _, part = base.removeprefix(f"{names.layer}.").partition(".")
    return f"blk.{index}.{ {given: stored for stored, given in names.parts.items()}[part] }.{end}"


def _bert(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "feed_forward_length": config["intermediate_size"],
        "context_length": config["max_position_embeddings"],
        "attention.layer_norm_epsilon": config["layer_norm_eps"],
        "attention.causal": False,
    }


def _nomic(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_length": config["n_embd"],
        "block_count": config["n_layer"],
        "attention.head_count": config["n_head"],
        "feed_forward_length": config["n_inner"],
        "context_length": config["n_positions"],
        "attention.layer_norm_epsilon": config["layer_norm_epsilon"],
        "attention.causal": False,
        "rope.freq_base": float(config["rotary_emb_base"]),
    }


def _qwen3(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "feed_forward_length": config["intermediate_size"],
        "context_length": config["max_position_embeddings"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": float(config["rope_theta"]),
    }


SETTINGS = {"bert": _bert, "nomic-bert": _nomic, "qwen3": _qwen3}
FLAGS = ("pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_lasttoken")


def tokens_of(folder: Path, rows: int) -> dict[str, Any]:
    """Return the settings of a tokenizer, with unused tokens up to the rows of the embeddings."""
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    model = read_json(folder / "tokenizer.json")["model"]["type"]
    if model == "WordPiece":
        tokens = [
            each if each in SPECIAL else each[2:] if each.startswith("##") else f"▁{each}"
            for each in tokens
        ]
    unused = [f"[PAD{place}]" for place in range(len(tokens), rows)]
    kinds = [3 if each in SPECIAL else 1 for each in tokens]
    return {
        "tokenizer.ggml.model": "bert" if model == "WordPiece" else "gpt2",
        "tokenizer.ggml.tokens": [*tokens, *unused],
        "tokenizer.ggml.token_type": [*kinds, *(5 for _ in unused)],
    }
