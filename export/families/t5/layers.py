"""The layers of a T5 encoder: the names of their linear layers and the sites that these read.

Names follow the checkpoint: encoder.block.0.layer.0.SelfAttention.q, and so on.
"""

from export.families.activations import RELU
from export.families.linears import Site
from export.families.prenorm import PreNormLayer
from export.families.t5.shape import T5Shape


def layer_of(shape: T5Shape, index: int) -> PreNormLayer:
    name = f"encoder.block.{index}"
    query, key, value, output = (f"{name}.layer.0.SelfAttention.{part}" for part in "qkvo")
    fed = f"{name}.layer.1.DenseReluDense"
    wide = tuple(f"{fed}.{part}" for part in shape.wide_parts())
    # A divisor passes through a product and through Relu, and not through other activations.
    is_linear = shape.is_gated or shape.activation == RELU
    return PreNormLayer(
        name,
        (f"{name}.layer.0.layer_norm", f"{name}.layer.1.layer_norm"),
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
