"""Loads a network with transformers, runs it on a few texts, and has optimum write its graph.

The only module that imports torch, besides the reading of pickled weights.
"""

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from export.errors import BadTexts, ExportError, MissingPackage, ShapeMismatch, UnsupportedModel
from export.graph import OPSET
from export.source.hubs.client import quiet_libraries
from export.source.tensors import FloatArray

Int64Array = npt.NDArray[np.int64]

# The traced graph is handled as one protobuf message, which holds less than this.
MAX_MODEL_BYTES = 2**31 - 1
# (texts, tokens) that the rewritten graph is compared with the network on; tracing used (2, 16).
PROBES = ((1, 3), (2, 16), (3, 7), (1, 29))


@dataclass(frozen=True, slots=True)
class Probe:
    """Token ids, int64 (B, T), and the network's last hidden states for them, float32 (B, T, D)."""

    ids: Int64Array
    states: FloatArray


def trace(
    source: Path,
    scratch: Path,
    token_ids: Sequence[Int64Array],
    max_tokens: int,
    threads: int,
    *,
    allow_pickle: bool,
) -> tuple[onnx.ModelProto, list[Probe]]:
    """Return optimum's graph of the network in `source`, and what torch computes with that network."""
    quiet_libraries(scratch / "home")
    with warnings.catch_warnings():
        # torch and transformers warn of coming changes, and of every number in a trace.
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
                    probes.append(Probe(ids, _states(network, torch.from_numpy(ids))))
                probes.append(_longest_probe(torch, network, source, token_ids, max_tokens))
            onnx_export_from_model(
                network, scratch, opset=OPSET, task="feature-extraction", do_validation=False
            )
        except ExportError:
            raise
        except Exception as error:
            # Any error of torch or optimum here means a network that they cannot run or trace.
            raise _unsupported(source, error) from None
    return onnx.load(scratch / "model.onnx"), probes


def _load(auto_model: Any, source: Path, dtype: Any, *, allow_pickle: bool) -> Any:
    """Return the network in float32; never with code from the folder, and with all of its weights."""
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
    # transformers invents weights that a file lacks; the pooler's are not used.
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
    return UnsupportedModel(
        "optimum cannot export {source}: {reason}", source=source, reason=first_line(error)
    )


def first_line(error: Exception) -> str:
    """Return what an error of another library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _states(network: Any, ids: Any) -> FloatArray:
    """Return the last hidden states of texts without padding, computed as sentence-transformers does."""
    inputs = {"input_ids": ids}
    if "attention_mask" in inspect.signature(network.forward).parameters:
        # Without it some networks look for padding among the tokens.
        inputs["attention_mask"] = ids.new_ones(ids.shape)
    return np.asarray(network(**inputs).last_hidden_state.numpy(), np.float32)


def _longest_probe(
    torch: Any, network: Any, source: Path, token_ids: Sequence[Int64Array], max_tokens: int
) -> Probe:
    """Return the probe of a text as long as any that will be read."""
    ids = np.resize(max(token_ids, key=len), max_tokens)[None]
    try:
        return Probe(ids, _states(network, torch.from_numpy(ids)))
    except Exception as error:
        raise UnsupportedModel(
            "{source} cannot read a text of {n_tokens} tokens: {reason}; try a smaller --max-tokens",
            source=source,
            n_tokens=max_tokens,
            reason=first_line(error),
        ) from None


def _probe_ids(token_ids: Sequence[Int64Array]) -> Iterator[Int64Array]:
    """Yield int64 (B, T) for each of PROBES, from the calibration texts where they are long enough."""
    if not any(len(ids) >= PROBES[0][1] for ids in token_ids):
        raise BadTexts("no calibration text has {n_tokens} tokens", n_tokens=PROBES[0][1])
    for n_texts, n_tokens in PROBES:
        long_enough = [ids for ids in token_ids if len(ids) >= n_tokens][:n_texts]
        if len(long_enough) == n_texts:
            yield np.stack([ids[:n_tokens] for ids in long_enough])
