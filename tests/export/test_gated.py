"""Encoders with gated feed-forward layers: the graphs against numpy, packed batches, int8, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import shape_inference

from export.checkpoint import Checkpoint, read_checkpoint
from export.families.batches import GROUPS
from export.quantise import quantize
from server.inference.comparison import row_cosines
from server.types import Packing
from tests.support.encoders import float_encoder, int8_encoder, one_by_one, random_ids, token_ids
from tests.support.gated_toys import WRITERS
from tests.support.reference_gated import REFERENCES
from tests.support.toys import toy_texts

# float32 rounding, of a vector's length.
ROUNDING = 3e-6
LENGTHS = (1, 2, 4, 5, 6, 8, 9, 17, 33, 127, 128, 129, 300)
FAMILIES = tuple(WRITERS)

OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "modernbert, cls": ("modernbert", {}, {"pooling": "cls"}),
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


@pytest.mark.parametrize("weight_bits", [8, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_int8_vectors_are_close_to_float32_and_independent_of_their_neighbours(
    family: str, weight_bits: int, tmp_path: Path
) -> None:
    checkpoint = toy(tmp_path, family)
    texts = token_ids(checkpoint, [*toy_texts(40, seed=5), *toy_texts(2, longest=250)])
    encoder = int8_encoder(checkpoint, weight_bits)
    exact, found = one_by_one(float_encoder(checkpoint), texts), one_by_one(encoder, texts)
    cosines = row_cosines(exact, found)
    # Random weights spread an error over all channels; trained ones lose less.
    assert cosines.mean() > 0.997
    assert cosines.min() > 0.98
    assert np.abs(exact - found).max() > 1e-6, "the int8 graph computes in float32"
    most = min(encoder.packing.longest, 30)
    stream = np.concatenate(texts)
    alone = [stream[index : index + length] for index, length in enumerate([3, 3, most, 2, 1])]
    assert np.abs(encoder.encode(alone) - one_by_one(encoder, alone)).max() < 1e-5
    long = [stream[index : index + 150] for index in range(3)]
    assert np.abs(encoder.encode(long) - one_by_one(encoder, long)).max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_pass_the_checker_and_every_constant_is_read(family: str, tmp_path: Path) -> None:
    network = toy(tmp_path, family).network()
    ids = [random_ids(1, length)[0] for length in range(3, 30)]
    for linears in (
        network.float_linears(),
        quantize(network, ids, weight_bits=8, threads=1).linears,
    ):
        model = network.whole(linears, int8_embeddings=True)
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


def test_window_decides_which_lengths_are_packed(tmp_path: Path) -> None:
    assert float_encoder(toy(tmp_path, "modernbert")).packing == Packing(GROUPS, longest=5)
