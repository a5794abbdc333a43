"""What computes a model's batches: the kernels where they know its network and this CPU, else ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.inference.encoder import open_encoder
from server.inference.kernels.encoder import KernelEncoder, open_network
from server.inference.kernels.library import NoKernels
from server.inference.manifest import Manifest
from server.inference.speed import measured_rate
from server.messages.message import Message
from server.system.cpu import cpu_features
from server.types import Ids, VectorEncoder

KERNELS, RUNTIME = "kernels", "onnxruntime"
# ONNX Runtime has kernels for it that may be faster than ours, which do not use it.
AMX = "amx_int8"


@dataclass(frozen=True, slots=True)
class Encoders:
    """The encoders of a model: of one thread a batch, and of several, None where there is one thread.

    computed_by: KERNELS or RUNTIME. reason: why it is not the kernels; None where it is.
    """

    narrow: VectorEncoder
    wide: VectorEncoder | None
    computed_by: str
    reason: Message | None = None


def encoders_of(
    path: Path, manifest: Manifest, threads: int, sample: Sequence[Ids], *, kernels: bool
) -> Encoders:
    """Return the encoders of an ONNX file.

    threads: of the wide encoder. sample: token ids that the model reads. kernels: whether they may be used.
    """
    if not kernels:
        return _by_runtime(path, manifest, threads, Message("--kernels is off"))
    if manifest.task != "dense":
        reason = Message("they give vectors only, not {task}", task=manifest.task)
        return _by_runtime(path, manifest, threads, reason)
    try:
        network = open_network(path)
    except NoKernels as error:
        return _by_runtime(path, manifest, threads, error.sentence)
    longest = manifest.text.max_tokens
    found = Encoders(
        KernelEncoder(network, longest),
        KernelEncoder(network, longest, threads) if threads > 1 else None,
        KERNELS,
    )
    if AMX not in cpu_features():
        return found
    reason = Message("ONNX Runtime is faster with this CPU's AMX")
    other = _by_runtime(path, manifest, threads, reason)
    ours, theirs = (measured_rate(each.narrow, sample, longest) for each in (found, other))
    return found if ours >= theirs else other


def _by_runtime(path: Path, manifest: Manifest, threads: int, reason: Message) -> Encoders:
    packing, form = manifest.packing, manifest.form
    wide = open_encoder(str(path), packing, threads, form) if threads > 1 else None
    return Encoders(open_encoder(str(path), packing, 1, form), wide, RUNTIME, reason)
