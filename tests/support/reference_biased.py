"""MPNet and T5's encoder in plain numpy and float64: slow, short, and independent of `export`.

Written from the papers and the config.json of each. Every text is computed alone, with the whole matrix of
scores, and the bucket of a distance is found by counting.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tests.support.reference_bert import Array, ReferenceBert, gelu
from tests.support.reference_gated import GATES, attention, by_head, joined
from tests.support.toys import read_json


def bucket(distance: int, buckets: int, furthest: int) -> int:
    """Return the bucket of a distance: key less query."""
    half = buckets // 2
    near = half // 2
    away, first = abs(distance), half if distance > 0 else 0
    if away < near:
        return first + away
    grown = math.log(away / near) / math.log(furthest / near) * (half - near)
    # A power of two is the edge of a bucket: the logarithm of one may be a hair below.
    return first + min(half - 1, near + math.floor(grown + 1e-9))


def biases(table: Array, tokens: int, furthest: int) -> Array:
    """Return the bias of every score, (H, T, T); table: (buckets, H)."""
    chosen = [bucket(distance, len(table), furthest) for distance in range(1 - tokens, tokens)]
    places = np.arange(tokens)
    distance = places - places[:, None]
    return np.asarray(table[chosen][distance + tokens - 1].transpose(2, 0, 1))


class ReferenceMPNet(ReferenceBert):
    """A checkpoint folder as a function from token ids to vectors."""

    def embeddings(self, ids: npt.NDArray[np.int64]) -> Array:
        words, positions = (
            self.tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position")
        )
        total = words[ids] + positions[2 : 2 + ids.shape[1]]
        return self.layer_norm(total, "embeddings.LayerNorm")

    def layer(self, hidden: Array, name: str) -> Array:
        gathered = np.stack([self._attended(text, f"{name}.attention.attn") for text in hidden])
        hidden = self.layer_norm(gathered + hidden, f"{name}.attention.LayerNorm")
        wide = gelu(self.linear(hidden, f"{name}.intermediate.dense"))
        narrow = self.linear(wide, f"{name}.output.dense")
        return self.layer_norm(narrow + hidden, f"{name}.output.LayerNorm")

    def _attended(self, x: Array, name: str) -> Array:
        heads = self.config["num_attention_heads"]
        query, key, value = (by_head(self.linear(x, f"{name}.{part}"), heads) for part in "qkv")
        table = self.tensors["encoder.relative_attention_bias.weight"]
        gathered = attention(query, key, value, biases(table, len(x), 128))
        return self.linear(joined(gathered), f"{name}.o")


class ReferenceT5:
    """A checkpoint folder as a function from token ids to vectors."""

    def __init__(self, folder: Path) -> None:
        self.config = read_json(folder / "config.json")
        stored = load_file(folder / "model.safetensors")
        self.tensors = {name: array.astype(np.float64) for name, array in stored.items()}
        pooling = read_json(folder / "1_Pooling" / "config.json")
        self.is_mean = pooling["pooling_mode_mean_tokens"]
        modules = [module["type"] for module in read_json(folder / "modules.json")]
        self.normalize = any(module.endswith(".Normalize") for module in modules)

    def embed(self, ids: npt.NDArray[np.int64]) -> Array:
        """Return the vectors of token ids: int64 (B, T), without padding -> float64 (B, D)."""
        return np.stack([self._pooled(self.hidden(text)) for text in ids])

    def _pooled(self, hidden: Array) -> Array:
        pooled = hidden.mean(axis=0) if self.is_mean else hidden.max(axis=0)
        return np.asarray(pooled / np.linalg.norm(pooled) if self.normalize else pooled)

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        x = self.tensors["shared.weight"][ids]
        first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        furthest = self.config["relative_attention_max_distance"]
        bias = biases(self.tensors[first], len(x), furthest)
        for index in range(self.config["num_layers"]):
            name = f"encoder.block.{index}.layer"
            normed = self.norm(x, f"{name}.0.layer_norm")
            x = x + self._attended(normed, bias, f"{name}.0.SelfAttention")
            normed = self.norm(x, f"{name}.1.layer_norm")
            x = x + self._fed_forward(normed, f"{name}.1.DenseReluDense")
        return self.norm(x, "encoder.final_layer_norm")

    def _attended(self, x: Array, bias: Array, name: str) -> Array:
        heads = self.config["num_heads"]
        query, key, value = (by_head(self.linear(x, f"{name}.{part}"), heads) for part in "qkv")
        return self.linear(joined(attention(query, key, value, bias, scale=1.0)), f"{name}.o")

    def _fed_forward(self, x: Array, name: str) -> Array:
        named = self.config["feed_forward_proj"]
        activation = GATES[{"gated-gelu": "gelu_new"}.get(named, named.split("-")[-1])]
        if not named.startswith("gated-"):
            return self.linear(activation(self.linear(x, f"{name}.wi")), f"{name}.wo")
        gate, up = (self.linear(x, f"{name}.wi_{part}") for part in "01")
        return self.linear(activation(gate) * up, f"{name}.wo")

    def linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self.tensors[f"{name}.weight"].T)

    def norm(self, x: Array, name: str) -> Array:
        power = np.square(x).mean(axis=-1, keepdims=True)
        scaled = x / np.sqrt(power + self.config["layer_norm_epsilon"])
        return np.asarray(scaled * self.tensors[f"{name}.weight"])
