"""The optional route for networks that `bert.py` does not write: optimum traces them with torch.

What optimum writes is rewritten to the server's contract: int64 input_ids (batch, tokens), all rows
of one length, is the only input, and float32 embedding (batch, D) the only output. The mask that
optimum's graph asks for is then all ones: it is made inside the graph, followed to where it is
added to the attention's scores or selects among them, and taken out there. Pooling and the norm are
appended. The result must agree with the traced network itself before anything is made of it.

int8 is static, in standard operators (QuantizeLinear, DequantizeLinear): weights per output
channel, activations per tensor, smoothed and bias-corrected like those of `quantise.py`, but from
one pass over the float graph. bge-small-zh-v1.5 traced this way (2026-11-23, 200 calibration texts,
cosine to float32, mean / minimum over 360 others): onnxruntime's quantize_static 0.9865 / 0.976,
with smoothing 0.9983 / 0.988; this 0.9990 / 0.998, with 7-bit weights 0.9978 / 0.996.
"""

import gc
import logging
import operator
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.checkpoint import FloatArray, SentenceSettings
from export.errors import (
    BadTexts,
    DisagreesWithCheckpoint,
    ExportError,
    MissingPackage,
    ShapeMismatch,
    UnsupportedModel,
)
from export.families.bert import OUTPUT
from export.graph import IR_VERSION, OPSET
from export.hub import quiet_libraries
from export.quantise import Rows, fake_quantize, quantize_columns, smoothing_divisor
from server.inference.encoder import INPUT_IDS
from server.inference.runtime import open_session
from server.types import unit

Int64Array = npt.NDArray[np.int64]
Progress = Callable[[str], None]
Constants = dict[str, onnx.TensorProto]
Number = bool | int | float
Message = TypeVar("Message", onnx.NodeProto, onnx.TensorProto)

# Names this recipe in manifests; change it with anything that changes the numbers.
RECIPE = "static-int8-qdq-smoothquant-1"

# Inputs that a traced graph may have besides INPUT_IDS, and what a text without padding gives them.
FILLED_INPUTS = {"attention_mask": 1, "token_type_ids": 0}
TRACED_OUTPUT = "last_hidden_state"
# One ONNX file, and one protobuf message, holds less than this.
MAX_MODEL_BYTES = 2**31 - 1
# (texts, tokens) that the rewritten graph is compared with the network on; tracing used (2, 16).
PROBES = ((1, 3), (2, 16), (3, 7), (1, 29))
# The largest difference between the two, as a part of the largest number in a vector.
TOLERANCE = 1e-3
# Tried for each activation; None leaves it as it is.
ALPHAS = (None, 0.5, 0.65, 0.8, 0.9)
# Rows of the word embeddings that are quantised at a time, to bound the memory it takes.
TABLE_ROWS = 16384
# Rows of an activation that the choice is made on.
SAMPLED_ROWS = 2048


@dataclass(frozen=True, slots=True)
class OptimumGraphs:
    """float_model: the float32 reference; served_model: the same object where that was asked for.

    hidden: D, the width of a vector.
    """

    float_model: onnx.ModelProto
    served_model: onnx.ModelProto
    hidden: int


def build_with_optimum(
    source: Path,
    settings: SentenceSettings,
    token_ids: Sequence[Int64Array],
    *,
    precision: str,
    threads: int,
    weight_bits: int = 8,
    allow_pickle: bool = False,
    progress: Progress = lambda _: None,
) -> OptimumGraphs:
    """Both graphs of the checkpoint in `source`; raises an ExportError if that cannot be done.

    token_ids: one int64 (T,) array per calibration text. precision: "int8" or "fp32".
    """
    progress("trace")
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        traced, probes = _trace(source, Path(scratch), token_ids, threads, allow_pickle)
    # torch's network refers to itself, and would stay in memory beside the graph.
    gc.collect()
    float_model, hidden = _served_form(traced, settings, probes, threads)
    if precision == "fp32":
        return OptimumGraphs(float_model, float_model, hidden)
    progress("calibrate")
    sites = _find_sites(float_model)
    rows = _calibrate(float_model, sites, token_ids, threads)
    progress("quantise")
    served_model = _quantized(float_model, sites, rows, limit=2 ** (weight_bits - 1) - 1)
    return OptimumGraphs(float_model, served_model, hidden)


