"""The linear layers of a gated encoder: their names, the sites they read, and their float32 form.

Names are the same for every family: layer.0.query, layer.0.gate and so on.
"""

from dataclasses import dataclass

import numpy as np

from export.families.family import Layer
from export.families.gated.shape import GatedShape, LayerShape, Stored
from export.families.linears import FloatLinear, Readers, Site
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors

PARTS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True, slots=True)
class GatedLayer:
    """The sites of one layer, and the shape it comes from.

    attention is read by keys, values and, but for one_row, queries. one_row: everything from the query on
    is computed for the first token of each text alone, because nothing else is read of the result.
    """

    name: str
    shape: LayerShape
    one_row: bool
    attention: Site
    query: Site
    context: Site
    mlp: Site
    down: Site

    @property
    def linears(self) -> Readers:
        """The names of the linear layers."""
        return tuple(f"{self.name}.{part}" for part in PARTS)

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""
        query = (self.query,) if self.one_row else ()
        return Layer((self.attention, *query, self.context, self.mlp, self.down))

    def float_linears(self, tensors: Tensors) -> dict[str, FloatLinear]:
        """Return every linear layer, as the checkpoint has it."""
        parts = zip(self.linears, PARTS, strict=True)
        return {name: _stored(tensors, getattr(self.shape, part)) for name, part in parts}


def layer_of(shape: GatedShape, settings: SentenceSettings, index: int) -> GatedLayer:
    name = f"layer.{index}"
    one_row = settings.pooling == "cls" and index == len(shape.layers) - 1
    query, key, value, output, gate, up, down = (f"{name}.{part}" for part in PARTS)
    return GatedLayer(
        name,
        shape.layers[index],
        one_row,
        attention=Site(f"{name}.attention", (key, value) if one_row else (query, key, value)),
        query=Site(query, (query,)),
        context=Site(f"{name}.context", (output,), folds_into=(value,)),
        mlp=Site(f"{name}.mlp", (gate, up)),
        # The gate's activation is not linear, but what it is multiplied with is. One row is too little work
        # to be felt, and nothing that rounds comes after it: see `quantise`.
        down=Site(
            f"{name}.product", (down,), blockwise=one_row, folds_into=() if one_row else (up,)
        ),
    )


def _stored(tensors: Tensors, stored: Stored) -> FloatLinear:
    rows = np.split(tensors[f"{stored.name}.weight"], stored.parts)[stored.part]
    bias = np.zeros(len(rows), np.float32)
    if stored.bias:
        bias = np.split(tensors[f"{stored.name}.bias"], stored.parts)[stored.part]
    return FloatLinear(np.ascontiguousarray(rows.T), bias)
