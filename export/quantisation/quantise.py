"""Static int8 for any family's network: SmoothQuant, searched ranges, and bias correction.

Theory of operation
-------------------
Weights become int8 with one scale per output channel, activations uint8 with one scale per tensor,
fixed at export: a text's vector then never depends on the texts beside it. Nearly all of the error
comes from activations with a few large channels, so for every activation ("site") this module
searches, on sampled rows of the calibration texts, for

- alpha, which shares a channel's size between activation and weights (SmoothQuant:
  divisor = activation ** alpha / weight ** (1 - alpha)),
- how far to clip the range at either end,

by the error of the linear layers' outputs. The divisor of the attention output is folded into the
value projection and costs nothing; elsewhere it is one multiplication, kept only where it pays.

Layers are quantised in order, and each is calibrated on what the already quantised layers before it
produce. What error remains on average is taken off the bias: the linear layer's mean output on the
calibration rows equals the float model's. That takes off the error of the layers before, too, which some
networks would have made up for by themselves. So the biases from which only a layer's own error is taken
are computed beside them, and all of these are used where they bring the network much nearer to float32.
Where long texts have their attention in int8
(`Layer.attention`), its ranges reach to the largest query, key and value of all calibration texts.

Where the rows of an activation differ much in size, one range cannot suit them all: a Gelu's outputs are
mostly below 1 and reach 17 in MiniLM for a question mark. Such sites may be scaled by row as they run
(`InputQuantizer.by_row`), with standard operators whose results are exact for each row. Only the
precision "int8-rows" does so: a row costs a maximum and a division.

With CLS pooling the last layer of a BERT computes one row a text. Its output projection, whose input
has the wildest range of all, is then quantised by row and block as it runs (`Site.blockwise`): it is too
little work to matter, and no text can fall outside a calibrated range. Its last digits depend on how
many rows there are, so it must not be used where something that rounds comes after it.

Measured (bge-small-zh-v1.5, 2026-11-23, an AVX512-VNNI machine; cosine to float32, mean / minimum over
2,722 STS-B sentences): no search 0.99595 / 0.9931; this search 0.99918 / 0.9806; with the blockwise
last projection 0.99922 / 0.9972. 7-bit weights 0.9980. GPTQ rounding on top changed nothing (0.9979
against 0.9980 at 7 bits) and fitting the weights to the calibration rows made it worse (0.9957).
Blockwise int8 everywhere is nearer still but runs at 0.55 of the speed.

Without VNNI an x86 CPU adds pairs of products in 16 bits, which 8-bit weights can overflow; 7-bit
weights cannot, and give the same vectors on every x86 CPU with AVX2. On older ones (Nehalem, Sandy
Bridge) the blockwise projection is computed in another way, and the cosine to them is 0.9993.
"""

import math
from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from export.families.family import HIDDEN, Layer, LongAttention, Network
from export.families.linears import (
    BLOCK,
    BlockwiseLinear,
    FloatLinear,
    InputQuantizer,
    Int8Linear,
    Linear,
    Linears,
    Site,
)
from export.onnx_file import LARGEST_PART, large_graph, open_graph
from export.quantisation.ranges import Choice, Rows, quantize_columns, search
from export.quantisation.resume import Passes
from export.source.tensors import FloatArray
from server.inference.comparison import row_cosines
from server.inference.encoder import INPUT_IDS

# Taking only a layer's own error off its bias must leave no more than this of the error, or all error is
# taken off. multilingual-e5-small (2026-11-29; cosine to float32, mean / minimum of 60 texts of up to 48 tokens): all
# 0.99531 / 0.9932, its own 0.99958 / 0.9989, nothing 0.99947 / 0.9988.
OWN_BIAS_LEAVES = 0.5
# Texts and tokens that this is decided on.
DECIDING_TEXTS, DECIDING_TOKENS = 64, 64

# Names this recipe in manifests; change it with anything that changes the numbers.
RECIPE = "static-int8-13"

# Rows a site is searched on. Twice as many took 1.5 times as long for 0.00003 of mean cosine.
SEARCH_ROWS = 1200
# For a model of long texts, whose verification takes time too (`sparing`): rows times weights of one try, past
# which a site is searched on every n-th of the rows. Of bge-m3's shape that leaves 300 to 400 rows of the wide
# sites, as many as the rowwise recipe searches. bge-small-zh-v1.5 with 400 rows everywhere (2026-11-29): mean
# 0.99916 and minimum 0.9965, with 1,200 rows 0.99915 and 0.9966.
SPARING_WORK = 1.6e9
# A multiplication at run time must take this much of relative squared error off per channel that it
# multiplies, or it is left out. 5e-7 would leave out two more in bge-small-zh-v1.5 and bring 0.8 % of
# speed for 0.0007 of mean cosine.
SMOOTHING_MUST_SAVE = 2e-7

