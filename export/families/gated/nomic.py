"""nomic_bert (Nussbaum et al., 2024): nomic-embed-text-v1 and v1.5, snowflake-arctic-embed-m-long.

Rotary positions, layer norms behind each part, and no biases unless config.json asks for them. Models with
experts (nomic-embed-text-v2-moe) are refused.
"""

from export.errors import CorruptFile
from export.families.activations import EXACT_GELU, SIGMOID, SILU, read_activation
from export.families.config import check_heads, epsilon, n_layers, require, theta
from export.families.family import Family
from export.families.gated.network import GatedNetwork
from export.families.gated.shape import (
    GatedShape,
    LayerShape,
    Norm,
    Rotary,
    Stored,
)
from export.source.json_file import Json, boolean, check_aliases, size

# activation_function -> the activation of the gate.
GATES = {"swiglu": SILU, "geglu": EXACT_GELU, "glu": SIGMOID}
# Without these the model's code would have biases and no rotary positions.
STATED = (
    *("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "rotary_emb_fraction", "rotary_emb_base"),
    "layer_norm_epsilon",
)


def read_shape(config: Json) -> GatedShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    _check_stated(config)
    check_aliases(
        config,
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions",
    )
    require(config, num_experts=None, moe_every_n_layers=None, causal=False, prenorm=False)
    require(config, parallel_block=False, use_rms_norm=False, norm_mlp=False)
    # With a scaling factor the frequencies of a text would depend on its length.
    require(
        config, rotary_emb_fraction=1.0, rotary_emb_interleaved=False, rotary_emb_scale_base=None
    )
    require(config, rotary_scaling_factor=None, scale_attn_weights=True)
    require(config, scale_attn_by_inverse_layer_idx=False)
    layers = n_layers(config, "n_layer")
    shape = GatedShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, "n_embd"),
        heads=size(config, "n_head"),
        intermediate=size(config, "n_inner"),
        positions=size(config, "n_positions"),
        layer_norm_epsilon=epsilon(config, "layer_norm_epsilon", 1e-12),
        activation=read_activation(config, "activation_function", GATES),
        norm_first=False,
        words="embeddings.word_embeddings.weight",
        token_types=size(config, "type_vocab_size", 2, least=0),
        embedding_norm=Norm("emb_ln"),
        layers=tuple(_layer(config, f"encoder.layers.{index}") for index in range(layers)),
    )
    check_heads("n_embd", shape.hidden, shape.heads, rotary=True)
    return shape


def _check_stated(config: Json) -> None:
    """Refuse a config.json without these keys: the versions of the model's code differ in their defaults."""
    for key in STATED:
        if key not in config:
            raise CorruptFile("config.json lacks {key}", key=key)


def _layer(config: Json, name: str) -> LayerShape:
    def biased(key: str) -> bool:
        return boolean("config.json", config, key, False)

    bias, wide_bias = biased("qkv_proj_bias"), biased("mlp_fc1_bias")
    query, key, value = (Stored(f"{name}.attn.Wqkv", bias, part, 3) for part in range(3))
    return LayerShape(
        *(query, key, value),
        output=Stored(f"{name}.attn.out_proj", bias),
        gate=Stored(f"{name}.mlp.fc12", wide_bias),
        up=Stored(f"{name}.mlp.fc11", wide_bias),
        down=Stored(f"{name}.mlp.fc2", biased("mlp_fc2_bias")),
        attention_norm=Norm(f"{name}.norm1"),
        mlp_norm=Norm(f"{name}.norm2"),
        rotary=Rotary(theta(config, "rotary_emb_base", 10_000.0)),
    )


NOMIC: Family[GatedShape] = Family(
    name="nomic_bert",
    claims=lambda config: config.get("model_type") == "nomic_bert",
    read_shape=read_shape,
    tensor_name=lambda stored: stored.removeprefix("bert."),
    network=GatedNetwork,
)
