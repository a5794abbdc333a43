"""ModernBERT (Warner et al., 2024): gte-modernbert-base, modernbert-embed and relatives.

Every third layer attends to all tokens, the others to a window; the two kinds have bases of their own for
the rotary positions. Layer norms come first, and the first layer has none before its attention.
"""

from typing import Any

from export.errors import UnsupportedModel
from export.families.activations import read_activation
from export.families.config import (
    GLOBAL,
    LOCAL,
    check_heads,
    epsilon,
    layer_kinds,
    n_layers,
    require,
    theta,
)
from export.families.family import Family
from export.families.gated.network import GatedNetwork
from export.families.gated.shape import (
    GatedShape,
    LayerShape,
    Norm,
    Rotary,
    Stored,
)
from export.source.json_file import Json, boolean, size


def read_shape(config: Json) -> GatedShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    require(config, is_decoder=False, rope_scaling=None)
    layers = n_layers(config)
    shape = GatedShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "hidden_size"),
        heads=size(config, "num_attention_heads"),
        intermediate=size(config, "intermediate_size"),
        positions=size(config, "max_position_embeddings", 8192),
        layer_norm_epsilon=epsilon(config, "norm_eps", 1e-5),
        activation=read_activation(config, "hidden_activation"),
        norm_first=True,
        words="embeddings.tok_embeddings.weight",
        embedding_norm=_norm(config, "embeddings.norm"),
        layers=tuple(
            _layer(config, index, kind) for index, kind in enumerate(_kinds(config, layers))
        ),
        final_norm=_norm(config, "final_norm"),
    )
    check_heads("hidden_size", shape.hidden, shape.heads, rotary=True)
    return shape


def _kinds(config: Json, layers: int) -> list[str]:
    """Return what each layer attends to; newer files list it, older ones count."""
    return layer_kinds(
        config, layers, lambda index: index % size(config, "global_attn_every_n_layers", 3) > 0
    )


def _layer(config: Json, index: int, kind: str) -> LayerShape:
    name = f"layers.{index}"
    bias = boolean("config.json", config, "attention_bias", False)
    wide_bias = boolean("config.json", config, "mlp_bias", False)
    query, key, value = (Stored(f"{name}.attn.Wqkv", bias, part, 3) for part in range(3))
    gate, up = (Stored(f"{name}.mlp.Wi", wide_bias, part, 2) for part in range(2))
    # Half of it to each side.
    window = size(config, "local_attention", 128, least=2) // 2
    return LayerShape(
        *(query, key, value),
        output=Stored(f"{name}.attn.Wo", bias),
        gate=gate,
        up=up,
        down=Stored(f"{name}.mlp.Wo", wide_bias),
        attention_norm=_norm(config, f"{name}.attn_norm") if index else None,
        mlp_norm=_norm(config, f"{name}.mlp_norm"),
        rotary=Rotary(_theta(config, kind)),
        window=window if kind == LOCAL else None,
    )


def _theta(config: Json, kind: str) -> float:
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get(kind), dict):
        given: dict[str, Any] = parameters[kind]
        if given.get("rope_type", "default") != "default":
            raise UnsupportedModel(
                'rope_type "{kind}" is not written directly, only "default"; try --via optimum',
                kind=str(given["rope_type"])[:80],
            )
        return theta(given, "rope_theta", None)
    of_all = theta(config, "global_rope_theta", 160_000.0)
    if kind == GLOBAL:
        return of_all
    # null means the base of the other layers; a missing key means 10,000.
    return theta({"local_rope_theta": 10_000.0, **config}, "local_rope_theta", of_all)


def _norm(config: Json, name: str) -> Norm:
    return Norm(name, boolean("config.json", config, "norm_bias", False))


MODERNBERT: Family[GatedShape] = Family(
    name="modernbert",
    claims=lambda config: config.get("model_type") == "modernbert",
    read_shape=read_shape,
    tensor_name=lambda stored: stored.removeprefix("model."),
    network=GatedNetwork,
)
