"""The linear layers of a decoder: their names, the sites they read, and their float32 form.

Names follow the checkpoint: layers.0.self_attn.q_proj, and so on.
"""

from dataclasses import dataclass

import numpy as np

from export.families.decoder.shape import DecoderShape
from export.families.family import Layer
from export.families.linears import FloatLinear, Readers, Site
from export.source.tensors import Tensors


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """The sites of one layer; window: see `DecoderShape.windows`."""

    name: str
    window: int | None
    attention: Site
    context: Site
    mlp: Site
    down: Site

    @property
    def linears(self) -> Readers:
        """The names of the linear layers."""
        return tuple(name for site in self.described().sites for name in site.readers)

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""
        return Layer((self.attention, self.context, self.mlp, self.down))


def layer_of(shape: DecoderShape, index: int) -> DecoderLayer:
    name = f"layers.{index}"
    query, key, value, output = (f"{name}.self_attn.{part}_proj" for part in "qkvo")
    gate, up, down = (f"{name}.mlp.{part}_proj" for part in ("gate", "up", "down"))
    return DecoderLayer(
        name,
        shape.windows[index],
        # Decoders have tokens whose activations are a thousand times as large as those of others, so no
        # scale fits all rows.
        attention=Site(f"{name}.attention", (query, key, value), by_row=True, after_norm=True),
        context=Site(f"{name}.context", (output,), by_row=True),
        mlp=Site(f"{name}.mlp", (gate, up), by_row=True, after_norm=True, feed_forward=True),
        # The gate's activation is not linear, but what it is multiplied with is.
        down=Site(f"{name}.product", (down,), by_row=True, folds_into=(up,), feed_forward=True),
    )


def float_linears(layer: DecoderLayer, tensors: Tensors) -> dict[str, FloatLinear]:
    """Return every linear layer of one layer, as the checkpoint has it."""
    return {name: _stored(tensors, name) for name in layer.linears}


def _stored(tensors: Tensors, name: str) -> FloatLinear:
    # A view, not a copy.
    weight = tensors[f"{name}.weight"].T
    bias = tensors.get(f"{name}.bias")
    return FloatLinear(weight, np.zeros(weight.shape[1], np.float32) if bias is None else bias)
