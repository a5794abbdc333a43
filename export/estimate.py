"""Estimates what an export costs, and how large its artifact is, from the numbers of a network.

The time was measured on 2026-11-30 on an Intel Xeon with two cores: an XLM-R of 12 x 768 for texts of 512 tokens took
159 s, one of 24 x 1024 for 8,192 tokens 600 s. The memory was measured on 2026-11-29: the latter, with 568
million parameters, took 2,736 MB with few calibration texts, and 2,971 MB with all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from export.known.recognition import HIDDEN, LAYERS, number
from export.source.json_file import Json
from export.source.tensors import Shapes

INTERMEDIATE = ("intermediate_size", "n_inner", "hidden_dim", "d_ff")
# Of the layers' parameters: the search for ranges runs each layer.
CPU_S_PER_MILLION = 3.7
# Of memory: the float32 model, mapped or prepared to run, and what does not depend on the parameters.
EXPORT_BYTES_PER_PARAMETER, EXPORT_BYTES = 4, 1e9
FLOAT_BYTES, INT8_BYTES = 4.0, 1.05
# Of a server with the shipped model: 194 MB when idle, 25 MB of them its file.
SERVER_BYTES = 170e6
# Networks whose feed-forward part has three matrices instead of two.
GATED = ("new", "nomic_bert", "modernbert", "qwen2", "qwen3", "mistral", "llama", "gemma3_text")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Figures of an export, about right for a machine like the one that was measured.

    layer_parameters: without the table of words, which costs no time.
    """

    parameters: int
    layer_parameters: int

    def file_bytes(self, precision: str) -> float:
        return self.parameters * (INT8_BYTES if precision == "int8" else FLOAT_BYTES)

    def export_bytes(self) -> float:
        return self.parameters * EXPORT_BYTES_PER_PARAMETER + EXPORT_BYTES

    def serving_bytes(self, precision: str) -> float:
        return self.file_bytes(precision) + SERVER_BYTES

    def seconds(self, cores: int) -> float:
        return self.layer_parameters / 1e6 * CPU_S_PER_MILLION / max(1, cores)


def of_shapes(shapes: Shapes, config: Json) -> Estimate:
    """Return the figures of a network whose tensors are known."""
    parameters = sum(map(math.prod, shapes.values()))
    words = number(config, ("vocab_size",)) * number(config, HIDDEN)
    return Estimate(parameters, max(0, parameters - words))


def of_config(config: Mapping[str, object]) -> Estimate | None:
    """Return the figures of a network by config.json alone, None where it lacks the numbers."""
    layers, hidden, wide = (number(config, keys) for keys in (LAYERS, HIDDEN, INTERMEDIATE))
    words = number(config, ("vocab_size",))
    # A table of static embeddings has no layers.
    if not min(hidden, words) or not (layers or config.get("model_type") == "model2vec"):
        return None
    heads = number(config, ("num_attention_heads", "n_head", "n_heads", "num_heads")) or 1
    size = number(config, ("head_dim", "d_kv")) or hidden // heads
    shared = number(config, ("num_key_value_heads",)) or heads
    attention = 2 * hidden * size * (heads + shared)
    products = 3 if config.get("model_type") in GATED else 2
    of_layers = layers * (attention + products * hidden * (wide or 4 * hidden))
    return Estimate(of_layers + words * hidden, of_layers)