# Scaling an activation by row must leave no more than this of the squared error, or its range stays fixed.
# MiniLM (2026-11-29; cosine to float32, mean / minimum of 139 texts): nowhere 0.99751 / 0.9827, the six
# inputs of `output.dense`, which it chooses, 0.99863 / 0.9942, everywhere 0.99874 / 0.9938.
BY_ROW_LEAVES = 0.5

Int64Array = npt.NDArray[np.int64]
Progress = Callable[[str], None]
# One text's sampled rows (R, K), lowest and highest values (K,) of an activation; float32.
Part = tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, slots=True)
class SiteReport:
    """The search's choice for one site; relative_error is squared error over squared output."""

    site: str
    alpha: float | None
    low: float
    high: float
    relative_error: float


@dataclass(slots=True)
class Quantized:
    """Every linear layer in its int8 form, and the search's choice for each site.

    own: the same layers with biases from which only the error of the layer itself was taken.
    """

    linears: dict[str, Linear]
    report: list[SiteReport] = field(default_factory=list)
    own: dict[str, Linear] = field(default_factory=dict)

    def add(self, name: str, linear: Int8Linear | BlockwiseLinear, own_bias: FloatArray) -> None:
        self.linears[name], self.own[name] = linear, replace(linear, bias=own_bias)


def quantize(
    network: Network,
    token_ids: Sequence[Int64Array],
    *,
    weight_bits: int,
    threads: int,
    progress: Progress = lambda _: None,
    by_row: Container[str] = (),
    sparing: bool = False,
) -> Quantized:
    """Quantise every linear layer.

    token_ids: one int64 (T,) array per calibration text. by_row: names of the sites whose rows are
    divided by their size before they are quantised, where that takes enough error off. sparing: search large
    sites on fewer rows, for a model that takes long to verify.
    """
    limit = 2 ** (weight_bits - 1) - 1
    floats = network.float_linears()
    done = Quantized({})
    # The layers that have not been reached yet are float32.
    linears: Linears = ChainMap(done.linears, cast(Any, floats))
    scales: dict[str, float] = {}
    sampler = _Sampler(token_ids)
    exact = _embed(network, token_ids, threads, int8=False)
    actual = _embed(network, token_ids, threads, int8=True)
    deciding = _deciding(token_ids)
    embedded = [actual[text] for text in deciding]
    for index, layer in enumerate(network.layers):
        targets = _exact_layer(network, floats, index, sampler, exact, threads)
        passes = Passes(actual, threads)
        for site in layer.sites:
            progress(site.name)
            keep = not site.folds_into
            written = network.layer(linears, index, until=site.name)
            activations = passes.run(*written, keep=keep)
            found = sampler.rows(activations, layer)
            if site.blockwise:
                for name in site.readers:
                    done.add(name, *_blockwise(floats[name], limit, found, targets[site.name]))
            else:
                _quantize_site(
                    *(done, floats, site, limit, found, targets[site.name]),
                    by_row=site.name in by_row,
                    sparing=sparing,
                )
            if site.folds_into:
                passes.forget()
        # 7-bit weights are for vectors that are the same on every CPU, and so would keys and values
        # have to be.
        if layer.attention is not None and weight_bits == 8:
            scales |= _attention_scales(network, linears, index, layer.attention, actual, threads)
        for text, rows in enumerate(passes.run(*network.layer(linears, index))):
            actual[text] = rows
    with_own = _run_network(network, done.own, embedded, threads)
    expected, with_all = ([rows[text] for text in deciding] for rows in (exact, actual))
    if _distance(with_own, expected) <= OWN_BIAS_LEAVES * _distance(with_all, expected):
        done.linears.update(done.own)
    # Last: if the search saw these scales it would suit long texts better, and short ones, which do not
    # use them, worse.
    for name, scale in scales.items():
        done.linears[name] = replace(_int8(done.linears, name), output_scale=scale)
    return done


def sites_by_row(network: Network) -> frozenset[str]:
    """Return the sites whose rows can be scaled one by one: all that hold one row a token or text."""
    return frozenset(
        site.name
        for layer in network.layers
        for site in layer.sites
        if not (site.by_head or site.blockwise)
    )


