"""The layers of a decoder: the names of their linear layers and the sites that these read.

Names follow the checkpoint: layers.0.self_attn.q_proj, and so on.
"""

from export.families.decoder.shape import DecoderShape
from export.families.linears import Site
from export.families.prenorm import PreNormLayer


def layer_of(shape: DecoderShape, index: int) -> PreNormLayer:
    name = f"layers.{index}"
    query, key, value, output = (f"{name}.self_attn.{part}_proj" for part in "qkvo")
    gate, up, down = (f"{name}.mlp.{part}_proj" for part in ("gate", "up", "down"))
    return PreNormLayer(
        name,
        (f"{name}.input_layernorm", f"{name}.post_attention_layernorm"),
        # Decoders have tokens whose activations are a thousand times as large as those of others, so no
        # scale fits all rows.
        attention=Site(f"{name}.attention", (query, key, value), by_row=True, after_norm=True),
        context=Site(f"{name}.context", (output,), by_row=True),
        wide=Site(f"{name}.mlp", (gate, up), by_row=True, after_norm=True, feed_forward=True),
        # The gate's activation is not linear, but what it is multiplied with is.
        down=Site(f"{name}.product", (down,), by_row=True, folds_into=(up,), feed_forward=True),
        window=shape.windows[index],
    )
