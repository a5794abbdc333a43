"""Static int8 for a traced graph, in standard operators (QuantizeLinear, DequantizeLinear).

Weights have a scale per output channel and activations one per tensor, smoothed and bias-corrected like
those of `quantise.py`, but from one pass over the float graph. bge-small-zh-v1.5 traced this way
(2026-11-23, 200 calibration texts, cosine to float32, mean / minimum over 360 others): onnxruntime's
quantize_static 0.9865 / 0.976, with smoothing 0.9983 / 0.988; this 0.9990 / 0.998, with 7-bit weights
0.9978 / 0.996.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import UnsupportedModel
from export.optimum.nodes import Constants, filled, store
from export.quantisation.ranges import (
    Choice,
    Rows,
    fake_quantize,
    quantize_columns,
    smoothing_divisor,
)
from export.source.tensors import FloatArray
from server.inference.encoder import INPUT_IDS
from server.inference.runtime import open_session

Int64Array = npt.NDArray[np.int64]

# Names this recipe in manifests; change it with anything that changes the numbers.
RECIPE = "static-int8-qdq-smoothquant-1"
# Tried for each activation; None leaves it unscaled.
ALPHAS = (None, 0.5, 0.65, 0.8, 0.9)
# Rows of the word embeddings that are quantised at a time, to bound the memory it takes.
TABLE_ROWS = 16384
# Rows of an activation that the choice is made on.
SAMPLED_ROWS = 2048
# An activation's name -> the names of the matrices, float32 (K, N), that it is multiplied by.
Sites = dict[str, list[str]]


def find_sites(model: onnx.ModelProto) -> Sites:
    matrices = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }
    sites: Sites = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            sites.setdefault(node.input[0], []).append(node.input[1])
    if not sites:
        raise UnsupportedModel(
            "the network has no matrix products with weights to quantise; export it with --precision fp16"
        )
    return sites


def calibrate(
    model: onnx.ModelProto, sites: Sites, token_ids: Sequence[Int64Array], threads: int
) -> dict[str, Rows]:
    """Return a few rows and the range of each activation; runs the float graph a text at a time."""
    graph, n_outputs = model.graph, len(model.graph.output)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sites)
    session = open_session(model.SerializeToString(), threads)
    del graph.output[n_outputs:]
    random = np.random.default_rng(0)
    share = max(1, SAMPLED_ROWS // len(token_ids))
    sampled: dict[str, list[FloatArray]] = {name: [] for name in sites}
    low: dict[str, FloatArray] = {}
    high: dict[str, FloatArray] = {}
    for ids in token_ids:
        for name, activation in zip(
            sites, session.run(list(sites), {INPUT_IDS: ids[None]}), strict=True
        ):
            flat = activation.reshape(-1, activation.shape[-1])
            # The first row is the one that CLS pooling reads.
            chosen = np.concatenate([[0], 1 + random.permutation(len(flat) - 1)[: share - 1]])
            sampled[name].append(flat[chosen])
            low[name] = np.minimum(low.get(name, np.inf), flat.min(axis=0))
            high[name] = np.maximum(high.get(name, -np.inf), flat.max(axis=0))
    return {name: Rows(np.concatenate(sampled[name]), low[name], high[name]) for name in sites}


def quantized(
    model: onnx.ModelProto, sites: Sites, rows: Mapping[str, Rows], *, limit: int
) -> onnx.ModelProto:
    """Return a second model with int8 weights and word embeddings; `model` does not change."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = dict(weights)
    biases = _find_biases(model, weights)
    smoothed: dict[str, Choice] = {}
    corrected: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        site = node.input[0] if node.input else ""
        if node.op_type == "MatMul" and node.input[1] in sites.get(site, ()):
            if site not in smoothed:
                matrices = [numpy_helper.to_array(weights[name]) for name in sites[site]]
                smoothed[site] = _search(rows[site], np.concatenate(matrices, axis=1), limit)
                nodes += _quantize_activation(site, smoothed[site], constants)
            matrix, product = numpy_helper.to_array(weights[node.input[1]]), node.output[0]
            nodes += _quantize_product(node, matrix, smoothed[site], limit, constants)
            if product in biases:
                drift = _drift(rows[site], matrix, smoothed[site], limit)
                bias = numpy_helper.to_array(weights[biases[product]]) - drift
                corrected[product] = store(constants, f"{product}.bias", bias)
        elif node.op_type == "Add" and (product := _first_in(node.input, corrected)):
            nodes.append(helper.make_node("Add", [product, corrected[product]], node.output))
        elif node.op_type == "Gather" and node.input[1] == INPUT_IDS and site in weights:
            nodes += _quantize_table(node, numpy_helper.to_array(weights[site]), constants)
        else:
            nodes.append(node)
    served = filled(onnx.ModelProto(), nodes, constants)
    served.graph.output[0].CopyFrom(model.graph.output[0])
    return served