def _quantize_site(
    quantized: Quantized,
    floats: Mapping[str, FloatLinear],
    site: Site,
    limit: int,
    found: Rows,
    target: Rows,
    *,
    by_row: bool,
    sparing: bool,
) -> None:
    """Put the readers of an activation into `quantized`, in their int8 form."""
    weights = [floats[name] for name in site.readers]
    rows = found.split(len(weights[0].weight))
    if sparing:
        work = len(rows.sampled) * sum(each.weight.size for each in weights)
        rows = Rows(rows.sampled[:: math.ceil(work / SPARING_WORK)], rows.low, rows.high)
    # A divisor that is folded costs nothing at run time.
    must_save = 0.0 if site.folds_into else SMOOTHING_MUST_SAVE
    choice = search(rows, weights, limit, must_save=must_save)
    if by_row:
        scaled = search(rows, weights, limit, must_save=must_save, by_row=True)
        if scaled.error <= BY_ROW_LEAVES * choice.error:
            choice = scaled
    quantized.report.append(
        SiteReport(site.name, choice.alpha, choice.low, choice.high, choice.error)
    )
    quantizer = choice.quantizer
    if site.folds_into and quantizer.smoothing is not None:
        divisors = np.split(quantizer.smoothing, len(site.folds_into))
        for name, divisor in zip(site.folds_into, divisors, strict=True):
            for linears in (quantized.linears, quantized.own):
                linears[name] = _fold(_int8(linears, name), divisor)
        quantizer = replace(quantizer, smoothing=None)
    elif quantizer.smoothing is not None:
        # The heads that read one row side by side share a divisor.
        sides = len(found.low) // len(quantizer.smoothing)
        quantizer = replace(quantizer, smoothing=np.tile(quantizer.smoothing, sides))
    for place, (name, weight) in enumerate(zip(site.readers, weights, strict=True)):
        read, aimed = found.sampled, target.sampled
        if site.by_head:
            read, aimed = (_of_head(rows, place, weights) for rows in (read, aimed))
        quantized.add(name, *_quantize_linear(weight, choice, quantizer, limit, read, aimed))


def _of_head(rows: FloatArray, head: int, weights: Sequence[FloatLinear]) -> FloatArray:
    """Return what one head reads of an activation, (R, K)."""
    return rows.reshape(-1, len(weights), len(weights[head].weight))[:, head]


def _attention_scales(
    network: Network,
    linears: Linears,
    index: int,
    attention: LongAttention,
    hidden: Sequence[FloatArray],
    threads: int,
) -> dict[str, float]:
    """Return the scales of the outputs of the query, key and value layers."""
    readers = (attention.queries, attention.keys, attention.values)
    model, _ = network.layer(linears, index, until=attention.context)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=reader) for reader in readers)
    session = open_graph(model, threads)
    highest = np.zeros(len(readers), np.float32)
    for rows in hidden:
        found = session.run(list(readers), {HIDDEN: rows})
        found[2] = found[2] - found[2].mean(axis=1, keepdims=True)
        highest = np.maximum(highest, [np.abs(output).max() for output in found])
    return {
        reader: float(most / np.float32(127)) or 1.0
        for reader, most in zip(readers, highest, strict=True)
    }


# --- which error is taken off the biases -----------------------------------------------------------


