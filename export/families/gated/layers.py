"""The linear layers of a gated encoder: their names, the sites they read, and their float32 form.

Names are the same for every family: layer.0.query, layer.0.gate and so on.
"""

from dataclasses import dataclass

import numpy as np

from export.families.family import Layer
from export.families.gated.shape import GatedShape, LayerShape, Stored
from export.families.linears import FloatLinear, Site
from export.source.tensors import Tensors

PARTS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True, slots=True)
class GatedLayer:
    """The sites of one layer, and the shape it comes from."""

    name: str
    shape: LayerShape
    attention: Site
    context: Site
    mlp: Site
    down: Site

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""
        return Layer((self.attention, self.context, self.mlp, self.down))


def layer_name(index: int) -> str:
    return f"layer.{index}"


def layer_of(shape: GatedShape, index: int) -> GatedLayer:
    name = layer_name(index)
    query, key, value, output, gate, up, down = (f"{name}.{part}" for part in PARTS)
    return GatedLayer(
        name,
        shape.layers[index],
        attention=Site(f"{name}.attention", (query, key, value)),
        context=Site(f"{name}.context", (output,), folds_into=(value,)),
        mlp=Site(f"{name}.mlp", (gate, up)),
        # The gate's activation is not linear, but what it is multiplied with is.
        down=Site(f"{name}.product", (down,), folds_into=(up,)),
    )


def float_linears(layer: GatedLayer, tensors: Tensors) -> dict[str, FloatLinear]:
    """Return every linear layer of one layer, as the checkpoint has it."""
    return {f"{layer.name}.{part}": _stored(tensors, getattr(layer.shape, part)) for part in PARTS}


def _stored(tensors: Tensors, stored: Stored) -> FloatLinear:
    rows = np.split(tensors[f"{stored.name}.weight"], stored.parts)[stored.part]
    bias = np.zeros(len(rows), np.float32)
    if stored.bias:
        bias = np.split(tensors[f"{stored.name}.bias"], stored.parts)[stored.part]
    return FloatLinear(np.ascontiguousarray(rows.T), bias)
