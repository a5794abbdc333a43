"""A decoder that embeds, in plain numpy and float64: slow, short, and independent of `export`.

Written from the papers of RMSNorm, rotary positions, grouped queries and SwiGLU and from the config.json of
Qwen3, Qwen2, Mistral and Llama. Every text is computed alone, with the whole matrix of scores.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tests.support.reference_bert import Array
from tests.support.reference_gated import attention, by_head, joined, silu, turned
from tests.support.toys import read_json


class ReferenceDecoder:
    """A checkpoint folder as a function from token ids to vectors."""

    def __init__(self, folder: Path) -> None:
        self.config = read_json(folder / "config.json")
        stored = load_file(folder / "model.safetensors")
        self.tensors = {
            name.removeprefix("model."): array.astype(np.float64) for name, array in stored.items()
        }
        if not (folder / "1_Pooling").exists():
            return
        self.pooling = read_json(folder / "1_Pooling" / "config.json")
        modules = [module["type"] for module in read_json(folder / "modules.json")]
        self.normalize = any(module.endswith(".Normalize") for module in modules)

    def embed(self, ids: npt.NDArray[np.int64]) -> Array:
        """Return the vectors of token ids: int64 (B, T), without padding -> float64 (B, D)."""
        return np.stack([self._pooled(self.hidden(text)) for text in ids])

    def _pooled(self, hidden: Array) -> Array:
        last = self.pooling["pooling_mode_lasttoken"]
        pooled = hidden[-1] if last else hidden.mean(axis=0)
        return np.asarray(pooled / np.linalg.norm(pooled) if self.normalize else pooled)

    def hidden(self, ids: npt.NDArray[np.int64]) -> Array:
        x = self.tensors["embed_tokens.weight"][ids]
        for index in range(self.config["num_hidden_layers"]):
            name = f"layers.{index}"
            x = x + self._attention(
                self.norm(x, f"{name}.input_layernorm"), f"{name}.self_attn", index
            )
            normed = self.norm(x, f"{name}.post_attention_layernorm")
            gate, up = (self.linear(normed, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
            x = x + self.linear(silu(gate) * up, f"{name}.mlp.down_proj")
        return self.norm(x, "norm")

    def _attention(self, x: Array, name: str, index: int) -> Array:
        heads, kv_heads = (self.config[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
        query, key, value = (
            by_head(self.linear(x, f"{name}.{part}_proj"), count)
            for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        if f"{name}.q_norm.weight" in self.tensors:
            query, key = self.norm(query, f"{name}.q_norm"), self.norm(key, f"{name}.k_norm")
        theta = self.config.get("rope_theta", 10_000.0)
        query, key = turned(query, theta), turned(key, theta)
        key, value = (np.repeat(each, heads // kv_heads, axis=0) for each in (key, value))
        places = np.arange(len(x))
        distance = places[:, None] - places
        hidden = (distance < 0) | (distance >= self._window(index))
        if "auto_map" in self.config:
            # The toys name only code that attends in both directions.
            hidden = np.zeros_like(hidden)
        gathered = attention(query, key, value, np.where(hidden, -np.inf, 0.0))
        return self.linear(joined(gathered), f"{name}.o_proj")

    def _window(self, index: int) -> float:
        config = self.config
        window = config.get("sliding_window")
        if config["model_type"] == "mistral" and window:
            return float(window)
        if config.get("use_sliding_window") and index >= config["max_window_layers"]:
            return float(window)
        return np.inf

    def linear(self, x: Array, name: str) -> Array:
        bias = self.tensors.get(f"{name}.bias", 0)
        return np.asarray(x @ self.tensors[f"{name}.weight"].T + bias)

    def norm(self, x: Array, name: str) -> Array:
        power = np.square(x).mean(axis=-1, keepdims=True)
        scaled = x / np.sqrt(power + self.config["rms_norm_eps"])
        return np.asarray(scaled * self.tensors[f"{name}.weight"])
