"""The models "new" (Zhang et al., mGTE, 2024): gte-base-en-v1.5, gte-multilingual-base, arctic-embed-m-v2.0.

Rotary positions, perhaps with NTK scaling, layer norms behind each part, and biases but in the first linear
layers of the feed-forward parts.
"""

from export.errors import CorruptFile, UnsupportedModel
from export.families.activations import read_activation
from export.families.config import check_heads, epsilon, n_layers, number, require, theta
from export.families.family import Family
from export.families.gated.network import GatedNetwork
from export.families.gated.shape import (
    GatedShape,
    LayerShape,
    Norm,
    Rotary,
    Stored,
)
from export.source.json_file import Json, boolean, shown, size

# NTK scaling by more is no published model's.
MOST_FACTOR = 10_000.0


def read_shape(config: Json) -> GatedShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    require(config, position_embedding_type="rope", layer_norm_type="layer_norm")
    require(config, logn_attention_scale=False, logn_attention_clip1=False)
    layers = n_layers(config)
    rotary = Rotary(theta(config, "rope_theta", 10_000.0), _factor(config))
    shape = GatedShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "hidden_size"),
        heads=size(config, "num_attention_heads"),
        intermediate=size(config, "intermediate_size"),
        positions=size(config, "max_position_embeddings"),
        layer_norm_epsilon=epsilon(config, "layer_norm_eps", 1e-12),
        activation=read_activation(config, "hidden_act"),
        norm_first=False,
        words="embeddings.word_embeddings.weight",
        token_types=size(config, "type_vocab_size", 1, least=0),
        embedding_norm=Norm("embeddings.LayerNorm"),
        layers=tuple(_layer(config, f"encoder.layer.{index}", rotary) for index in range(layers)),
    )
    check_heads("hidden_size", shape.hidden, shape.heads, rotary=True)
    return shape


def _layer(config: Json, name: str, rotary: Rotary) -> LayerShape:
    attention = f"{name}.attention"
    if boolean("config.json", config, "pack_qkv", True):
        projections = [Stored(f"{attention}.qkv_proj", True, part, 3) for part in range(3)]
    else:
        projections = [Stored(f"{attention}.{part}_proj", True) for part in "qkv"]
    query, key, value = projections
    # The first half of the rows is not gated, the second is the gate.
    up, gate = (Stored(f"{name}.mlp.up_gate_proj", False, part, 2) for part in range(2))
    return LayerShape(
        *(query, key, value),
        output=Stored(f"{attention}.o_proj", True),
        gate=gate,
        up=up,
        down=Stored(f"{name}.mlp.down_proj", True),
        attention_norm=Norm(f"{name}.attn_ln"),
        mlp_norm=Norm(f"{name}.mlp_ln"),
        rotary=rotary,
    )


def _factor(config: Json) -> float:
    scaling = config.get("rope_scaling")
    if scaling is None:
        return 1.0
    if not isinstance(scaling, dict):
        raise CorruptFile(
            "config.json: rope_scaling is {shown}, not an object", shown=shown(scaling)
        )
    if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None:
        raise UnsupportedModel(
            'rope_scaling {shown} is not written directly, only the type "ntk" without mixed_b; '
            "try --via optimum",
            shown=shown(scaling),
        )
    return number(scaling, "factor", None, 1.0, MOST_FACTOR)


GTE: Family[GatedShape] = Family(
    name="gte",
    claims=lambda config: config.get("model_type") in ("new", "gte"),
    read_shape=read_shape,
    tensor_name=lambda stored: stored.removeprefix("new."),
    network=GatedNetwork,
)
