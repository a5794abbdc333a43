"""Encoders with gated feed-forward layers: the graphs against numpy, packed batches, int8, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import shape_inference
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from export import families
from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, ExportError, ShapeMismatch, UnsupportedModel
from export.families.batches import GROUPS
from export.families.family import HIDDEN
from export.families.gated.modernbert import MODERNBERT
from export.families.linears import BlockwiseLinear, FloatLinear, Linears
from export.pipeline import export
from export.quantisation.quantise import quantize
from server.inference.comparison import SAME_VECTORS, row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.model import Model
from server.inference.runtime import open_session
from server.types import Packing
from tests.support.encoders import float_encoder, one_by_one, random_ids, token_ids
from tests.support.exports import change, toy_settings
from tests.support.gated_toys import WRITERS
from tests.support.reference_gated import REFERENCES
from tests.support.toys import toy_texts

# float32 rounding, of a vector's length.
ROUNDING = 3e-6
LENGTHS = (1, 5, 6, 9, 127, 128, 300)
FAMILIES = tuple(WRITERS)
# Two layers are enough where not every kind of layer counts; of a ModernBERT, the second has a window.
FEW_LAYERS = {
    family: {"n_layer" if family == "nomic_bert" else "num_hidden_layers": 2} for family in FAMILIES
}

OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "modernbert, cls": ("modernbert", {}, {"pooling": "cls"}),
    "modernbert, cls of a window": ("modernbert", {"num_hidden_layers": 3}, {"pooling": "cls"}),
    "jina, cls": ("jina_bert", {}, {"pooling": "cls"}),
    "jina, normed, cls": ("jina_bert, normed", {}, {"pooling": "cls"}),
    "modernbert, max, as is": ("modernbert", {}, {"pooling": "max", "normalize": False}),
    "modernbert, biases": (
        "modernbert",
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
        {},
    ),
    "modernbert, other window": (
        "modernbert",
        {"local_attention": 2, "global_attn_every_n_layers": 2, "hidden_activation": "silu"},
        {},
    ),
    "modernbert, three heads": (
        "modernbert",
        {"hidden_size": 36, "num_attention_heads": 3, "local_attention": 7},
        {},
    ),
    "nomic, biases": (
        "nomic_bert",
        {"qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True, "type_vocab_size": 1},
        {"pooling": "cls"},
    ),
    "nomic, geglu": ("nomic_bert", {"activation_function": "geglu"}, {}),
    "nomic, glu": ("nomic_bert", {"activation_function": "glu", "n_embd": 24, "n_head": 3}, {}),
    "gte, multilingual": (
        "gte",
        {"type_vocab_size": 1, "rope_theta": 20000, "rope_scaling": {"factor": 8.0, "type": "ntk"}},
        {"pooling": "cls"},
    ),
    "gte, arctic": ("gte", {"model_type": "gte", "rope_scaling": None, "pack_qkv": False}, {}),
    "jina, reglu, 12 heads": (
        "jina_bert",
        {"feed_forward_type": "reglu", "num_attention_heads": 12, "hidden_size": 36},
        {"pooling": "max"},
    ),
    "jina, one head": ("jina_bert", {"num_attention_heads": 1}, {"normalize": False}),
}


def toy(folder: Path, family: str, changes: Any = None, options: Any = None) -> Checkpoint:
    return read_checkpoint(
        WRITERS[family](folder / family, folder_options=options, **(changes or {}))
    )


def assert_same_vectors(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < ROUNDING


def assert_equal_to_numpy(checkpoint: Checkpoint, family: str, lengths: tuple[int, ...]) -> None:
    reference, encoder = REFERENCES[family](checkpoint.folder), float_encoder(checkpoint)
    for n_tokens in lengths:
        texts = random_ids(2, n_tokens)
        assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


@pytest.mark.parametrize("family", FAMILIES)
def test_float_graph_equals_the_numpy_reference_at_every_kind_of_length(
    family: str, tmp_path: Path
) -> None:
    checkpoint = toy(tmp_path, family)
    assert checkpoint.family.name == family.partition(",")[0]
    assert_equal_to_numpy(checkpoint, family, LENGTHS)


@pytest.mark.parametrize(("family", "changes", "options"), OPTIONS.values(), ids=OPTIONS.keys())
def test_float_graph_equals_the_numpy_reference_for_every_setting(
    family: str, changes: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    assert_equal_to_numpy(toy(tmp_path, family, changes, options), family, (3, 9, 40))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_several_lengths_together_equal_the_reference(
    family: str, pooling: str, tmp_path: Path
) -> None:
    checkpoint = toy(tmp_path, family, options={"pooling": pooling})
    encoder = float_encoder(checkpoint)
    most = min(encoder.packing.longest, 100)
    assert encoder.packing.groups == GROUPS
    lengths = [most, most, most, 3, 1, 1, 2]
    texts = [random_ids(1, length, seed)[0] for seed, length in enumerate(lengths)]
    reference = REFERENCES[family](checkpoint.folder)
    expected = np.concatenate([reference.embed(ids[None]) for ids in texts])
    assert_same_vectors(encoder.encode(texts), expected)


# --- int8 -----------------------------------------------------------------------------------------


# Of a ModernBERT of two layers the last has a window.
CLS = (("modernbert", "cls"), ("gte", "cls"), ("jina_bert, normed", "cls"))


@pytest.fixture(
    scope="module", params=[*((family, "mean") for family in FAMILIES), *CLS], ids=" ".join
)
def quantized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Linears]:
    family, pooling = request.param
    folder = tmp_path_factory.mktemp("int8")
    checkpoint = toy(folder, family, FEW_LAYERS[family], {"pooling": pooling})
    ids = token_ids(checkpoint, toy_texts(40))
    return checkpoint, quantize(checkpoint.network(), ids, weight_bits=8, threads=1).linears


def test_int8_vectors_are_close_to_float32_and_independent_of_their_neighbours(
    quantized: tuple[Checkpoint, Linears],
) -> None:
    checkpoint, linears = quantized
    network = checkpoint.network()
    kinds = {name: type(linear) for name, linear in linears.items()}
    by_row = {"layer.1.down"} if checkpoint.settings.pooling == "cls" else set()
    assert {name for name, kind in kinds.items() if kind is BlockwiseLinear} == by_row
    assert FloatLinear not in kinds.values()
    model = network.whole(linears, int8_embeddings=True).SerializeToString()
    encoder = SessionEncoder(model, network.packing(linears))
    texts = token_ids(checkpoint, [*toy_texts(40, seed=5), *toy_texts(2, longest=250)])
    exact, found = one_by_one(float_encoder(checkpoint), texts), one_by_one(encoder, texts)
    cosines = row_cosines(exact, found)
    # Random weights spread an error over all channels; trained ones lose less.
    assert cosines.mean() > 0.998
    assert cosines.min() > 0.99
    assert np.abs(exact - found).max() > 1e-6, "the int8 graph computes in float32"
    most, stream = min(encoder.packing.longest, 30), np.concatenate(texts)
    lengths = [3, 3, most, 2, 1]
    packed = [stream[place : place + length] for place, length in enumerate(lengths)]
    assert np.abs(encoder.encode(packed) - one_by_one(encoder, packed)).max() < 1e-5
    long = [stream[place : place + 150] for place in range(3)]
    assert np.abs(encoder.encode(long) - one_by_one(encoder, long)).max() < 1e-5


def test_graphs_pass_the_checker_and_every_constant_is_read(
    quantized: tuple[Checkpoint, Linears],
) -> None:
    checkpoint, linears = quantized
    network = checkpoint.network()
    for each in (network.float_linears(), linears):
        model = network.whole(each, int8_embeddings=True)
        onnx.checker.check_model(model, full_check=True)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        read = {name for node in all_nodes(model.graph) for name in node.input}
        inputs = {given.name for given in model.graph.input}
        assert {constant.name for constant in model.graph.initializer} - inputs <= read


def all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of a graph and of the graphs inside it."""
    nodes = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                nodes += all_nodes(attribute.g)
    return nodes


