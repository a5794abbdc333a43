"""The float32 graph against a BERT in numpy, and what every written graph promises."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from export.checkpoint import Checkpoint
from export.families.batches import GROUPS
from export.families.embeddings import quantize_rows
from export.graph import IR_VERSION, OPSET
from export.quantisation.quantise import quantize
from server.inference.encoder import SessionEncoder, pack
from server.inference.runtime import open_session
from server.types import Ids, Packing
from tests.support.encoders import (
    SHAPES,
    float_encoder,
    one_by_one,
    random_ids,
    token_ids,
    toy_network,
)
from tests.support.reference_bert import ReferenceBert
from tests.support.toys import toy_texts

# What a toy's graph may be given together.
ANY = Packing(GROUPS, longest=64)
# float32 rounding, measured at 1e-7 to 3e-7 of a vector's length.
ROUNDING = 2e-6


def assert_same_vectors(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < ROUNDING


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES.keys())
def test_float_graph_equals_the_numpy_reference(options: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path, **options)
    reference, encoder = ReferenceBert(checkpoint.folder), float_encoder(checkpoint)
    longest = checkpoint.settings.max_tokens
    for n_texts in range(1, 5):
        for n_tokens in (1, 2, 3, 4, 5, 8, 17, 32, longest):
            texts = random_ids(n_texts, n_tokens)
            assert_same_vectors(encoder.encode(texts), reference.embed(np.stack(texts)))


@pytest.mark.parametrize("n_tokens", range(1, 65))
def test_every_length_up_to_the_maximum_equals_the_reference(
    n_tokens: int, toy: Checkpoint, toy_encoder: SessionEncoder, toy_reference: ReferenceBert
) -> None:
    texts = random_ids(2, n_tokens)
    assert_same_vectors(toy_encoder.encode(texts), toy_reference.embed(np.stack(texts)))


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize(
    "lengths",
    [
        (5, 9),
        (9, 5),
        (1, 64),
        (3, 3, 7, 7, 7),
        (7, 3, 7),
        (2, 2, 2, 64),
        tuple(range(1, GROUPS + 1)),
        tuple(range(60, 60 - GROUPS, -1)),
        tuple(length for length in range(1, GROUPS + 1) for _ in range(2)),
    ],
    ids=str,
)
def test_texts_of_several_lengths_together_equal_the_reference(
    lengths: tuple[int, ...], pooling: str, tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, pooling=pooling)
    reference = ReferenceBert(checkpoint.folder)
    texts = [random_ids(1, length, seed)[0] for seed, length in enumerate(lengths)]
    expected = np.concatenate([reference.embed(ids[None]) for ids in texts])
    assert_same_vectors(float_encoder(checkpoint).encode(texts), expected)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_token_beyond_the_first_decides_the_vector(pooling: str, tmp_path: Path) -> None:
    encoder = float_encoder(toy_network(tmp_path, pooling=pooling))
    text = random_ids(1, 12)[0]
    for place in (1, 6, 11):
        other = text.copy()
        other[place] = (other[place] + 1) % 90
        assert np.abs(encoder.encode([text]) - encoder.encode([other])).max() > 1e-3


def test_text_longer_than_the_maximum_is_refused(toy_encoder: SessionEncoder) -> None:
    with pytest.raises(Exception, match="bounds|broadcast|BroadcastIterator"):
        toy_encoder.encode(random_ids(1, 65))


# --- contracts of every graph ---------------------------------------------------------------------

GRAPHS = [
    (precision, pooling, normalize)
    for precision in ("fp32", "int8")
    for pooling in ("cls", "mean", "max")
    for normalize in (True, False)
]


@pytest.fixture(scope="module", params=GRAPHS, ids=lambda graph: "-".join(map(str, graph)))
def graph(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    precision, pooling, normalize = request.param
    folder = tmp_path_factory.mktemp("graph")
    checkpoint = toy_network(folder, pooling=pooling, normalize=normalize)
    return written(checkpoint, precision)


def written(checkpoint: Checkpoint, precision: str) -> onnx.ModelProto:
    if precision == "fp32":
        return checkpoint.network().whole(
            checkpoint.network().float_linears(), int8_embeddings=False
        )
    ids = token_ids(checkpoint, toy_texts(20))
    quantized = quantize(checkpoint.network(), ids, weight_bits=8, threads=1)
    return checkpoint.network().whole(quantized.linears, int8_embeddings=True)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_graphs(attribute.g)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for each in all_graphs(graph):
        yield from each.node


def test_graph_passes_the_checker_and_strict_shape_inference(graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    shape_inference.infer_shapes(graph, check_type=True, strict_mode=True)


def test_graph_needs_only_input_ids_and_gives_one_vector_a_text(graph: onnx.ModelProto) -> None:
    session = open_session(graph.SerializeToString(), 1)
    assert [given.name for given in session.get_inputs()] == ["input_ids"]
    assert {given.type.tensor_type.elem_type for given in graph.graph.input} == {TensorProto.INT64}
    (output,) = graph.graph.output
    assert output.name == "embedding"
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    texts, width = output.type.tensor_type.shape.dim
    assert texts.dim_param
    assert width.dim_value == 32


def test_graph_has_the_optional_inputs_of_a_packed_batch(graph: onnx.ModelProto) -> None:
    given = {value.name for value in graph.graph.input}
    packed = pack([*random_ids(2, 3), *random_ids(1, 5)], ANY, 32)
    assert given == packed.keys()
    assert len(given) > 1


def test_graph_states_its_opset_and_ir_version(graph: onnx.ModelProto) -> None:
    assert {opset.domain: opset.version for opset in graph.opset_import} == {
        "": OPSET,
        "com.microsoft": 1,
    }
    assert graph.ir_version == IR_VERSION
    assert {node.domain for node in all_nodes(graph.graph)} <= {"", "com.microsoft"}


def test_every_node_has_a_name_that_its_graph_has_once(graph: onnx.ModelProto) -> None:
    for each in all_graphs(graph.graph):
        names = [node.name for node in each.node]
        assert names
        assert all(names)
        assert len(names) == len(set(names))


def test_every_constant_is_read_by_some_node(graph: onnx.ModelProto) -> None:
    read = {name for node in all_nodes(graph.graph) for name in node.input}
    # An optional input is a constant too; mean and max pooling do not ask for the first rows.
    inputs = {given.name for given in graph.graph.input}
    assert {constant.name for constant in graph.graph.initializer} - inputs <= read


def test_normalised_vectors_have_length_one_and_others_do_not(graph: onnx.ModelProto) -> None:
    encoder = SessionEncoder(graph.SerializeToString(), ANY)
    lengths = np.linalg.norm(encoder.encode(random_ids(3, 9)), axis=1)
    normalises = any(node.op_type == "LpNormalization" for node in all_nodes(graph.graph))
    assert np.allclose(lengths, 1, atol=1e-6) == normalises


def test_int8_graph_keeps_no_float_matrix(graph: onnx.ModelProto) -> None:
    floats = {
        constant.name: numpy_helper.to_array(constant).shape
        for constant in graph.graph.initializer
        if constant.data_type == TensorProto.FLOAT
    }
    matrices = {name for name, shape in floats.items() if len(shape) == 2 and min(shape) > 1}
    matrices -= {"embeddings.positions.float"}
    is_int8 = any(node.op_type == "MatMulIntegerToFloat" for node in all_nodes(graph.graph))
    assert bool(matrices) != is_int8


# --- the last layer of CLS pooling ----------------------------------------------------------------


def rows_of_every_node(model: onnx.ModelProto, texts: list[Ids], folder: Path) -> dict[str, int]:
    """Run a graph as written; returns how many rows (vectors) each node that ran produced."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    width = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    session.run(None, pack(texts, ANY, width))
    rows = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        shapes = event.get("args", {}).get("output_type_shape")
        if event["cat"] == "Node" and shapes:
            (shape,) = shapes[0].values()
            rows[event["name"].removesuffix("_kernel_time")] = math.prod(shape[:-1])
    return rows


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("lengths", [(6,), (6, 6, 6), (6, 9, 9)], ids=str)
def test_from_the_last_query_on_cls_pooling_computes_one_row_a_text(
    precision: str, lengths: tuple[int, ...], tmp_path: Path
) -> None:
    model = written(toy_network(tmp_path), precision)
    texts = [random_ids(1, length, seed)[0] for seed, length in enumerate(lengths)]
    rows = rows_of_every_node(model, texts, tmp_path)
    for index, expected in ((0, sum(lengths)), (1, len(lengths))):
        layer = f"encoder.layer.{index}"
        after = ("attention.output.dense", "intermediate.dense", "output.dense", "output.LayerNorm")
        found = {part: rows[f"{layer}.{part}"] for part in ("attention.self.query", *after)}
        assert found == dict.fromkeys(found, expected)
    attention = "encoder.layer.0.attention.self"
    assert {rows[f"{attention}.{part}"] for part in ("key", "value")} == {sum(lengths)}
    attention = "encoder.layer.1.attention.self"
    by_head = {name: n for name, n in rows.items() if re.fullmatch(rf"{attention}\.\w+\.\d", name)}
    assert by_head == {
        f"{attention}.{part}.{head}": len(lengths) for part in ("key", "value") for head in range(4)
    }


