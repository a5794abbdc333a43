"""A BERT sentence encoder in plain numpy and float64: slow, short, and independent of `export`.

It reads a checkpoint folder by itself and computes every row of every layer, with no shortcut.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tests.support.toys import read_json

Array = npt.NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
}


class ReferenceBert:
    """A checkpoint folder as a function from token ids to vectors."""

    def __init__(self, folder: Path) -> None:
        self.config = read_json(folder / "config.json")
        stored = load_file(folder / "model.safetensors")
        self.tensors = {name: array.astype(np.float64) for name, array in stored.items()}
        self.pooling, self.normalize = "cls", False
        if not (folder / "1_Pooling").exists() or not (folder / "modules.json").exists():
            return
        pooling = read_json(folder / "1_Pooling" / "config.json")
        (flag,) = (flag for flag, chosen in pooling.items() if chosen is True)
        self.pooling = {
            "pooling_mode_cls_token": "cls",
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_max_tokens": "max",
        }[flag]
        modules = [module["type"] for module in read_json(folder / "modules.json")]
        self.normalize = any(module.endswith(".Normalize") for module in modules)

    def embed(self, ids: npt.NDArray[np.int64]) -> Array:
        """Return the vectors of token ids: int64 (B, T), without padding -> float64 (B, D)."""
        hidden = self.hidden(ids)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            pooled = hidden.mean(axis=1) if self.pooling == "mean" else hidden.max(axis=1)
        if self.normalize:
            pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        hidden = self.embeddings(ids)
        for index in range(self.config["num_hidden_layers"]):
            hidden = self.layer(hidden, f"encoder.layer.{index}")
        return hidden

    def embeddings(self, ids: npt.NDArray[np.int64]) -> Array:
        tables = "word_embeddings", "position_embeddings", "token_type_embeddings"
        word, position, token_type = (self.tensors[f"embeddings.{name}.weight"] for name in tables)
        total = word[ids] + position[: ids.shape[1]] + token_type[0]
        return self.layer_norm(total, "embeddings.LayerNorm")

    def layer(self, hidden: Array, name: str) -> Array:
        attended = self.linear(self.attention(hidden, name), f"{name}.attention.output.dense")
        hidden = self.layer_norm(attended + hidden, f"{name}.attention.output.LayerNorm")
        activation = ACTIVATIONS[self.config["hidden_act"]]
        wide = activation(self.linear(hidden, f"{name}.intermediate.dense"))
        narrow = self.linear(wide, f"{name}.output.dense")
        return self.layer_norm(narrow + hidden, f"{name}.output.LayerNorm")

    def attention(self, hidden: Array, name: str) -> Array:
        batch, tokens, width = hidden.shape
        heads = self.config["num_attention_heads"]

        def split(part: str) -> Array:  # -> (B, H, T, D / H)
            projected = self.linear(hidden, f"{name}.attention.self.{part}")
            return projected.reshape(batch, tokens, heads, -1).swapaxes(1, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.swapaxes(2, 3) / math.sqrt(width // heads)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray((weights @ value).swapaxes(1, 2).reshape(batch, tokens, width))

    def linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"])

    def layer_norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + self.config["layer_norm_eps"])
        return np.asarray(scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"])