@pytest.mark.parametrize("family", FAMILIES)
def test_last_layer_of_cls_pooling_computes_one_row_a_text(family: str, tmp_path: Path) -> None:
    network = toy(tmp_path, family, FEW_LAYERS[family], {"pooling": "cls"}).network()
    hidden = np.random.default_rng(0).standard_normal((3, 9, 32)).astype(np.float32)
    for index, rows in ((0, 9), (1, 1)):
        for site in ("product", "context"):
            model, output = network.layer(
                network.float_linears(), index, until=f"layer.{index}.{site}"
            )
            session = open_session(model.SerializeToString(), 1)
            assert session.run([output], {HIDDEN: hidden})[0].shape[:2] == (3, rows)


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "modernbert"])
def test_norm_of_a_sum_is_one_operator_in_both_layouts(family: str, tmp_path: Path) -> None:
    """ONNX Runtime joins a sum and its norm in one layout only: a text's int8 vector would depend on others."""
    network = toy(tmp_path, family, FEW_LAYERS[family]).network()
    graph = network.whole(network.float_linears(), int8_embeddings=False).graph
    layouts = [
        attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute
    ]
    assert len(layouts) == 2
    for layout in layouts:
        sums = {each.output[0] for each in layout.node if each.op_type == "Add"}
        norms = [each for each in layout.node if each.op_type == "LayerNormalization"]
        of_sums = [each.output[0] for each in norms if each.input[0] in sums]
        # A projection and its bias are a sum, too, and one that has one form in both layouts.
        assert not [name for name in of_sums if ".attention." in name or ".mlp." in name]
        joined = [each for each in layout.node if each.op_type == "SkipLayerNormalization"]
        assert len(joined) >= 2 * 2