def test_mean_pooling_computes_every_row_of_the_last_layer(tmp_path: Path) -> None:
    model = written(toy_network(tmp_path, pooling="mean"), "fp32")
    rows = rows_of_every_node(model, random_ids(3, 6), tmp_path)
    assert rows["encoder.layer.1.output.LayerNorm"] == 18


# --- the word table -------------------------------------------------------------------------------


def test_word_table_in_int8_is_within_half_a_step_of_the_floats() -> None:
    table = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    table[3] *= 1000
    rows, scale = quantize_rows(table)
    assert rows.dtype == np.int8
    assert scale.shape == (50, 1)
    assert (np.abs(rows * scale - table) <= scale * 0.5001).all()
    assert (np.abs(rows.astype(int)).max(axis=1) == 127).all()


def test_word_of_zeros_stays_zero() -> None:
    rows, scale = quantize_rows(np.zeros((1, 4), dtype=np.float32))
    assert not rows.any()
    assert scale[0, 0] == 1


def test_int8_word_table_alone_moves_no_vector_far(tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path)
    model = checkpoint.network().whole(checkpoint.network().float_linears(), int8_embeddings=True)
    texts = token_ids(checkpoint, toy_texts(20))
    found = one_by_one(SessionEncoder(model.SerializeToString(), ANY), texts)
    exact = one_by_one(float_encoder(checkpoint), texts)
    cosines = (found * exact).sum(axis=1)
    assert 0.999 < cosines.min() < 0.9999999


# --- fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return toy_network(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def toy_encoder(toy: Checkpoint) -> SessionEncoder:
    return float_encoder(toy)


@pytest.fixture(scope="module")
def toy_reference(toy: Checkpoint) -> ReferenceBert:
    return ReferenceBert(toy.folder)
