"""Static int8 for a BERT checkpoint: SmoothQuant, searched ranges, and bias correction.

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
calibration rows equals the float model's. Where long texts have their attention in int8
(`attention.py`), its ranges reach to the largest query, key and value of all calibration texts.

With CLS pooling the last layer computes one row a text. Its output projection, whose input has the
wildest range of all, is then quantised by row and block as it runs (`BlockwiseLinear`): too little
work to be felt, and no text can fall outside a calibrated range. Its last digits depend on how many
rows there are, so it must not be used where something that rounds comes after it.

Measured (bge-small-zh-v1.5, 2026-11-23, an AVX512-VNNI machine; cosine to float32, mean / minimum over
2,722 STS-B sentences): no search 0.99595 / 0.9931; this search 0.99918 / 0.9806; with the blockwise
last projection 0.99922 / 0.9972. 7-bit weights 0.9980. GPTQ rounding on top changed nothing (0.9979
against 0.9980 at 7 bits) and fitting the weights to the calibration rows made it worse (0.9957).
Blockwise int8 everywhere is nearer still but runs at 0.55 of the speed.

Without VNNI an x86 CPU adds pairs of products in 16 bits, which 8-bit weights can overflow; 7-bit
weights cannot, and give the same vectors on every x86 CPU with AVX2. On older ones (Nehalem, Sandy
Bridge) the blockwise projection is computed in another way, and the cosine to them is 0.9993.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx

from export.checkpoint import Checkpoint, FloatArray
from export.families.attention import LONG, LONGEST
from export.families.bert import HIDDEN, build_embeddings, build_layer
from export.families.linears import (
    BLOCK,
    BlockwiseLinear,
    FloatLinear,
    InputQuantizer,
    Int8Linear,
    LayerNames,
    Linear,
    Linears,
    Readers,
    float_linears,
    layer_names,
    site_of,
)
from server.inference.encoder import INPUT_IDS
from server.inference.runtime import open_session

# Names this recipe in manifests; change it with anything that changes the numbers.
RECIPE = "static-int8-11"

# Alphas tried; 0.8 and 0.9 win nearly everywhere, 0.65 where the weights have outliers too.
ALPHAS = (0.65, 0.8, 0.9)
# Parts of the observed range that are kept, tried at the upper end, then at the lower.
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25)
# Rows a site is searched on. Twice as many took 1.5 times as long for 0.00003 of mean cosine.
SEARCH_ROWS = 1200
# A multiplication at run time must take this much of relative squared error off per channel that it
# multiplies, or it is left out. 5e-7 would leave out two more in bge-small-zh-v1.5 and bring 0.8 % of
# speed for 0.0007 of mean cosine.
SMOOTHING_MUST_SAVE = 2e-7

Int64Array = npt.NDArray[np.int64]
Progress = Callable[[str], None]
# One text's sampled rows (R, K), lowest and highest values (K,) of an activation; float32.
Part = tuple[FloatArray, FloatArray, FloatArray]


@dataclass(slots=True)
class Rows:
    """What calibration keeps of one activation.

    sampled: float32 (R, K); low, high: float32 (K,), over all rows of all texts.
    """

    sampled: FloatArray
    low: FloatArray
    high: FloatArray

    def split(self, width: int) -> "Rows":
        """Rows of `width` channels, where a row is what several heads read side by side."""
        low, high = self.low.reshape(-1, width), self.high.reshape(-1, width)
        return Rows(self.sampled.reshape(-1, width), low.min(axis=0), high.max(axis=0))


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What the search chose for one site; relative_error is squared error over squared output."""

    site: str
    alpha: float | None
    low: float
    high: float
    relative_error: float


@dataclass(slots=True)
class Quantized:
    """Every linear layer in its int8 form, and what the search chose for each site."""

    linears: dict[str, Linear]
    report: list[SiteReport] = field(default_factory=list)


