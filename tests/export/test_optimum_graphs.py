"""Graphs as optimum writes them are rewritten without losing what their branches read."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import UnsupportedModel
from export.families.family import OUTPUT
from export.optimum.contract import check_token_types, served_form
from export.optimum.int8 import calibrate, find_sites, quantized
from export.optimum.positions import positions_of
from export.optimum.trace import Probe
from export.source.json_file import Json
from export.source.sentence_settings import SentenceSettings
from server.inference.encoder import INPUT_IDS
from server.inference.runtime import open_session

N_WORDS, WIDTH = 20, 8
IDS = np.array([[0, 5, 7, 9, 2]], np.int64)
random = np.random.default_rng(0)
TABLE, MATRIX = (
    random.standard_normal(shape).astype(np.float32) for shape in ((N_WORDS, WIDTH), (WIDTH, WIDTH))
)
SHIFT = np.linspace(-1, 1, WIDTH, dtype=np.float32)


def branch(name: str, operator: str, other: str) -> onnx.GraphProto:
    """Return a branch that reads two tensors of the graph around it."""
    made = helper.make_tensor_value_info(f"{name}_made", TensorProto.FLOAT, None)
    node = helper.make_node(operator, ["product", other], [f"{name}_made"])
    return helper.make_graph([node], name, [], [made])


def traced(*inputs: str, sums: str = "MatMul") -> onnx.ModelProto:
    """Return words[ids] @ matrix + shift, where the sum is in a branch and the shift a constant outside it."""
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("Constant", [], ["shift"], value=numpy_helper.from_array(SHIFT)),
        helper.make_node("Gather", ["words", INPUT_IDS], ["hidden"]),
        helper.make_node("Identity", ["hidden"], ["alias"]),
        helper.make_node(sums, ["alias", "matrix"], ["product"]),
        helper.make_node(
            "If",
            ["yes"],
            ["last_hidden_state"],
            then_branch=branch("then", "Add", "shift"),
            else_branch=branch("else", "Mul", "alias"),
        ),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"])
        for name in (INPUT_IDS, *inputs)
    ]
    states = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "t", "d"])
    constants = [
        numpy_helper.from_array(array, name)
        for name, array in (("words", TABLE), ("matrix", MATRIX))
    ]
    graph = helper.make_graph(nodes, "traced", values, [states], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def settings(pooling: str = "mean") -> SentenceSettings:
    return SentenceSettings(pooling, True, 16, False, {}, None)


def states(ids: np.ndarray) -> np.ndarray:
    return np.asarray(TABLE[ids] @ MATRIX + SHIFT, np.float32)


@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "cls", "max"])
def test_branches_keep_what_they_read_of_the_graph_around_them(pooling: str) -> None:
    probes = [Probe(IDS, states(IDS)), Probe(IDS[:, :3], states(IDS[:, :3]))]
    float_model, width = served_form(traced("attention_mask"), settings(pooling), probes, 1)
    assert width == WIDTH
    sites = find_sites(float_model)
    rows = calibrate(float_model, sites, [IDS[0]], 1)
    served = quantized(float_model, sites, rows, limit=127)
    exact, found = (
        open_session(model.SerializeToString(), 1).run([OUTPUT], {INPUT_IDS: IDS})[0]
        for model in (float_model, served)
    )
    assert (exact * found).sum() > 0.999
    for model in (float_model, served):
        # The server reads the width there, which no runtime can work out behind this If.
        assert open_session(model.SerializeToString(), 1).get_outputs()[0].shape[1] == WIDTH
    assert TensorProto.INT8 in {tensor.data_type for tensor in served.graph.initializer}


def test_graph_that_cannot_be_run_is_refused_with_its_reason() -> None:
    with pytest.raises(UnsupportedModel, match=r"cannot be run: .*NoSuchOperator"):
        served_form(traced(sums="NoSuchOperator"), settings(), [Probe(IDS, states(IDS))], 1)


def test_token_types_that_the_graph_would_not_get_are_refused() -> None:
    typed = traced("token_type_ids")
    with pytest.raises(UnsupportedModel, match="the types 2, 0, 0"):
        check_token_types(typed, [2, 0, 0])
    check_token_types(typed, [0, 0, 0])
    check_token_types(traced(), [2, 0, 0])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "electra", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "bloom"}, 512),
    ],
)
def test_positions_behind_the_padding_token_are_not_counted(config: Json, expected: int) -> None:
    assert positions_of(config) == expected
