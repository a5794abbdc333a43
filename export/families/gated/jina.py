"""jina-embeddings-v2 (Günther et al., 2023): BERT with ALiBi and gated feed-forward parts.

The English models state model_type "bert" and position_embedding_type "alibi". The bilingual models and the
one for code have code of their own ("qk-post-norm"): layer norms of queries and keys, and one more norm behind
the attention.
"""

from export.families.activations import EXACT_GELU, RELU, read_activation
from export.families.config import check_heads, epsilon, n_layers, require
from export.families.family import Family
from export.families.gated.network import GatedNetwork
from export.families.gated.shape import (
    GatedShape,
    LayerShape,
    Norm,
    Stored,
)
from export.source.json_file import Json, size

# feed_forward_type -> the activation of the gate.
GATES = {"geglu": EXACT_GELU, "reglu": RELU}
NORMED = "qk-post-norm"


def read_shape(config: Json) -> GatedShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    require(config, is_decoder=False)
    layers = n_layers(config)
    layer = _normed_layer if _has_normed_queries(config) else _layer
    shape = GatedShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "hidden_size"),
        heads=size(config, "num_attention_heads"),
        intermediate=size(config, "intermediate_size"),
        positions=size(config, "max_position_embeddings"),
        layer_norm_epsilon=epsilon(config, "layer_norm_eps", 1e-12),
        activation=read_activation(
            {"feed_forward_type": "original", **config}, "feed_forward_type", GATES
        ),
        norm_first=False,
        words="embeddings.word_embeddings.weight",
        token_types=size(config, "type_vocab_size", 2),
        embedding_norm=Norm("embeddings.LayerNorm"),
        layers=tuple(layer(f"encoder.layer.{index}") for index in range(layers)),
    )
    check_heads("hidden_size", shape.hidden, shape.heads)
    return shape


def _has_normed_queries(config: Json) -> bool:
    """Return whether the code that config.json names has norms of queries and keys."""
    named = config.get("auto_map")
    places = [config.get("_name_or_path"), *(named.values() if isinstance(named, dict) else ())]
    return any(NORMED in place for place in places if isinstance(place, str))


def _layer(name: str) -> LayerShape:
    gate, up = (Stored(f"{name}.mlp.gated_layers", False, part, 2) for part in range(2))
    return LayerShape(
        *_projections(name),
        output=Stored(f"{name}.attention.output.dense", True),
        gate=gate,
        up=up,
        down=Stored(f"{name}.mlp.wo", True),
        attention_norm=Norm(f"{name}.attention.output.LayerNorm"),
        mlp_norm=Norm(f"{name}.mlp.layernorm"),
    )


def _normed_layer(name: str) -> LayerShape:
    up, gate = (Stored(f"{name}.mlp.up_gated_layer", False, part, 2) for part in range(2))
    return LayerShape(
        *_projections(name),
        output=Stored(f"{name}.attention.output.dense", True),
        gate=gate,
        up=up,
        down=Stored(f"{name}.mlp.down_layer", True),
        attention_norm=Norm(f"{name}.attention.output.LayerNorm"),
        second_norm=Norm(f"{name}.layer_norm_1"),
        mlp_norm=Norm(f"{name}.layer_norm_2"),
        query_norm=Norm(f"{name}.attention.self.layer_norm_q"),
        key_norm=Norm(f"{name}.attention.self.layer_norm_k"),
    )


def _projections(name: str) -> tuple[Stored, Stored, Stored]:
    query, key, value = (
        Stored(f"{name}.attention.self.{part}", True) for part in ("query", "key", "value")
    )
    return query, key, value


JINA: Family[GatedShape] = Family(
    name="jina_bert",
    claims=lambda config: (
        config.get("model_type") in ("bert", "jina_bert")
        and config.get("position_embedding_type") == "alibi"
    ),
    read_shape=read_shape,
    tensor_name=lambda stored: stored.removeprefix("bert."),
    network=GatedNetwork,
)
