"""The linear layers of a T5 encoder: their names, the sites they read, and their float32 form.

Names follow the checkpoint: encoder.block.0.layer.0.SelfAttention.q, and so on.
"""

from dataclasses import dataclass

import numpy as np

from export.families.activations import RELU
from export.families.family import Layer
from export.families.linears import FloatLinear, Readers, Site
from export.families.t5.shape import T5Shape
from export.source.tensors import Tensors


@dataclass(frozen=True, slots=True)
class T5Layer:
    """The sites of one layer."""

    name: str
    attention: Site
    context: Site
    wide: Site
    down: Site

    @property
    def linears(self) -> Readers:
        """The names of the linear layers."""
        return tuple(name for site in self.described().sites for name in site.readers)

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""
        return Layer((self.attention, self.context, self.wide, self.down))


def layer_of(shape: T5Shape, index: int) -> T5Layer:
    name = f"encoder.block.{index}"
    query, key, value, output = (f"{name}.layer.0.SelfAttention.{part}" for part in "qkvo")
    fed = f"{name}.layer.1.DenseReluDense"
    wide = tuple(f"{fed}.{part}" for part in shape.wide_parts())
    # A divisor passes through a product and through Relu, and not through other activations.
    is_linear = shape.is_gated or shape.activation == RELU
    return T5Layer(
        name,
        # A T5 has tokens whose activations are far larger than those of others, so no scale fits all rows.
        attention=Site(f"{name}.attention", (query, key, value), by_row=True, after_norm=True),
        context=Site(f"{name}.context", (output,), by_row=True, folds_into=(value,)),
        wide=Site(f"{name}.wide", wide, by_row=True, after_norm=True),
        down=Site(
            f"{name}.product",
            (f"{fed}.wo",),
            by_row=True,
            folds_into=wide[-1:] if is_linear else (),
        ),
    )


def float_linears(layer: T5Layer, tensors: Tensors) -> dict[str, FloatLinear]:
    """Return every linear layer of one layer, as the checkpoint has it; none has a bias."""
    found = {}
    for name in layer.linears:
        # A view, not a copy.
        weight = tensors[f"{name}.weight"].T
        found[name] = FloatLinear(weight, np.zeros(weight.shape[1], np.float32))
    return found