def _deciding(token_ids: Sequence[Int64Array]) -> list[int]:
    """Return the numbers of the texts that the kind of bias is decided on, spread over all short ones."""
    short = [text for text, ids in enumerate(token_ids) if len(ids) <= DECIDING_TOKENS]
    chosen = short or [min(range(len(token_ids)), key=lambda text: len(token_ids[text]))]
    return chosen[:: -(-len(chosen) // DECIDING_TEXTS)]


def _distance(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> float:
    """Return 1 minus the mean cosine of texts, each the mean of its rows in (1, T, D)."""
    means = [np.stack([rows[0].mean(axis=0) for rows in each]) for each in (found, expected)]
    return float(1 - row_cosines(*means).mean())


# --- running parts of the network -----------------------------------------------------------------


def _embed(
    network: Network, token_ids: Sequence[Int64Array], threads: int, *, int8: bool
) -> list[FloatArray]:
    with large_graph(largest=LARGEST_PART):
        model, output = network.embeddings(int8=int8)
        session = open_graph(model, threads)
    return [session.run([output], {INPUT_IDS: ids[None]})[0] for ids in token_ids]


def _exact_layer(
    network: Network,
    floats: Mapping[str, FloatLinear],
    index: int,
    sampler: "_Sampler",
    hidden: list[FloatArray],
    threads: int,
) -> dict[str, Rows]:
    """Return what calibration keeps of every site of the float layer; `hidden` becomes its output.

    The float layer does not change from site to site, so one pass over the texts is enough.
    """
    layer = network.layers[index]
    model, output = network.layer(floats, index)
    tensors = {site.name: network.layer(floats, index, until=site.name)[1] for site in layer.sites}
    inner = [tensor for tensor in tensors.values() if tensor != HIDDEN]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in inner)
    session = open_graph(model, threads)
    parts: dict[str, list[Part]] = {site: [] for site in tensors}
    for text, rows in enumerate(hidden):
        found = session.run([output, *inner], {HIDDEN: rows})
        hidden[text] = found[0]
        activations = dict(zip(inner, found[1:], strict=True)) | {HIDDEN: rows}
        for site, tensor in tensors.items():
            parts[site].append(sampler.part(text, activations[tensor], layer))
    return {site: _rows(each) for site, each in parts.items()}


def _run_network(
    network: Network, linears: Linears, embedded: Sequence[FloatArray], threads: int
) -> list[FloatArray]:
    """Return what the last layer makes of embedded texts."""
    hidden = list(embedded)
    for index in range(len(network.layers)):
        hidden = list(Passes(hidden, threads).run(*network.layer(linears, index)))
    return hidden


class _Sampler:
    """Chooses the same rows of every activation, so that exact and quantised rows pair up."""

    def __init__(self, token_ids: Sequence[Int64Array]) -> None:
        random = np.random.default_rng(0)
        # By the root of its length: long texts must not drown the short ones, nor count like them.
        weights = np.sqrt([len(ids) for ids in token_ids])
        shares = np.rint(weights / weights.sum() * SEARCH_ROWS).astype(int)
        self._rows = [
            random.permutation(len(ids))[: max(1, share)]
            for ids, share in zip(token_ids, shares, strict=True)
        ]

    def rows(self, activations: Iterable[FloatArray], layer: Layer) -> Rows:
        """Return what calibration keeps of an activation, which is given for each text in order."""
        return _rows([self.part(text, found, layer) for text, found in enumerate(activations)])

    def part(self, text: int, activation: FloatArray, layer: Layer) -> Part:
        """Return what one text, by its number, adds to the rows of an activation (1, T, K)."""
        flat = activation[0]
        # Of a layer that computes one row a text, what reads all tokens is sampled like other activations.
        sampled = flat.copy() if layer.by_text or len(flat) == 1 else flat[self._rows[text]]
        return sampled, flat.min(axis=0), flat.max(axis=0)


def _rows(parts: Sequence[Part]) -> Rows:
    sampled, lows, highs = zip(*parts, strict=True)
    return Rows(np.concatenate(sampled), np.min(lows, axis=0), np.max(highs, axis=0))


# --- linear layers in int8 ------------------------------------------------------------------------


def _quantize_linear(
    linear: FloatLinear,
    choice: Choice,
    quantizer: InputQuantizer,
    limit: int,
    found: FloatArray,
    target: FloatArray,
) -> tuple[Int8Linear, FloatArray]:
    """Return the layer, and the bias that it would have without the errors of the layers before it."""
    weight, scale = quantize_columns(linear.weight * choice.divisor[:, None], limit)
    raised = np.float32(quantizer.floor) * (weight.sum(axis=0) * scale)

    def bias(rows: FloatArray) -> FloatArray:
        read = choice.restored(rows)
        drift = (read.mean(axis=0) @ (weight * scale)) - target.mean(axis=0) @ linear.weight
        return np.asarray(linear.bias - drift + raised, np.float32)

    return Int8Linear(quantizer, weight.astype(np.int8), scale, bias(found)), bias(target)


def _blockwise(
    linear: FloatLinear, limit: int, found: Rows, target: Rows
) -> tuple[BlockwiseLinear, FloatArray]:
    """Return the layer, and the bias that it would have without the errors of the layers before it."""
    inputs, outputs = linear.weight.shape
    blocks = -(-inputs // BLOCK)
    padded = np.zeros((blocks * BLOCK, outputs), np.float32)
    padded[:inputs] = linear.weight
    weight, scale = zip(
        *(quantize_columns(block, limit) for block in np.split(padded, blocks)), strict=True
    )
    whole = np.concatenate(weight)[:inputs]
    restored = np.concatenate([w * s for w, s in zip(weight, scale, strict=True)])[:inputs]

    def bias(rows: Rows) -> FloatArray:
        drift = rows.sampled.mean(axis=0) @ restored - target.sampled.mean(axis=0) @ linear.weight
        return np.asarray(linear.bias - drift, np.float32)

    return BlockwiseLinear(whole, np.stack(scale), bias(found)), bias(target)


def _int8(linears: Linears, name: str) -> Int8Linear:
    linear = linears[name]
    assert isinstance(linear, Int8Linear)
    return linear


def _fold(linear: Int8Linear, divisor: FloatArray) -> Int8Linear:
    """Divide the value projection's output by `divisor`: exact, its scales are per channel."""
    return Int8Linear(
        linear.input, linear.weight, linear.weight_scale / divisor, linear.bias / divisor
    )
