"""Modules behind the pooling of a toy checkpoint, and what they compute, in plain numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from tests.support.reference_bert import gelu
from tests.support.toys import POOLING, TRANSFORMER, read_json, write_json, write_modules

Array = npt.NDArray[np.float64]

# By the names that sentence-transformers writes.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
    "torch.nn.modules.activation.GELU": gelu,
    "torch.nn.modules.activation.Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
TANH, IDENTITY, RELU, GELU, SIGMOID = ACTIVATIONS


@dataclass(frozen=True, slots=True)
class Dense:
    """A Dense module to write. outputs: the width of its result."""

    outputs: int
    activation: str = IDENTITY
    bias: bool = True


Step = Dense | str


def write_steps(folder: Path, steps: Sequence[Step], *, width: int = 32) -> Path:
    """Let these modules follow the pooling of a toy; a name stands for a module without weights."""
    kinds = ["Dense" if isinstance(step, Dense) else step for step in steps]
    write_modules(folder, [TRANSFORMER, POOLING, *kinds])
    generator = np.random.default_rng(7)
    for place, step in enumerate(steps, 2):
        if isinstance(step, Dense):
            shape = (step.outputs, width)
            tensors = {"linear.weight": generator.standard_normal(shape) * width**-0.5}
            if step.bias:
                tensors["linear.bias"] = generator.standard_normal(step.outputs) * 0.1
            inner = folder / f"{place}_Dense"
            write_json(
                inner / "config.json",
                {
                    "in_features": width,
                    "out_features": step.outputs,
                    "bias": step.bias,
                    "activation_function": step.activation,
                },
            )
            stored = {name: array.astype(np.float32) for name, array in tensors.items()}
            save_file(stored, inner / "model.safetensors")
            width = step.outputs
        elif step == "Dropout":
            write_json(folder / f"{place}_Dropout" / "config.json", {"dropout": 0.3})
    return folder


def apply_steps(folder: Path, pooled: Array) -> Array:
    """Return what the modules behind the pooling make of its result, float64 (B, D)."""
    modules = read_json(folder / "modules.json")
    for module in modules[2:]:
        kind = module["type"].rpartition(".")[2]
        if kind == "Normalize":
            pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        elif kind == "Dense":
            inner = folder / module["path"]
            config = read_json(inner / "config.json")
            stored = load_file(inner / "model.safetensors")
            tensors = {name: array.astype(np.float64) for name, array in stored.items()}
            product = pooled @ tensors["linear.weight"].T + tensors.get("linear.bias", 0)
            pooled = np.asarray(ACTIVATIONS[config["activation_function"]](product))
    return pooled
