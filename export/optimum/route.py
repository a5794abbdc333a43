"""The optional route for networks that no family writes: optimum traces them with torch.

`trace` runs torch and optimum, `contract` rewrites the graph to the server's inputs and output, `mask`
takes the attention mask out of it, and `int8` quantises it.
"""

import gc
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from export.optimum.contract import check_token_types, served_form
from export.optimum.int8 import calibrate, find_sites, quantized
from export.optimum.trace import trace
from export.source.sentence_settings import SentenceSettings

Int64Array = npt.NDArray[np.int64]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OptimumGraphs:
    """The two graphs of a traced network.

    float_model: the float32 reference. served_model: the same object for a float32 artifact. hidden: D,
    the width of a vector.
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
    token_types: Sequence[int] = (),
    progress: Progress = lambda _: None,
    earlier: OptimumGraphs | None = None,
) -> OptimumGraphs:
    """Return both graphs of the checkpoint in `source`; raises an ExportError if that cannot be done.

    token_ids: one int64 (T,) array per calibration text. precision: "int8" or "fp32". token_types: those of
    the tokens of a text. earlier: the graphs of another precision of the same checkpoint.
    """
    if earlier is None:
        progress("trace")
        earlier = _traced(source, settings, token_ids, token_types, threads, allow_pickle)
    float_model = earlier.float_model
    if precision == "fp32":
        return OptimumGraphs(float_model, float_model, earlier.hidden)
    progress("calibrate")
    sites = find_sites(float_model)
    rows = calibrate(float_model, sites, token_ids, threads)
    progress("quantise")
    served_model = quantized(float_model, sites, rows, limit=2 ** (weight_bits - 1) - 1)
    return OptimumGraphs(float_model, served_model, earlier.hidden)


def _traced(
    source: Path,
    settings: SentenceSettings,
    token_ids: Sequence[Int64Array],
    token_types: Sequence[int],
    threads: int,
    allow_pickle: bool,
) -> OptimumGraphs:
    """Return the float32 graph of a checkpoint, in both places."""
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        longest = settings.max_tokens
        traced, probes = trace(
            source, Path(scratch), token_ids, longest, threads, allow_pickle=allow_pickle
        )
    # torch's network refers to itself, and would stay in memory beside the graph.
    gc.collect()
    check_token_types(traced, token_types)
    model, hidden = served_form(traced, settings, probes, threads)
    return OptimumGraphs(model, model, hidden)
