"""Checkpoints of larger BERTs with random weights, to measure sizes that do not ship.

The folder has sentence-transformers' layout; vocabulary, tokenizer and text rules are those of the
shipped model. The vectors mean nothing. Speed, memory and int8's distance from float32 are those of a
trained model of the size, except for the outlier channels that only training makes.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from export.families.bert.shape import BertShape
from server.config import DEFAULT_MODEL

TEMPLATE = Path(__file__).parents[2] / DEFAULT_MODEL.parent
# Layers, width, heads, inner width of the feed-forward part.
SIZES = {"12x768": (12, 768, 12, 3072), "24x1024": (24, 1024, 16, 4096)}
COPIED = ("modules.json", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json")


def write(
    folder: Path, layers: int, hidden: int, heads: int, intermediate: int, *, seed: int = 0
) -> Path:
    """Write a BERT of these sizes in float16, the same for the same seed; return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(TEMPLATE / name, folder / name)
    config = _read(TEMPLATE / "config.json") | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
    }
    _save(folder / "config.json", config)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = _read(TEMPLATE / "1_Pooling" / "config.json")
    _save(folder / "1_Pooling" / "config.json", pooling | {"word_embedding_dimension": hidden})
    shape = BertShape(
        vocabulary=config["vocab_size"],
        hidden=hidden,
        layers=layers,
        heads=heads,
        intermediate=intermediate,
        positions=config["max_position_embeddings"],
        token_types=config["type_vocab_size"],
        layer_norm_epsilon=config["layer_norm_eps"],
        activation=config["hidden_act"],
    )
    random = np.random.default_rng(seed)
    save_file(
        {name: _tensor(random, name, sizes) for name, sizes in shape.tensors().items()},
        folder / "model.safetensors",
        # transformers refuses a file that does not state its format.
        metadata={"format": "pt"},
    )
    return folder


def _tensor(
    random: np.random.Generator, name: str, sizes: tuple[int, ...]
) -> npt.NDArray[np.float16]:
    """Return float16 of `sizes`: zero biases, layer norms that change nothing, and normal weights.

    An output has about the variance of its input. BERT's own initial deviation of 0.02 is too small
    for a width of 768: attention is then the same everywhere and all texts get nearly one vector.
    """
    if name.endswith(".bias"):
        return np.zeros(sizes, np.float16)
    if "LayerNorm" in name:
        return np.ones(sizes, np.float16)
    deviation = 1.0 if "embeddings" in name else 1 / math.sqrt(sizes[1])
    drawn = random.standard_normal(sizes, np.float32) * np.float32(deviation)
    return drawn.astype(np.float16)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _save(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
