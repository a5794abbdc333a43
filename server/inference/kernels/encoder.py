"""An encoder whose batches are computed by the kernels of this project."""

from collections.abc import Sequence
from pathlib import Path

from server.inference.kernels.library import Network, NoKernels, check_cpu, open_library
from server.inference.kernels.onnx_file import NotReadable, read_graph
from server.inference.kernels.reading import plan_of
from server.types import Ids, Packing, Vectors

# Texts of any lengths share a batch: each has its own place in it, and nothing is padded.
ANY_LENGTHS = 1 << 20


class KernelEncoder:
    """A network that the kernels know; several lanes call it at once and share its weights.

    threads: how many compute one batch together. A vector is the same to the last bit whatever their number,
    and whatever else is in the batch.
    """

    def __init__(self, network: Network, longest: int, threads: int = 1) -> None:
        self.packing = Packing(ANY_LENGTHS, longest)
        self._network = network
        self._threads = threads

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Return float32 (B, D), a row a text. Releases the interpreter lock while it computes.

        texts: int64 (T,) arrays.
        """
        return self._network.encode(texts, self._threads)


def open_network(path: Path) -> Network:
    """Return the network of an ONNX file, for `KernelEncoder`; raises NoKernels with the reason."""
    check_cpu()
    library = open_library()
    try:
        return Network(plan_of(read_graph(path)), library)
    except NotReadable as error:
        raise NoKernels("they do not know its network: {error}", error=str(error)) from None