def quantize(
    checkpoint: Checkpoint,
    token_ids: Sequence[Int64Array],
    *,
    weight_bits: int,
    threads: int,
    progress: Progress = lambda _: None,
) -> Quantized:
    """Quantise every linear layer. token_ids: one int64 (T,) array per calibration text."""
    limit = 2 ** (weight_bits - 1) - 1
    floats = float_linears(checkpoint)
    mixed: dict[str, Linear] = dict(floats)
    done = Quantized(mixed)
    scaled: dict[str, Linear] = {}
    sampler = _Sampler(token_ids)
    exact = _embed(checkpoint, token_ids, threads, int8=False)
    actual = _embed(checkpoint, token_ids, threads, int8=True)
    for index in range(checkpoint.shape.layers):
        names = layer_names(checkpoint, index)
        targets, exact = _exact_layer(checkpoint, floats, index, sampler, exact, threads)
        for readers in names.sites:
            site = site_of(readers[0])
            progress(site)
            target = targets[site]
            found = sampler.run(
                *build_layer(checkpoint, mixed, index, until=site), actual, threads, names
            )
            if names.by_head and site == names.output:
                mixed[site] = _blockwise(floats[site], limit, found, target)
            else:
                _quantize_site(done, floats, names, readers, limit, found, target)
            # After it, because the output's divisor is folded into the values.
            if site == names.attention_out and _attends_in_int8(checkpoint, names, weight_bits):
                scaled |= _quantize_attention(checkpoint, mixed, index, actual, threads)
        actual = _run_layer(checkpoint, mixed, index, actual, threads)
    # Last of all: were the search to see it, it would suit long texts better and short ones, which are
    # computed without it, worse.
    mixed |= scaled
    return done


def _quantize_site(
    quantized: Quantized,
    floats: Mapping[str, FloatLinear],
    names: LayerNames,
    readers: Readers,
    limit: int,
    found: Rows,
    target: Rows,
) -> None:
    """Put the readers of an activation into `quantized`, in their int8 form."""
    weights = [floats[name] for name in readers]
    free = readers == (names.attention_out,)
    choice = _search(
        found.split(len(weights[0].weight)),
        weights,
        limit,
        must_save=0.0 if free else SMOOTHING_MUST_SAVE,
    )
    quantized.report.append(choice.report(site_of(readers[0])))
    quantizer = choice.quantizer
    if free and quantizer.smoothing is not None:
        divisors = np.split(quantizer.smoothing, len(names.values))
        for name, divisor in zip(names.values, divisors, strict=True):
            quantized.linears[name] = _fold(quantized.linears[name], divisor)
        quantizer = replace(quantizer, smoothing=None)
    elif quantizer.smoothing is not None:
        # The heads that read one row side by side share a divisor.
        sides = len(found.low) // len(quantizer.smoothing)
        quantizer = replace(quantizer, smoothing=np.tile(quantizer.smoothing, sides))
    for place, (name, weight) in enumerate(zip(readers, weights, strict=True)):
        read, aimed = found.sampled, target.sampled
        if readers in (names.keys, names.values):
            read, aimed = (_of_head(rows, place, weights) for rows in (read, aimed))
        quantized.linears[name] = _quantize_linear(weight, choice, quantizer, limit, read, aimed)


def _attends_in_int8(checkpoint: Checkpoint, names: LayerNames, weight_bits: int) -> bool:
    """Whether a layer's attention is ever computed in int8.

    7-bit weights are for vectors that are the same on every CPU, and so would keys and values have to be.
    """
    return (
        weight_bits == 8 and LONG <= checkpoint.settings.max_tokens <= LONGEST and not names.by_head
    )


def _quantize_attention(
    checkpoint: Checkpoint,
    linears: Linears,
    index: int,
    hidden: Sequence[FloatArray],
    threads: int,
) -> dict[str, Linear]:
    """The query, key and value layers, with the scale of all that is read of them."""
    names = layer_names(checkpoint, index)
    readers = (names.query, *names.keys, *names.values)
    model, _ = build_layer(checkpoint, linears, index, until=names.attention_out)
    model.graph.output.extend(onnx.ValueInfoProto(name=reader) for reader in readers)
    session = open_session(model.SerializeToString(), threads)
    highest = np.zeros(len(readers), np.float32)
    for rows in hidden:
        found = session.run(list(readers), {HIDDEN: rows})
        found[2] = found[2] - found[2].mean(axis=1, keepdims=True)
        highest = np.maximum(highest, [np.abs(output).max() for output in found])
    scaled: dict[str, Linear] = {}
    for reader, most in zip(readers, highest, strict=True):
        linear = linears[reader]
        assert isinstance(linear, Int8Linear)
        scaled[reader] = replace(linear, output_scale=float(most / np.float32(127)) or 1.0)
    return scaled


