"""Rewrites a traced graph to the server's contract: token ids in, pooled vectors out.

int64 input_ids (batch, tokens), all rows of one length, is then the only input, and float32 embedding
(batch, D) the only output. The other inputs of the traced graph are made inside it. The result must
agree with the traced network itself, or nothing is made of it.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.errors import DisagreesWithCheckpoint, UnsupportedModel
from export.families.family import OUTPUT
from export.optimum.mask import without_mask
from export.optimum.nodes import Constants, copy_of, filled, store
from export.optimum.trace import Probe
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import FloatArray
from server.inference.encoder import INPUT_IDS
from server.inference.runtime import open_session
from server.types import unit

# Inputs that a traced graph may have besides INPUT_IDS, and what a text without padding gives them.
FILLED_INPUTS = {"attention_mask": 1, "token_type_ids": 0}
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
        if _agrees(model, settings, probes, threads):
            return model, int(probes[0].states.shape[-1])
    raise DisagreesWithCheckpoint(
        "the graph that optimum wrote computes other vectors than its network"
    )


def _with_contract(
    traced: onnx.ModelProto, settings: SentenceSettings
) -> tuple[list[onnx.NodeProto], Constants]:
    """Return the traced nodes with the other inputs made from input_ids, and with pooling and norm."""
    others = {value.name for value in traced.graph.input} - {INPUT_IDS}
    if unknown := others - FILLED_INPUTS.keys():
        names = ", ".join(sorted(unknown))
        raise UnsupportedModel("the network asks for {names} besides token ids", names=names)
    constants: Constants = {tensor.name: tensor for tensor in traced.graph.initializer}
    nodes = [helper.make_node("Shape", [INPUT_IDS], ["input_shape"])]
    for name in sorted(others):
        value = helper.make_tensor("value", TensorProto.INT64, [1], [FILLED_INPUTS[name]])
        nodes.append(helper.make_node("ConstantOfShape", ["input_shape"], [name], value=value))
    for node in traced.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constant = copy_of(node.attribute[0].t)
            constant.name = node.output[0]
            constants[constant.name] = constant
        else:
            nodes.append(copy_of(node))
    return [*nodes, *_pooling(settings, constants)], constants


def _pooling(settings: SentenceSettings, constants: Constants) -> list[onnx.NodeProto]:
    pooled = "pooled" if settings.normalize else OUTPUT
    if settings.pooling == "cls":
        row = store(constants, "pooled_row", np.array(0, np.int64))
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
    if settings.pooling == "cls":
        vectors = states[:, 0]
    else:
        vectors = states.mean(axis=1) if settings.pooling == "mean" else states.max(axis=1)
    if settings.normalize:
        vectors = unit(vectors)
    return np.asarray(vectors, np.float32)


def _agrees(
    model: onnx.ModelProto, settings: SentenceSettings, probes: Sequence[Probe], threads: int
) -> bool:
    session = open_session(model.SerializeToString(), threads)
    for probe in probes:
        expected = _pool(probe.states, settings)
        found = session.run([OUTPUT], {INPUT_IDS: probe.ids})[0]
        # Written so that NaN does not agree.
        if found.shape != expected.shape or not (
            np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
        ):
            return False
    return True
