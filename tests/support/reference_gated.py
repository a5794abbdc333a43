"""Encoders with gated feed-forward layers in plain numpy and float64, written from papers and configs.

Slow, short, and independent of `export`: a folder is read by itself, every text is computed alone, and
windows and ALiBi are whole matrices of scores.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tests.support.reference_bert import ACTIVATIONS, Array
from tests.support.toys import read_json


def silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


GATES = {**ACTIVATIONS, "silu": silu, "sigmoid": sigmoid}


def turned(x: Array, theta: float, factor: float = 1.0) -> Array:
    """Return x, (H, T, d), with the pairs of channels i and i + d / 2 turned by place * frequency i."""
    _, tokens, width = x.shape
    half = width // 2
    result = np.empty_like(x)
    for channel in range(half):
        frequency = (theta * factor) ** (-2 * channel / width) / factor ** (2 / width)
        angle = np.arange(tokens) * frequency
        first, second = x[..., channel], x[..., channel + half]
        result[..., channel] = first * np.cos(angle) - second * np.sin(angle)
        result[..., channel + half] = second * np.cos(angle) + first * np.sin(angle)
    return result


def slopes(heads: int) -> list[float]:
    """Return ALiBi's slopes as its paper's code gives them."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**head for head in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return slopes(closest) + slopes(2 * closest)[0::2][: heads - closest]