def test_window_decides_which_lengths_are_packed(tmp_path: Path) -> None:
    assert float_encoder(toy(tmp_path, "modernbert")).packing == Packing(GROUPS, longest=5)


# --- a whole export, and what is refused ------------------------------------------------------------


# A ModernBERT's texts reach beyond the window of 4, those of a jina beyond a tile.
@pytest.mark.parametrize(("family", "longest"), [("modernbert", 30), ("jina_bert", 130)])
def test_artifact_is_served_and_its_self_test_passes(
    family: str, longest: int, tmp_path: Path
) -> None:
    settings = change(toy_settings(tmp_path), precision="fp32")
    folder = WRITERS[family](
        tmp_path / "model", folder_options={"max_tokens": longest}, **FEW_LAYERS[family]
    )
    model = Model(export(change(settings, source=str(folder))))
    assert model.manifest.family == family
    assert model.self_test_agreement > SAME_VECTORS
    texts = [*toy_texts(6, seed=9), "墨" * longest]
    ids = model.tokenizer.encode(texts).ids
    reference = REFERENCES[family](folder)
    expected = np.concatenate([reference.embed(row[None]) for row in ids]).astype(np.float32)
    assert row_cosines(model.embed(texts), expected).min() > 0.999999


def test_byte_level_tokenizer_of_a_modernbert_is_read(tmp_path: Path) -> None:
    folder = WRITERS["modernbert"](tmp_path)
    write_byte_level_tokenizer(folder)
    checkpoint = read_checkpoint(folder)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = ["ink  well\n search", "墨 a\u0301", "[MASK] x", ""]
    for text, ids in zip(texts, token_ids(checkpoint, texts), strict=True):
        assert ids.tolist() == library.encode(text.lower()).ids


