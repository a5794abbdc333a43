"""Int8 for networks whose activations are quantised row by row as they run (`Site.by_row`).

Weights become int8 with one scale per output channel. Each row of an activation has its own scale, made of
its largest number when it arrives. So no range is calibrated, no text can fall outside one, and a token whose
activations are a thousand times as large as those of others, as decoders have, does not blur the others.
Sums of products of whole numbers are exact, so a text's vector does not depend on the texts beside it.

Calibration only decides how a channel's size is shared between activation and weights (SmoothQuant), where
that costs nothing: the divisor goes into the norm that writes the activation (`Site.after_norm`), or into
the linear layer before it (`Site.folds_into`). For every such site this module tries some divisors and none, by
the error of the linear layers' outputs relative to each row. A few thousand tokens are enough, on the float
network alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from export.families.family import HIDDEN, Network
from export.families.linears import LEAST_SIZE, FloatLinear, Linear, RowwiseLinear, Site
from export.onnx_file import open_graph
from export.quantisation.ranges import quantize_columns
from export.source.tensors import FloatArray
from server.inference.encoder import INPUT_IDS
from server.types import Ids

# Names this recipe in manifests; change it with anything that changes the numbers.
RECIPE = "rowwise-int8-1"

# Tokens that are run, and rows of them that a site is searched on.
TOKENS, SEARCH_ROWS = 4_000, 400
ALPHAS = (0.5, 0.7, 0.85)

Progress = Callable[[str], None]


@dataclass(slots=True)
class Activation:
    """What calibration keeps of a site: some rows (R, K), and how far each channel stands out (K,)."""

    rows: FloatArray
    sizes: FloatArray


def fits(network: Network) -> bool:
    """Return whether this recipe is for the network."""
    return all(site.by_row for layer in network.layers for site in layer.sites)


def quantize(
    network: Network,
    token_ids: Sequence[Ids],
    *,
    weight_bits: int,
    threads: int,
    progress: Progress = lambda _: None,
    feed_forward: bool = True,
) -> dict[str, Linear]:
    """Return every linear layer in int8. token_ids: one int64 (T,) array per calibration text.

    feed_forward: whether those of `Site.feed_forward` are among them.
    """
    limit = 2 ** (weight_bits - 1) - 1
    floats = network.float_linears()
    done: dict[str, Linear] = {}
    model, output = network.embeddings(int8=False)
    session = open_graph(model, threads)
    hidden = [session.run([output], {INPUT_IDS: ids[None]})[0] for ids in _some(token_ids)]
    for index, layer in enumerate(network.layers):
        found, hidden = _run(network, floats, index, hidden, threads)
        for site in layer.sites:
            progress(site.name)
            if feed_forward or not site.feed_forward:
                _quantize_site(done, floats, site, found[site.name], limit)
    return done


def _some(token_ids: Sequence[Ids]) -> Sequence[Ids]:
    """Return every n-th text, of as many tokens as calibration takes."""
    step = -(-sum(map(len, token_ids)) // TOKENS)
    return token_ids[::step]


def _run(
    network: Network,
    floats: Mapping[str, FloatLinear],
    index: int,
    hidden: Sequence[FloatArray],
    threads: int,
) -> tuple[dict[str, Activation], list[FloatArray]]:
    """Run a float layer; returns what calibration keeps of its sites, and the layer's output."""
    sites = network.layers[index].sites
    model, output = network.layer(floats, index)
    tensors = [network.layer(floats, index, until=site.name)[1] for site in sites]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
    session = open_graph(model, threads)
    random = np.random.default_rng(0)
    chosen = _choose(random, [rows.shape[1] for rows in hidden])
    outputs: list[FloatArray] = []
    parts: list[list[Activation]] = [[] for _ in sites]
    for text, places in zip(hidden, chosen, strict=True):
        result, *activations = session.run([output, *tensors], {HIDDEN: text})
        outputs.append(result)
        for part, activation in zip(parts, activations, strict=True):
            part.append(_kept(activation[0], places))
    found = {
        site.name: Activation(
            np.concatenate([each.rows for each in part]),
            np.max([each.sizes for each in part], axis=0),
        )
        for site, part in zip(sites, parts, strict=True)
    }
    return found, outputs


def _choose(random: np.random.Generator, lengths: Sequence[int]) -> list[Ids]:
    """Return the places of the rows that are kept of each text."""
    share = SEARCH_ROWS / sum(lengths)
    return [random.permutation(n)[: max(1, round(n * share))] for n in lengths]


def _kept(activation: FloatArray, places: Ids) -> Activation:
    # Relative to its row: one row of large numbers says nothing of the others.
    power = np.sqrt(np.square(activation).mean(axis=1, keepdims=True))
    sizes = (np.abs(activation) / np.maximum(power, LEAST_SIZE)).max(axis=0)
    return Activation(activation[places], sizes)


def _quantize_site(
    done: dict[str, Linear],
    floats: Mapping[str, FloatLinear],
    site: Site,
    activation: Activation,
    limit: int,
) -> None:
    """Put the readers of an activation into `done`."""
    weight = np.concatenate([floats[name].weight for name in site.readers], axis=1)
    divisor = None
    if site.after_norm or site.folds_into:
        divisor = _search(activation, weight, limit)
    scaled = weight if divisor is None else weight * divisor[:, None]
    whole, scale = quantize_columns(scaled, limit)
    begin = 0
    for name in site.readers:
        bias = floats[name].bias
        own = slice(begin, begin := begin + len(bias))
        done[name] = RowwiseLinear(
            np.ascontiguousarray(whole[:, own], np.int8),
            scale[own],
            bias,
            smoothing=divisor if site.after_norm else None,
        )
    if divisor is not None and site.folds_into:
        (name,) = site.folds_into
        before = done[name]
        assert isinstance(before, RowwiseLinear)
        done[name] = replace(
            before, weight_scale=before.weight_scale / divisor, bias=before.bias / divisor
        )


def _search(activation: Activation, weight: FloatArray, limit: int) -> FloatArray | None:
    """Return the divisor with the least error, None where no divisor has less."""
    exact = activation.rows @ weight
    power = np.square(exact).sum(axis=1) + np.float32(LEAST_SIZE)

    def error(divisor: FloatArray | None) -> float:
        rows, scaled = activation.rows, weight
        if divisor is not None:
            rows, scaled = rows / divisor, weight * divisor[:, None]
        whole, scale = quantize_columns(scaled, limit)
        found = quantize_rows(rows) @ (whole * scale)
        return float((np.square(found - exact).sum(axis=1) / power).mean())

    tried = [None, *(_divisor(activation.sizes, weight, alpha) for alpha in ALPHAS)]
    return min(tried, key=error)


def _divisor(sizes: FloatArray, weight: FloatArray, alpha: float) -> FloatArray:
    """Return SmoothQuant's divisor per input channel, scaled to a geometric mean of 1."""
    highest = np.maximum(np.abs(weight).max(axis=1), 1e-5)
    divisor = np.maximum(sizes, 1e-5) ** alpha / highest ** (1 - alpha)
    return np.asarray(divisor / np.exp(np.log(divisor).mean()), np.float32)


def quantize_rows(rows: FloatArray) -> FloatArray:
    """Return rows (R, K) through int8 and back, as the graph rounds them."""
    steps = np.maximum(np.abs(rows).max(axis=1, keepdims=True), LEAST_SIZE) / np.float32(127)
    return np.asarray(np.rint(rows / steps) * steps, np.float32)