def _of_head(rows: FloatArray, head: int, weights: Sequence[FloatLinear]) -> FloatArray:
    """What one head reads of an activation, (R, K)."""
    return rows.reshape(-1, len(weights), len(weights[head].weight))[:, head]


# --- running parts of the network -----------------------------------------------------------------


def _embed(
    checkpoint: Checkpoint, token_ids: Sequence[Int64Array], threads: int, *, int8: bool
) -> list[FloatArray]:
    model, output = build_embeddings(checkpoint, int8=int8)
    session = open_session(model.SerializeToString(), threads)
    return [session.run([output], {INPUT_IDS: ids[None]})[0] for ids in token_ids]


def _exact_layer(
    checkpoint: Checkpoint,
    floats: Mapping[str, FloatLinear],
    index: int,
    sampler: "_Sampler",
    hidden: list[FloatArray],
    threads: int,
) -> tuple[dict[str, Rows], list[FloatArray]]:
    """What calibration keeps of every site of the float layer, and the layer's output.

    The float layer does not change from site to site, so one pass over the texts is enough.
    """
    names = layer_names(checkpoint, index)
    model, output = build_layer(checkpoint, floats, index)
    sites = [site_of(readers[0]) for readers in names.sites]
    tensors = {site: build_layer(checkpoint, floats, index, until=site)[1] for site in sites}
    inner = [tensor for tensor in tensors.values() if tensor != HIDDEN]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in inner)
    session = open_session(model.SerializeToString(), threads)
    parts: dict[str, list[Part]] = {site: [] for site in sites}
    outputs = []
    for text, rows in enumerate(hidden):
        found = session.run([output, *inner], {HIDDEN: rows})
        outputs.append(found[0])
        activations = dict(zip(inner, found[1:], strict=True)) | {HIDDEN: rows}
        for site, tensor in tensors.items():
            parts[site].append(sampler.part(text, activations[tensor], names))
    return {site: _rows(each) for site, each in parts.items()}, outputs


def _run_layer(
    checkpoint: Checkpoint, linears: Linears, index: int, hidden: list[FloatArray], threads: int
) -> list[FloatArray]:
    model, output = build_layer(checkpoint, linears, index)
    session = open_session(model.SerializeToString(), threads)
    return [session.run([output], {HIDDEN: rows})[0] for rows in hidden]


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

    def run(
        self,
        model: onnx.ModelProto,
        output: str,
        hidden: list[FloatArray],
        threads: int,
        names: LayerNames,
    ) -> Rows:
        """The model's output for each text; all rows of it where a layer has none for each token."""
        if output == HIDDEN:
            activations: Iterator[FloatArray] = iter(hidden)
        else:
            session = open_session(model.SerializeToString(), threads)
            activations = (session.run([output], {HIDDEN: rows})[0] for rows in hidden)
        return _rows([self.part(text, found, names) for text, found in enumerate(activations)])

    def part(self, text: int, activation: FloatArray, names: LayerNames) -> Part:
        """What one text, by its number, adds to the rows of an activation (1, T, K)."""
        flat = activation[0]
        sampled = flat.copy() if names.by_head else flat[self._rows[text]]
        return sampled, flat.min(axis=0), flat.max(axis=0)


def _rows(parts: Sequence[Part]) -> Rows:
    sampled, lows, highs = zip(*parts, strict=True)
    return Rows(np.concatenate(sampled), np.min(lows, axis=0), np.max(highs, axis=0))


# --- the search -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choice:
    alpha: float | None
    divisor: FloatArray  # (K,), ones where there is no smoothing
    low: float
    high: float
    error: float

    @property
    def quantizer(self) -> InputQuantizer:
        scale, zero_point = _affine(self.low, self.high)
        return InputQuantizer(scale, zero_point, None if self.alpha is None else self.divisor)

    def report(self, site: str) -> SiteReport:
        return SiteReport(site, self.alpha, self.low, self.high, self.error)


def _search(rows: Rows, linears: Sequence[FloatLinear], limit: int, *, must_save: float) -> _Choice:
    """The divisor and range with the least output error on the sampled rows."""
    weight = np.concatenate([linear.weight for linear in linears], axis=1)
    plain = _search_range(rows, weight, None, np.ones(len(weight), np.float32), limit)
    smooth = min(
        (
            _search_range(rows, weight, alpha, smoothing_divisor(rows, weight, alpha), limit)
            for alpha in ALPHAS
        ),
        key=lambda choice: choice.error,
    )
    return smooth if plain.error - smooth.error > must_save * len(weight) else plain