# --- tracing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Probe:
    """ids: int64 (B, T); states: float32 (B, T, D), the network's last hidden states for them."""

    ids: Int64Array
    states: FloatArray


def _trace(
    source: Path,
    scratch: Path,
    token_ids: Sequence[Int64Array],
    threads: int,
    allow_pickle: bool,
) -> tuple[onnx.ModelProto, list[_Probe]]:
    """Optimum's graph of the network in `source`, and what torch computes with that network."""
    quiet_libraries(scratch / "home")
    with warnings.catch_warnings():
        # torch and transformers warn of their own future, and of every number in a trace.
        warnings.simplefilter("ignore")
        try:
            import torch
            from optimum.exporters.onnx import onnx_export_from_model
            from transformers import AutoModel
        except ImportError as error:
            raise MissingPackage(
                "--via optimum cannot import {error_name}: install the export-any extra",
                error_name=error.name,
            ) from None
        for name in ("transformers", "optimum"):
            logging.getLogger(name).setLevel(logging.ERROR)
        torch.set_num_threads(threads)
        network = _load(AutoModel, source, torch.float32, allow_pickle=allow_pickle)
        probes = []
        try:
            with torch.inference_mode():
                for ids in _probe_ids(token_ids):
                    states = network(input_ids=torch.from_numpy(ids)).last_hidden_state
                    probes.append(_Probe(ids, states.numpy()))
            onnx_export_from_model(
                network, scratch, opset=OPSET, task="feature-extraction", do_validation=False
            )
        except ExportError:
            raise
        except Exception as error:
            # Whatever torch or optimum raises, it is about a network they cannot run or trace.
            raise _unsupported(source, error) from None
    return onnx.load(scratch / "model.onnx"), probes


def _load(auto_model: Any, source: Path, dtype: Any, *, allow_pickle: bool) -> Any:
    """The network in float32; never with code from the folder, and with all of its weights."""
    try:
        network, report = auto_model.from_pretrained(
            source,
            attn_implementation="eager",
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=None if allow_pickle else True,
            output_loading_info=True,
        )
    except Exception as error:
        # transformers raises OSError, ValueError, KeyError, RuntimeError and more for a folder.
        raise _unsupported(source, error) from None
    # transformers makes weights up where a file has none; the pooler's are not used.
    missing = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
    if missing:
        names = ", ".join(sorted(missing)[:3])
        raise ShapeMismatch(
            "{source} lacks {n_missing} weights of its network, {names} among them",
            source=source,
            n_missing=len(missing),
            names=names,
        )
    needed = 4 * sum(weight.numel() for weight in network.parameters())
    if needed > MAX_MODEL_BYTES:
        raise UnsupportedModel(
            "{source} has {needed:.1f} GB of float32 weights; one ONNX file holds 2.1",
            source=source,
            needed=needed / 1000000000.0,
        )
    return network.eval()


def _unsupported(source: Path, error: Exception) -> UnsupportedModel:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return UnsupportedModel(
        "optimum cannot export {source}: {reason}", source=source, reason=reason
    )


def _probe_ids(token_ids: Sequence[Int64Array]) -> Iterator[Int64Array]:
    """Int64 (B, T) of each of PROBES, from the calibration texts where they are long enough."""
    if not any(len(ids) >= PROBES[0][1] for ids in token_ids):
        raise BadTexts(
            "no calibration text has {PROBES} tokens",
            PROBES=PROBES[0][1],
        )
    for n_texts, n_tokens in PROBES:
        long_enough = [ids for ids in token_ids if len(ids) >= n_tokens][:n_texts]
        if len(long_enough) == n_texts:
            yield np.stack([ids[:n_tokens] for ids in long_enough])


# --- the server's contract -----------------------------------------------------------------------


def _served_form(
    traced: onnx.ModelProto, settings: SentenceSettings, probes: Sequence[_Probe], threads: int
) -> tuple[onnx.ModelProto, int]:
    """`traced`, rewritten, and its D: without the mask if that changes nothing, else with it."""
    nodes, constants = _with_contract(traced, settings)
    for candidate in (_without_mask(nodes, constants), nodes):
        model = _filled(traced, candidate, constants)
        if _agrees(model, settings, probes, threads):
            return model, int(probes[0].states.shape[-1])
    raise DisagreesWithCheckpoint(
        "the graph that optimum wrote computes other vectors than its network",
    )


