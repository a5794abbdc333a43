"""Rewrites a traced graph to the server's contract: token ids in, pooled vectors out.

int64 input_ids (batch, tokens), all rows of one length, is then the only input, and float32 embedding
(batch, D) the only output. The other inputs of the traced graph are made inside it. The result must
agree with the traced network itself, or nothing is made of it.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.errors import DisagreesWithCheckpoint, ExportError, UnsupportedModel
from export.families.family import OUTPUT
from export.optimum.mask import without_mask
from export.optimum.nodes import Constants, copy_of, filled, store
from export.optimum.trace import Probe, first_line
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import FloatArray
from server.inference.encoder import INPUT_IDS
from server.inference.runtime import open_session
from server.types import unit

# Inputs that a traced graph may have besides INPUT_IDS, and what a text without padding gives them.
FILLED_INPUTS = {"attention_mask": 1, "token_type_ids": 0}
COUNTED_INPUT = "position_ids"
# The row of a text that a pooling takes, where it takes one.
ROWS = {"cls": 0, "lasttoken": -1}
POOLINGS = (*ROWS, "mean", "max")
TRACED_OUTPUT = "last_hidden_state"
# The largest difference between graph and network, as a part of the largest number in a vector.
TOLERANCE = 1e-3


def served_form(
    traced: onnx.ModelProto, settings: SentenceSettings, probes: Sequence[Probe], threads: int
) -> tuple[onnx.ModelProto, int]:
    """Return the rewritten graph and its D: without the mask if that changes nothing, else with it."""
    nodes, constants = _with_contract(traced, settings)
    for candidate in (without_mask(nodes, constants), nodes):
        model = filled(traced, candidate, constants)
        try:
            agrees = _agrees(model, settings, probes, threads)
        except Exception as error:
            # ONNX Runtime raises many classes, all of them directly below Exception.
            failure: ExportError = UnsupportedModel(
                "the graph that optimum wrote cannot be run: {reason}", reason=first_line(error)
            )
        else:
            if agrees:
                return model, int(probes[0].states.shape[-1])
            failure = DisagreesWithCheckpoint(
                "the graph that optimum wrote computes other vectors than its network, so nothing is exported; "
                "choose another model"
            )
    raise failure


def check_token_types(traced: onnx.ModelProto, token_types: Sequence[int]) -> None:
    """Refuse a network that reads token types of a tokenizer that gives a text others than 0."""
    asked = "token_type_ids" in {value.name for value in traced.graph.input}
    if asked and any(token_types):
        raise UnsupportedModel(
            "the tokenizer gives the tokens of a text the types {types}; --via optimum exports only models "
            "whose types are all 0",
            types=tuple(token_types),
        )


def _with_contract(
    traced: onnx.ModelProto, settings: SentenceSettings
) -> tuple[list[onnx.NodeProto], Constants]:
    """Return the traced nodes with the other inputs made from input_ids, and with pooling and norm."""
    others = {value.name for value in traced.graph.input} - {INPUT_IDS}
    if TRACED_OUTPUT not in {value.name for value in traced.graph.output}:
        raise UnsupportedModel("the network gives no {output}", output=TRACED_OUTPUT)
    if unknown := others - FILLED_INPUTS.keys() - {COUNTED_INPUT}:
        names = ", ".join(sorted(unknown))
        raise UnsupportedModel("the network asks for {names} besides token ids", names=names)
    constants: Constants = {tensor.name: tensor for tensor in traced.graph.initializer}
    nodes = [helper.make_node("Shape", [INPUT_IDS], ["input_shape"])]
    if COUNTED_INPUT in others:
        nodes += _positions(constants)
    for name in sorted(others & FILLED_INPUTS.keys()):
        value = helper.make_tensor("value", TensorProto.INT64, [1], [FILLED_INPUTS[name]])
        nodes.append(helper.make_node("ConstantOfShape", ["input_shape"], [name], value=value))
    for node in traced.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constant = copy_of(node.attribute[0].t)
            constant.name = node.output[0]
            constants[constant.name] = constant
        elif node.op_type == "Gemm" and _is_plain(node):
            product = f"{node.output[0]}.product"
            nodes.append(helper.make_node("MatMul", node.input[:2], [product]))
            nodes.append(helper.make_node("Add", [product, node.input[2]], node.output))
        else:
            nodes.append(copy_of(node))
    return [*nodes, *_pooling(settings, constants)], constants


def _is_plain(gemm: onnx.NodeProto) -> bool:
    """Return whether a Gemm is a matrix product and a sum, which can be quantised."""
    values = {each.name: helper.get_attribute_value(each) for each in gemm.attribute}
    transposed = values.get("transA", 0) or values.get("transB", 0)
    scaled = values.get("alpha", 1.0) != 1.0 or values.get("beta", 1.0) != 1.0
    return len(gemm.input) == 3 and not transposed and not scaled


def _positions(constants: Constants) -> list[onnx.NodeProto]:
    """Return nodes that count the tokens of each text from 0."""
    one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
    axis = store(constants, "position_axis", np.array(1, np.int64))
    return [
        helper.make_node("ConstantOfShape", ["input_shape"], ["position_steps"], value=one),
        helper.make_node("CumSum", ["position_steps", axis], [COUNTED_INPUT], exclusive=1),
    ]


def _pooling(settings: SentenceSettings, constants: Constants) -> list[onnx.NodeProto]:
    pooled = "pooled" if settings.normalize else OUTPUT
    if settings.pooling in ROWS:
        row = store(constants, "pooled_row", np.array(ROWS[settings.pooling], np.int64))
        nodes = [helper.make_node("Gather", [TRACED_OUTPUT, row], [pooled], axis=1)]
    else:
        kind = {"mean": "ReduceMean", "max": "ReduceMax"}[settings.pooling]
        axis = store(constants, "pooled_axis", np.array([1], np.int64))
        nodes = [helper.make_node(kind, [TRACED_OUTPUT, axis], [pooled], keepdims=0)]
    if settings.normalize:
        nodes.append(helper.make_node("LpNormalization", [pooled], [OUTPUT], axis=-1, p=2))
    return nodes


def _pool(states: FloatArray, settings: SentenceSettings) -> FloatArray:
    """Pool in numpy as `_pooling` does in the graph: float32 (B, T, D) -> (B, D)."""
    if settings.pooling in ROWS:
        vectors = states[:, ROWS[settings.pooling]]
    else:
        vectors = states.mean(axis=1) if settings.pooling == "mean" else states.max(axis=1)
    if settings.normalize:
        vectors = unit(vectors)
    return np.asarray(vectors, np.float32)


def _agrees(
    model: onnx.ModelProto, settings: SentenceSettings, probes: Sequence[Probe], threads: int
) -> bool:
    session = open_session(model.SerializeToString(), threads)
    if not isinstance(session.get_outputs()[0].shape[1], int):
        # The runtime cannot work out the width, which the server reads there.
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = probes[0].states.shape[-1]
    for probe in probes:
        expected = _pool(probe.states, settings)
        found = session.run([OUTPUT], {INPUT_IDS: probe.ids})[0]
        # Written so that NaN does not agree.
        if found.shape != expected.shape or not (
            np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
        ):
            return False
    return True