def attention(
    query: Array, key: Array, value: Array, bias: Array | float = 0.0, scale: float | None = None
) -> Array:
    """Return what queries gather, (H, T, d).

    bias: added to the scores, (H, T, T) or (T, T). scale: of the scores, by default 1 / sqrt(d).
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ key.swapaxes(1, 2) * scale + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ value)


def by_head(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def joined(x: Array) -> Array:
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def distances(tokens: int) -> Array:
    places = np.arange(tokens, dtype=np.float64)
    return np.abs(places[:, None] - places)


class ReferenceGated:
    """A checkpoint folder as a function from token ids to vectors."""

    def __init__(self, folder: Path) -> None:
        self.config = read_json(folder / "config.json")
        stored = load_file(folder / "model.safetensors")
        self.tensors = {name: array.astype(np.float64) for name, array in stored.items()}
        pooling = read_json(folder / "1_Pooling" / "config.json")
        self.pooling = next(flag for flag, chosen in pooling.items() if chosen is True)
        modules = [module["type"] for module in read_json(folder / "modules.json")]
        self.normalize = any(module.endswith(".Normalize") for module in modules)

    def embed(self, ids: npt.NDArray[np.int64]) -> Array:
        """Return the vectors of token ids: int64 (B, T), without padding -> float64 (B, D)."""
        return np.stack([self._pooled(self.hidden(text)) for text in ids])

    def _pooled(self, hidden: Array) -> Array:
        pooled = {
            "pooling_mode_cls_token": hidden[0],
            "pooling_mode_mean_tokens": hidden.mean(axis=0),
            "pooling_mode_max_tokens": hidden.max(axis=0),
        }[self.pooling]
        return np.asarray(pooled / np.linalg.norm(pooled) if self.normalize else pooled)

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        raise NotImplementedError

    def linear(self, x: Array, name: str) -> Array:
        return np.asarray(
            x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", 0)
        )

    def norm(self, x: Array, name: str, epsilon: float) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
        return np.asarray(
            scaled * self.tensors[f"{name}.weight"] + self.tensors.get(f"{name}.bias", 0)
        )


class ReferenceModernBert(ReferenceGated):
    """Norm first, a window in two layers of three: Warner et al., 2024."""

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        config, epsilon = self.config, self.config["norm_eps"]
        x = self.tensors["embeddings.tok_embeddings.weight"][ids]
        x = self.norm(x, "embeddings.norm", epsilon)
        for index in range(config["num_hidden_layers"]):
            name = f"layers.{index}"
            everywhere = index % config["global_attn_every_n_layers"] == 0
            normed = self.norm(x, f"{name}.attn_norm", epsilon) if index else x
            x = x + self._attention(normed, name, everywhere=everywhere)
            wide = self.linear(self.norm(x, f"{name}.mlp_norm", epsilon), f"{name}.mlp.Wi")
            gate, up = np.split(wide, 2, axis=-1)
            active = GATES[config["hidden_activation"]](gate)
            x = x + self.linear(active * up, f"{name}.mlp.Wo")
        return self.norm(x, "final_norm", epsilon)

    def _attention(self, x: Array, name: str, *, everywhere: bool) -> Array:
        config = self.config
        parts = np.split(self.linear(x, f"{name}.attn.Wqkv"), 3, axis=-1)
        query, key, value = (by_head(part, config["num_attention_heads"]) for part in parts)
        theta = config["global_rope_theta" if everywhere else "local_rope_theta"]
        far = distances(len(x)) > config["local_attention"] // 2
        bias = 0.0 if everywhere else np.where(far, -np.inf, 0.0)
        gathered = attention(turned(query, theta), turned(key, theta), value, bias)
        return self.linear(joined(gathered), f"{name}.attn.Wo")


class ReferenceNomic(ReferenceGated):
    """Norm behind each part, rotary, SwiGLU in which fc12 is the gate: Nussbaum et al., 2024."""

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        config, epsilon = self.config, self.config["layer_norm_epsilon"]
        gate = {"swiglu": silu, "geglu": GATES["gelu"], "glu": sigmoid}[
            config["activation_function"]
        ]
        words = self.tensors["embeddings.word_embeddings.weight"][ids]
        x = words + self.tensors["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "emb_ln", epsilon)
        for index in range(config["n_layer"]):
            name = f"encoder.layers.{index}"
            parts = np.split(self.linear(x, f"{name}.attn.Wqkv"), 3, axis=-1)
            query, key, value = (by_head(part, config["n_head"]) for part in parts)
            theta = config["rotary_emb_base"]
            gathered = attention(turned(query, theta), turned(key, theta), value)
            x = x + self.linear(joined(gathered), f"{name}.attn.out_proj")
            x = self.norm(x, f"{name}.norm1", epsilon)
            wide = self.linear(x, f"{name}.mlp.fc11") * gate(self.linear(x, f"{name}.mlp.fc12"))
            x = self.norm(x + self.linear(wide, f"{name}.mlp.fc2"), f"{name}.norm2", epsilon)
        return x


class ReferenceGte(ReferenceGated):
    """Norm behind each part, rotary with NTK scaling, the second half is the gate: Zhang et al., 2024."""

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        config, epsilon = self.config, self.config["layer_norm_eps"]
        factor = (config["rope_scaling"] or {"factor": 1.0})["factor"]
        x = self.tensors["new.embeddings.word_embeddings.weight"][ids]
        if config["type_vocab_size"]:
            x = x + self.tensors["new.embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "new.embeddings.LayerNorm", epsilon)
        for index in range(config["num_hidden_layers"]):
            name = f"new.encoder.layer.{index}"
            if config["pack_qkv"]:
                parts = np.split(self.linear(x, f"{name}.attention.qkv_proj"), 3, axis=-1)
            else:
                parts = [self.linear(x, f"{name}.attention.{part}_proj") for part in "qkv"]
            query, key, value = (by_head(part, config["num_attention_heads"]) for part in parts)
            theta = config["rope_theta"]
            gathered = attention(turned(query, theta, factor), turned(key, theta, factor), value)
            x = x + self.linear(joined(gathered), f"{name}.attention.o_proj")
            x = self.norm(x, f"{name}.attn_ln", epsilon)
            up, gate = np.split(self.linear(x, f"{name}.mlp.up_gate_proj"), 2, axis=-1)
            wide = up * GATES[config["hidden_act"]](gate)
            x = self.norm(x + self.linear(wide, f"{name}.mlp.down_proj"), f"{name}.mlp_ln", epsilon)
        return x


class ReferenceJina(ReferenceGated):
    """BERT with ALiBi to both sides and GEGLU in which the first half is the gate: Günther et al., 2023."""

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        epsilon = self.config["layer_norm_eps"]
        words = self.tensors["embeddings.word_embeddings.weight"][ids]
        x = words + self.tensors["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm", epsilon)
        for index in range(self.config["num_hidden_layers"]):
            x = self._layer(x, f"encoder.layer.{index}", epsilon)
        return x

    def _attention(self, x: Array, name: str, epsilon: float, *, normed: bool) -> Array:
        """Return the norm of the sum of x and what its tokens gather."""
        heads = self.config["num_attention_heads"]
        query, key, value = (
            self.linear(x, f"{name}.self.{part}") for part in ("query", "key", "value")
        )
        if normed:
            query = self.norm(query, f"{name}.self.layer_norm_q", epsilon)
            key = self.norm(key, f"{name}.self.layer_norm_k", epsilon)
        bias = -np.array(slopes(heads))[:, None, None] * distances(len(x))
        gathered = attention(
            by_head(query, heads), by_head(key, heads), by_head(value, heads), bias
        )
        attended = self.linear(joined(gathered), f"{name}.output.dense")
        return self.norm(attended + x, f"{name}.output.LayerNorm", epsilon)

    def _layer(self, x: Array, name: str, epsilon: float) -> Array:
        x = self._attention(x, f"{name}.attention", epsilon, normed=False)
        gate, up = np.split(self.linear(x, f"{name}.mlp.gated_layers"), 2, axis=-1)
        active = {"geglu": GATES["gelu"], "reglu": GATES["relu"]}[self.config["feed_forward_type"]]
        wide = active(gate) * up
        return self.norm(self.linear(wide, f"{name}.mlp.wo") + x, f"{name}.mlp.layernorm", epsilon)


class ReferenceNormedJina(ReferenceJina):
    """The bilingual models: norms of queries and keys, one more sum and norm, the second half is the gate."""

    def _layer(self, x: Array, name: str, epsilon: float) -> Array:
        attended = self._attention(x, f"{name}.attention", epsilon, normed=True)
        x = self.norm(x + attended, f"{name}.layer_norm_1", epsilon)
        up, gate = np.split(self.linear(x, f"{name}.mlp.up_gated_layer"), 2, axis=-1)
        narrow = self.linear(up * GATES["gelu"](gate), f"{name}.mlp.down_layer")
        return self.norm(x + narrow, f"{name}.layer_norm_2", epsilon)


REFERENCES: dict[str, type[ReferenceGated]] = {
    "modernbert": ReferenceModernBert,
    "nomic_bert": ReferenceNomic,
    "gte": ReferenceGte,
    "jina_bert": ReferenceJina,
    "jina_bert, normed": ReferenceNormedJina,
}