def _with_contract(
    traced: onnx.ModelProto, settings: SentenceSettings
) -> tuple[list[onnx.NodeProto], Constants]:
    """The traced nodes with the other inputs made from input_ids, and with pooling and norm."""
    filled = {value.name for value in traced.graph.input} - {INPUT_IDS}
    if unknown := filled - FILLED_INPUTS.keys():
        names = ", ".join(sorted(unknown))
        raise UnsupportedModel("the network asks for {names} besides token ids", names=names)
    constants: Constants = {tensor.name: tensor for tensor in traced.graph.initializer}
    nodes = [helper.make_node("Shape", [INPUT_IDS], ["input_shape"])]
    for name in sorted(filled):
        value = helper.make_tensor("value", TensorProto.INT64, [1], [FILLED_INPUTS[name]])
        nodes.append(helper.make_node("ConstantOfShape", ["input_shape"], [name], value=value))
    for node in traced.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constant = _copy(node.attribute[0].t)
            constant.name = node.output[0]
            constants[constant.name] = constant
        else:
            nodes.append(_copy(node))
    return [*nodes, *_pooling(settings, constants)], constants


def _pooling(settings: SentenceSettings, constants: Constants) -> list[onnx.NodeProto]:
    pooled = "pooled" if settings.normalize else OUTPUT
    if settings.pooling == "cls":
        row = _store(constants, "pooled_row", np.array(0, np.int64))
        nodes = [helper.make_node("Gather", [TRACED_OUTPUT, row], [pooled], axis=1)]
    else:
        kind = {"mean": "ReduceMean", "max": "ReduceMax"}[settings.pooling]
        axis = _store(constants, "pooled_axis", np.array([1], np.int64))
        nodes = [helper.make_node(kind, [TRACED_OUTPUT, axis], [pooled], keepdims=0)]
    if settings.normalize:
        nodes.append(helper.make_node("LpNormalization", [pooled], [OUTPUT], axis=-1, p=2))
    return nodes


def _pool(states: FloatArray, settings: SentenceSettings) -> FloatArray:
    """The same in numpy: float32 (B, T, D) -> (B, D)."""
    if settings.pooling == "cls":
        vectors = states[:, 0]
    else:
        vectors = states.mean(axis=1) if settings.pooling == "mean" else states.max(axis=1)
    if settings.normalize:
        vectors = unit(vectors)
    return np.asarray(vectors, np.float32)


def _agrees(
    model: onnx.ModelProto, settings: SentenceSettings, probes: Sequence[_Probe], threads: int
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


def _filled(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], constants: Mapping[str, Any]
) -> onnx.ModelProto:
    """`model` made to hold the nodes that the output depends on, with their constants.

    In place, so that a large network's weights are not held twice.
    """
    kept: list[onnx.NodeProto] = []
    needed = {OUTPUT}
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    graph = model.graph
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    held = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(constants[name] for name in constants if name in needed - held)
    for entry in ("node", "input", "output", "value_info"):
        graph.ClearField(entry)
    graph.name = "encoder"
    graph.node.extend(kept[::-1])
    shapes = (INPUT_IDS, TensorProto.INT64, "tokens"), (OUTPUT, TensorProto.FLOAT, "width")
    for values, (name, kind, axis) in zip((graph.input, graph.output), shapes, strict=True):
        values.append(helper.make_tensor_value_info(name, kind, ["batch", axis]))
    for entry in ("opset_import", "producer_version", "metadata_props", "functions"):
        model.ClearField(entry)
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.producer_name, model.ir_version = "export", IR_VERSION
    return model


def _store(constants: Constants, name: str, array: npt.ArrayLike) -> str:
    # subtle: ascontiguousarray would give a scalar a dimension.
    constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
    return name


