"""Makes the two graphs of an export: the float32 reference, and the one that is served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnx.checker
from tokenizers import Tokenizer

from export.errors import UnsupportedModel
from export.families.family import Network
from export.families.linears import Linears
from export.onnx_file import LARGEST_PART, OnnxFile, large_graph, serialize
from export.quantisation import int4, quantise, rowwise
from export.quantisation.half import halve
from export.settings import Settings
from export.source.model import SourceModel
from export.verification.verify import EVERY_LENGTH
from server.system.cpu import cpu_budget
from server.types import Ids, Packing

if TYPE_CHECKING:
    from export.optimum.route import OptimumGraphs

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs of an export.

    float_model: what served_model is verified against; the same object for a float32 artifact.
    """

    float_model: OnnxFile
    served_model: OnnxFile
    dimension: int
    packing: Packing


def build(
    source: SourceModel,
    token_ids: Sequence[Ids],
    settings: Settings,
    progress: Progress,
    earlier: Graphs | None = None,
) -> Graphs:
    """Build both graphs, calibrated on the token ids; raises ExportError.

    earlier: the graphs of another precision of this model, whose float32 graph is used again.
    """
    if source.network is None:
        return _build_with_optimum(source, token_ids, settings, progress, earlier)
    float_model = None if earlier is None else earlier.float_model
    sparing = source.settings.max_tokens > EVERY_LENGTH
    return _build_network(source.network, token_ids, settings, progress, float_model, sparing)


def n_steps(source: SourceModel, settings: Settings) -> int:
    """Return how often `build` calls its `progress`."""
    quantised = settings.in_whole_numbers
    if source.network is None:
        return 3 if quantised else 1
    return sum(len(layer.sites) for layer in source.network.layers) if quantised else 0


def has_rows(source: SourceModel) -> bool:
    """Return whether "int8-rows" is another artifact than "int8", which some networks cannot do without."""
    return source.network is not None and not rowwise.fits(source.network)


def _build_network(
    network: Network,
    token_ids: Sequence[Ids],
    settings: Settings,
    progress: Progress,
    float_model: OnnxFile | None,
    sparing: bool,
) -> Graphs:
    floats = network.float_linears()
    if float_model is None:
        # A float32 graph that is only compared with is kept in a file: that takes less memory.
        with large_graph(largest=None if settings.precision == "fp32" else LARGEST_PART):
            float_model = serialize(network.whole(floats, int8_embeddings=False))
    if settings.precision == "fp32":
        return Graphs(float_model, float_model, network.dimension, network.packing(floats))
    if settings.precision == "fp16":
        with large_graph():
            halved = serialize(halve(network.whole(floats, int8_embeddings=False)))
        return Graphs(float_model, halved, network.dimension, network.packing(floats))
    linears = _quantized(network, token_ids, settings, progress, sparing)
    with large_graph():
        served_model = serialize(network.whole(linears, int8_embeddings=True))
    return Graphs(float_model, served_model, network.dimension, network.packing(linears))


def _quantized(
    network: Network,
    token_ids: Sequence[Ids],
    settings: Settings,
    progress: Progress,
    sparing: bool,
) -> Linears:
    bits, threads = settings.weight_bits, cpu_budget()
    if settings.precision == "int4" or rowwise.fits(network):
        quantize = int4.quantize if settings.precision == "int4" else rowwise.quantize
        return quantize(network, token_ids, weight_bits=bits, threads=threads, progress=progress)
    by_row = settings.precision == "int8-rows"
    return quantise.quantize(
        network,
        token_ids,
        weight_bits=bits,
        threads=threads,
        progress=progress,
        by_row=quantise.sites_by_row(network) if by_row else (),
        sparing=sparing,
    ).linears


def _build_with_optimum(
    source: SourceModel,
    token_ids: Sequence[Ids],
    settings: Settings,
    progress: Progress,
    earlier: Graphs | None,
) -> Graphs:
    from export.optimum import route

    if settings.precision in ("int8-rows", "int4"):
        raise UnsupportedModel(
            "--precision {precision} is not for --via optimum; use int8 or fp16",
            precision=settings.precision,
        )
    exact = not settings.precision.startswith("int8")
    graphs = route.build_with_optimum(
        source.folder,
        source.settings,
        token_ids,
        precision="fp32" if exact else "int8",
        weight_bits=settings.weight_bits,
        allow_pickle=settings.allow_pickle,
        token_types=Tokenizer.from_str(source.tokenizer_json).encode("a").type_ids,
        threads=cpu_budget(),
        progress=progress,
        earlier=None if earlier is None else _loaded(earlier),
    )
    try:
        served_model = None
        if graphs.served_model is not graphs.float_model:
            served_model = serialize(graphs.served_model)
        float_model = serialize(graphs.float_model) if earlier is None else earlier.float_model
        if settings.precision == "fp16":
            # Read again: a large graph has lost its tensors to a file.
            served_model = serialize(halve(_read(float_model)))
    except onnx.checker.ValidationError as error:
        # Other tools made these nodes. An invalid one that a family writes is a bug and stays one.
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModel(
            "the graph that optimum wrote is not valid ONNX: {reason}", reason=reason
        ) from None
    return Graphs(
        float_model,
        served_model or float_model,
        graphs.hidden,
        Packing(groups=1, longest=source.settings.max_tokens),
    )


def _loaded(earlier: Graphs) -> "OptimumGraphs":
    """Return the float32 graph of an earlier export, as optimum's route takes it."""
    from export.optimum.route import OptimumGraphs

    model = _read(earlier.float_model)
    return OptimumGraphs(model, model, earlier.dimension)


def _read(file: OnnxFile) -> onnx.ModelProto:
    with file.opened() as opened:
        return onnx.load(opened) if isinstance(opened, str) else onnx.load_from_string(opened)