def _search(rows: Rows, weight: FloatArray, limit: int) -> Choice:
    """Return the choice with the least error of the product on the sampled rows."""
    exact = rows.sampled @ weight
    choices = []
    for alpha in ALPHAS:
        divisor = np.ones(len(weight), np.float32)
        if alpha is not None:
            divisor = smoothing_divisor(rows, weight, alpha)
        low = min(float((rows.low / divisor).min()), 0.0)
        high = max(float((rows.high / divisor).max()), 0.0)
        levels, scale = quantize_columns(weight * divisor[:, None], limit)
        found = fake_quantize(rows.sampled / divisor, low, high) @ (levels * scale)
        error = float(np.square(found - exact).sum())
        choices.append(Choice(alpha, divisor, low, high, error))
    return min(choices, key=lambda choice: choice.error)


def _quantize_activation(
    site: str, smoothing: Choice, constants: Constants
) -> list[onnx.NodeProto]:
    """Return nodes from `site` through uint8 to `site`.dequantized."""
    nodes, read = [], site
    if smoothing.alpha is not None:
        factor = store(constants, f"{site}.smoothing", 1 / smoothing.divisor)
        read = f"{site}.smoothed"
        nodes.append(helper.make_node("Mul", [site, factor], [read]))
    quantizer = smoothing.quantizer
    scale = store(constants, f"{site}.scale", np.float32(quantizer.scale))
    zero_point = store(constants, f"{site}.zero_point", np.uint8(quantizer.zero_point))
    quantized, output = f"{site}.quantized", f"{site}.dequantized"
    return [
        *nodes,
        helper.make_node("QuantizeLinear", [read, scale, zero_point], [quantized]),
        helper.make_node("DequantizeLinear", [quantized, scale, zero_point], [output]),
    ]


def _find_biases(model: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]) -> dict[str, str]:
    """Return, for each matrix product with a bias, its name -> the constant added to it."""
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    biases = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            for name, other in (node.input, node.input[::-1]):
                if name in products and other in weights and len(weights[other].dims) == 1:
                    biases[name] = other
    return biases


def _first_in(names: Iterable[str], mapping: Mapping[str, str]) -> str:
    return next((name for name in names if name in mapping), "")


def _drift(rows: Rows, matrix: FloatArray, smoothing: Choice, limit: int) -> FloatArray:
    """Return the mean error of the quantised product over the sampled rows, float32 (N,)."""
    divided = rows.sampled / smoothing.divisor
    levels, scale = quantize_columns(matrix * smoothing.divisor[:, None], limit)
    found = fake_quantize(divided, smoothing.low, smoothing.high).mean(axis=0) @ (levels * scale)
    return np.asarray(found - rows.sampled.mean(axis=0) @ matrix, np.float32)


def _quantize_product(
    node: onnx.NodeProto, matrix: FloatArray, smoothing: Choice, limit: int, constants: Constants
) -> list[onnx.NodeProto]:
    """Return the product with an int8 matrix, named by its output: a shared one is divided twice."""
    site, name, output = node.input[0], f"{node.output[0]}.weight", node.output[0]
    levels, scale = quantize_columns(matrix * smoothing.divisor[:, None], limit)
    inputs = [
        store(constants, name, levels.astype(np.int8)),
        store(constants, f"{name}.scale", scale),
        store(constants, f"{name}.zero_point", np.zeros(len(scale), np.int8)),
    ]
    return [
        helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], axis=1),
        helper.make_node("MatMul", [f"{site}.dequantized", f"{name}.dequantized"], [output]),
    ]


def _quantize_table(
    node: onnx.NodeProto, table: FloatArray, constants: Constants
) -> list[onnx.NodeProto]:
    """Return word embeddings in int8 with a scale per row; only the rows that are read are widened."""
    output = node.output[0]
    levels = np.empty(table.shape, np.int8)
    scale = np.empty((len(table), 1), np.float32)
    for start in range(0, len(table), TABLE_ROWS):
        part = slice(start, start + TABLE_ROWS)
        columns, scale[part, 0] = quantize_columns(table[part].T, 127)
        levels[part] = columns.T
    rows = store(constants, f"{output}.table", levels)
    # Not "{output}.scale": the table's rows may be quantised themselves, and have a scale of that name.
    scales = store(constants, f"{output}.table_scale", scale)
    return [
        helper.make_node("Gather", [rows, INPUT_IDS], [f"{output}.row"]),
        helper.make_node("Gather", [scales, INPUT_IDS], [f"{output}.row_scale"]),
        helper.make_node("Cast", [f"{output}.row"], [f"{output}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.float", f"{output}.row_scale"], [output]),
    ]