def smoothing_divisor(rows: Rows, weight: FloatArray, alpha: float) -> FloatArray:
    """SmoothQuant's divisor per input channel, scaled to a geometric mean of 1."""
    activation = np.maximum(np.maximum(rows.high, -rows.low), 1e-5)
    divisor = activation**alpha / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - alpha)
    return np.asarray(divisor / np.exp(np.log(divisor).mean()), np.float32)


def _search_range(
    rows: Rows, weight: FloatArray, alpha: float | None, divisor: FloatArray, limit: int
) -> _Choice:
    exact = rows.sampled @ weight
    # 1 for a layer whose weights are all zero, which has no error either.
    power = float(np.square(exact).sum()) or 1.0
    scaled = rows.sampled / divisor
    quantized, weight_scale = quantize_columns(weight * divisor[:, None], limit)
    restored = quantized * weight_scale
    full_low = min(float((rows.low / divisor).min()), 0.0)
    full_high = max(float((rows.high / divisor).max()), 0.0)

    def error(low: float, high: float) -> float:
        return float(np.square(fake_quantize(scaled, low, high) @ restored - exact).sum()) / power

    def descend(objective: Callable[[float], float]) -> float:
        best, least = CLIPS[0], objective(CLIPS[0])
        for clip in CLIPS[1:]:
            found = objective(clip)
            if found < least:
                best, least = clip, found
            elif found > 1.5 * least:
                break
        return best

    high = full_high * descend(lambda clip: error(full_low, full_high * clip))
    low = full_low * descend(lambda clip: error(full_low * clip, high))
    return _Choice(alpha, divisor, low, high, error(low, high))


def _affine(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 over [low, high], which contains 0."""
    scale = float(np.float32((high - low) / 255)) or 1.0
    return scale, int(np.clip(round(-low / scale), 0, 255))


def fake_quantize(x: FloatArray, low: float, high: float) -> FloatArray:
    """X through uint8 and back, as QuantizeLinear rounds (to even) and saturates."""
    scale, zero_point = _affine(low, high)
    levels = np.rint(x * np.float32(1 / scale))
    np.clip(levels, -zero_point, 255 - zero_point, out=levels)
    return np.asarray(levels * np.float32(scale), np.float32)


def quantize_columns(weight: FloatArray, limit: int) -> tuple[FloatArray, FloatArray]:
    """float32 (K, N) -> whole numbers within +-limit as float32 (K, N), and scales (N,)."""
    scale = np.abs(weight).max(axis=0) / np.float32(limit)
    scale[scale == 0] = 1
    return np.rint(weight / scale), np.asarray(scale, np.float32)


def _quantize_linear(
    linear: FloatLinear,
    choice: _Choice,
    quantizer: InputQuantizer,
    limit: int,
    found: FloatArray,
    target: FloatArray,
) -> Int8Linear:
    weight, scale = quantize_columns(linear.weight * choice.divisor[:, None], limit)
    read = fake_quantize(found / choice.divisor, choice.low, choice.high)
    drift = (read.mean(axis=0) @ (weight * scale)) - target.mean(axis=0) @ linear.weight
    return Int8Linear(quantizer, weight.astype(np.int8), scale, linear.bias - drift)


def _blockwise(linear: FloatLinear, limit: int, found: Rows, target: Rows) -> BlockwiseLinear:
    inputs, outputs = linear.weight.shape
    blocks = -(-inputs // BLOCK)
    padded = np.zeros((blocks * BLOCK, outputs), np.float32)
    padded[:inputs] = linear.weight
    weight, scale = zip(
        *(quantize_columns(block, limit) for block in np.split(padded, blocks)), strict=True
    )
    whole = np.concatenate(weight)[:inputs]
    restored = np.concatenate([w * s for w, s in zip(weight, scale, strict=True)])[:inputs]
    drift = found.sampled.mean(axis=0) @ restored - target.sampled.mean(axis=0) @ linear.weight
    return BlockwiseLinear(whole, np.stack(scale), linear.bias - drift)


def _fold(linear: Linear, divisor: FloatArray) -> Int8Linear:
    """Divide the value projection's output by `divisor`: exact, its scales are per channel."""
    assert isinstance(linear, Int8Linear)
    return Int8Linear(
        linear.input, linear.weight, linear.weight_scale / divisor, linear.bias / divisor
    )