REFUSED: dict[str, tuple[str, dict[str, Any], type[ExportError], str]] = {
    "experts": ("nomic_bert", {"num_experts": 8}, UnsupportedModel, "num_experts 8"),
    "scaling": ("nomic_bert", {"rotary_scaling_factor": 2}, UnsupportedModel, "only None"),
    "part turned": ("nomic_bert", {"rotary_emb_fraction": 0.5}, UnsupportedModel, "only 1.0"),
    "interleaved": ("nomic_bert", {"rotary_emb_interleaved": True}, UnsupportedModel, "leaved"),
    "not gated": ("nomic_bert", {"activation_function": "gelu"}, UnsupportedModel, "swiglu, geglu"),
    "causal": ("nomic_bert", {"causal": True}, UnsupportedModel, "causal True"),
    "no base": ("nomic_bert", {"rotary_emb_base": 0}, CorruptFile, "rotary_emb_base is 0"),
    "odd heads": ("nomic_bert", {"n_embd": 20}, ShapeMismatch, "4 heads 5 channels"),
    "no heads": ("gte", {"num_attention_heads": 5}, ShapeMismatch, "into 5 heads"),
    "absolute": ("gte", {"position_embedding_type": "absolute"}, UnsupportedModel, "only 'rope'"),
    "rms norm": ("gte", {"layer_norm_type": "rms_norm"}, UnsupportedModel, "layer_norm_type"),
    "logn": ("gte", {"logn_attention_scale": True}, UnsupportedModel, "logn_attention_scale"),
    "yarn": ("gte", {"rope_scaling": {"type": "yarn", "factor": 2}}, UnsupportedModel, "ntk"),
    "mixed": (
        "gte",
        {"rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 0.6}},
        UnsupportedModel,
        "mixed_b",
    ),
    "no factor": ("gte", {"rope_scaling": {"type": "ntk"}}, CorruptFile, "factor is None"),
    "scaling of no kind": ("gte", {"rope_scaling": 3}, CorruptFile, "not an object"),
    "nan": ("gte", {"layer_norm_eps": float("nan")}, CorruptFile, "layer_norm_eps is nan"),
    "original": ("jina_bert", {"feed_forward_type": "original"}, UnsupportedModel, "original"),
    "decoder": ("jina_bert", {"is_decoder": True}, UnsupportedModel, "is_decoder True"),
    "window of none": ("modernbert", {"local_attention": 1}, CorruptFile, "local_attention 1"),
    "layer types": ("modernbert", {"layer_types": ["linear"] * 4}, CorruptFile, "layer_types"),
    "too few types": ("modernbert", {"layer_types": ["full_attention"]}, CorruptFile, "4 times"),
    "rope type": (
        "modernbert",
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}},
        UnsupportedModel,
        "yarn",
    ),
}


@pytest.mark.parametrize(("family", "values", "kind", "part"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_written_exactly_is_refused_by_name(
    family: str,
    values: dict[str, Any],
    kind: type[ExportError],
    part: str,
    configs: dict[str, dict[str, Any]],
) -> None:
    config = configs[family] | values
    with pytest.raises(kind) as caught:
        families.of(config).read_shape(config)
    assert part in caught.value.english


def test_layers_of_a_newer_config_are_those_of_an_older_one(
    configs: dict[str, dict[str, Any]],
) -> None:
    older = configs["modernbert"]
    newer = {key: value for key, value in older.items() if "global" not in key}
    del newer["local_rope_theta"]
    newer["layer_types"] = ["full_attention", *["sliding_attention"] * 2, "full_attention"]
    newer["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    assert MODERNBERT.read_shape(newer) == MODERNBERT.read_shape(older)
    # null is the base of the other layers, a missing key 10,000.
    null = MODERNBERT.read_shape(older | {"local_rope_theta": None})
    assert null.layers[1].rotary == null.layers[0].rotary


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("configs")
    return {
        family: json.loads((write(folder / family) / "config.json").read_text(encoding="utf-8"))
        for family, write in WRITERS.items()
    }


def write_byte_level_tokenizer(folder: Path) -> None:
    """Write a tokenizer of ModernBERT's kind: byte-level BPE with [CLS] and [SEP] around a text."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:180]
    places = {token: place for place, token in enumerate([*special, *alphabet, "in", "ink"])}
    built = Tokenizer(models.BPE(places, [("i", "n"), ("in", "k")], unk_token="[UNK]"))
    built.normalizer = normalizers.NFC()
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken("[MASK]", lstrip=True), *special])
    built.save(str(folder / "tokenizer.json"))