def _copy(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


# --- a mask of ones, taken out -------------------------------------------------------------------

# Operators that only move the numbers of their first input.
MOVES = ("Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
COMPUTES: dict[str, Callable[..., Number]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Equal": operator.eq,
    "Not": operator.not_,
    "Where": lambda condition, yes, no: yes if condition else no,
}
# Adding the one or multiplying by the other leaves a tensor as it is.
NEUTRAL = {"Add": 0, "Mul": 1}


def _without_mask(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """The nodes less those that do nothing when every number of the mask is one.

    `known` holds the tensors of which every element is the same known number, whatever the shape.
    subtle: a mask may also widen what it is added to, by its shape; that is not looked at here.
    The caller compares results on several shapes and keeps the mask if they differ.
    """
    known = {
        name: array.flat[0].item()
        for name, tensor in constants.items()
        # The tensors of interest are scalars, or hold a few equal numbers.
        if 0 < np.prod(tensor.dims, dtype=np.int64) <= 64
        and ((array := numpy_helper.to_array(tensor)) == array.flat[0]).all()
    }
    stands_for: dict[str, str] = {}
    kept = []
    for node in nodes:
        copy = _copy(node)
        copy.ClearField("input")
        copy.input.extend(stands_for.get(name, name) for name in node.input)
        value = _uniform_value(copy, known)
        if value is not None:
            known[copy.output[0]] = value
        same = _same_as(copy, known)
        if same is None:
            kept.append(copy)
        else:
            stands_for[copy.output[0]] = same
    return kept


def _uniform_value(node: onnx.NodeProto, known: Mapping[str, Number]) -> Number | None:
    """The number that every element of the node's output is, if that can be told."""
    inputs = [known.get(name) for name in node.input]
    if node.op_type == "ConstantOfShape":
        values = [numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value"]
        return values[0].item() if values else 0.0
    if node.op_type in MOVES:
        return inputs[0]
    if node.op_type == "Cast":
        # Nought and one are themselves in every type.
        return inputs[0] if inputs[0] in (0, 1) else None
    if node.op_type in COMPUTES and None not in inputs:
        return COMPUTES[node.op_type](*inputs)
    return None


def _same_as(node: onnx.NodeProto, known: Mapping[str, Number]) -> str | None:
    """The input that the node's output equals, if there is one."""
    names: list[str] = list(node.input)
    if OUTPUT in node.output:
        return None
    if node.op_type == "Identity":
        return names[0]
    if node.op_type == "Where" and names[0] in known:
        return names[1] if known[names[0]] else names[2]
    if node.op_type in NEUTRAL:
        for name, other in (names, names[::-1]):
            if known.get(name) == NEUTRAL[node.op_type] and other not in known:
                return other
    return None


# --- int8 ----------------------------------------------------------------------------------------

# An activation's name -> the names of the matrices, float32 (K, N), that it is multiplied by.
Sites = dict[str, list[str]]


def _find_sites(model: onnx.ModelProto) -> Sites:
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
            "the network has no matrix products with weights to quantise",
        )
    return sites


def _calibrate(
    model: onnx.ModelProto, sites: Sites, token_ids: Sequence[Int64Array], threads: int
) -> dict[str, Rows]:
    """What the float graph's activations look like: one text at a time, a few rows of it kept."""
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


@dataclass(frozen=True, slots=True)
class _Smoothing:
    """divisor: float32 (K,); low, high: range of the activation after the division."""

    alpha: float | None
    divisor: FloatArray
    low: float
    high: float
    error: float


def _quantized(
    model: onnx.ModelProto, sites: Sites, rows: Mapping[str, Rows], *, limit: int
) -> onnx.ModelProto:
    """The model with int8 weights and word embeddings; a second one, `model` stays as it is."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = dict(weights)
    biases = _find_biases(model, weights)
    smoothed: dict[str, _Smoothing] = {}
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
                corrected[product] = _store(constants, f"{product}.bias", bias)
        elif node.op_type == "Add" and (product := _first_in(node.input, corrected)):
            nodes.append(helper.make_node("Add", [product, corrected[product]], node.output))
        elif node.op_type == "Gather" and node.input[1] == INPUT_IDS and site in weights:
            nodes += _quantize_table(node, numpy_helper.to_array(weights[site]), constants)
        else:
            nodes.append(node)
    return _filled(onnx.ModelProto(), nodes, constants)


def _search(rows: Rows, weight: FloatArray, limit: int) -> _Smoothing:
    """The alpha with the least error of the product on the sampled rows."""
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
        choices.append(_Smoothing(alpha, divisor, low, high, error))
    return min(choices, key=lambda choice: choice.error)


def _quantize_activation(
    site: str, smoothing: _Smoothing, constants: Constants
) -> list[onnx.NodeProto]:
    """`site` -> `site`.dequantized, through uint8."""
    nodes, read = [], site
    if smoothing.alpha is not None:
        factor = _store(constants, f"{site}.smoothing", 1 / smoothing.divisor)
        read = f"{site}.smoothed"
        nodes.append(helper.make_node("Mul", [site, factor], [read]))
    step = np.float32((smoothing.high - smoothing.low) / 255) or np.float32(1)
    zero = np.uint8(np.clip(round(-smoothing.low / float(step)), 0, 255))
    scale = _store(constants, f"{site}.scale", step)
    zero_point = _store(constants, f"{site}.zero_point", zero)
    quantized, output = f"{site}.quantized", f"{site}.dequantized"
    return [
        *nodes,
        helper.make_node("QuantizeLinear", [read, scale, zero_point], [quantized]),
        helper.make_node("DequantizeLinear", [quantized, scale, zero_point], [output]),
    ]


def _find_biases(model: onnx.ModelProto, weights: Mapping[str, Any]) -> dict[str, str]:
    """What matrix products are followed by: the product's name -> the constant added to it."""
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    biases = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            for name, other in (node.input, node.input[::-1]):
                if name in products and other in weights and len(weights[other].dims) == 1:
                    biases[name] = other
    return biases


def _first_in(names: Iterable[str], mapping: Mapping[str, Any]) -> str:
    return next((name for name in names if name in mapping), "")


def _drift(rows: Rows, matrix: FloatArray, smoothing: _Smoothing, limit: int) -> FloatArray:
    """float32 (N,): how far the quantised product is off, on average over the sampled rows."""
    divided = rows.sampled / smoothing.divisor
    levels, scale = quantize_columns(matrix * smoothing.divisor[:, None], limit)
    found = fake_quantize(divided, smoothing.low, smoothing.high).mean(axis=0) @ (levels * scale)
    return np.asarray(found - rows.sampled.mean(axis=0) @ matrix, np.float32)


def _quantize_product(
    node: onnx.NodeProto,
    matrix: FloatArray,
    smoothing: _Smoothing,
    limit: int,
    constants: Constants,
) -> list[onnx.NodeProto]:
    """The product with an int8 matrix; named by its output, as a shared one is divided twice."""
    site, name, output = node.input[0], f"{node.output[0]}.weight", node.output[0]
    levels, scale = quantize_columns(matrix * smoothing.divisor[:, None], limit)
    inputs = [
        _store(constants, name, levels.astype(np.int8)),
        _store(constants, f"{name}.scale", scale),
        _store(constants, f"{name}.zero_point", np.zeros(len(scale), np.int8)),
    ]
    return [
        helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], axis=1),
        helper.make_node("MatMul", [f"{site}.dequantized", f"{name}.dequantized"], [output]),
    ]


def _quantize_table(
    node: onnx.NodeProto, table: FloatArray, constants: Constants
) -> list[onnx.NodeProto]:
    """The word embeddings in int8 with a scale per row, of which only the used rows are widened."""
    output = node.output[0]
    levels = np.empty(table.shape, np.int8)
    scale = np.empty((len(table), 1), np.float32)
    for start in range(0, len(table), TABLE_ROWS):
        part = slice(start, start + TABLE_ROWS)
        columns, scale[part, 0] = quantize_columns(table[part].T, 127)
        levels[part] = columns.T
    rows = _store(constants, f"{output}.table", levels)
    scales = _store(constants, f"{output}.scale", scale)
    return [
        helper.make_node("Gather", [rows, INPUT_IDS], [f"{output}.row"]),
        helper.make_node("Gather", [scales, INPUT_IDS], [f"{output}.row_scale"]),
        helper.make_node("Cast", [f"{output}.row"], [f"{output}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.float", f"{output}.row_scale"], [output]),
    ]
