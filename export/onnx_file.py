"""A finished graph as the bytes of one file, or of two where one cannot hold it.

A protobuf message holds less than 2 GiB. Past that the large tensors go into a second file, in ONNX's
external data format. The runtime finds that file beside the first one, by the name in the graph.
"""

import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.checker
from onnx import TensorProto, helper

from export.errors import CannotWrite
from server.inference.manifest import MODEL_FILE
from server.inference.runtime import Session, open_session

# Name of the second file, which stands in the graph too.
WEIGHTS_FILE = f"{MODEL_FILE}.data"
# What a graph's tensors may have together and stay in its file. Names, shapes and nodes of a network
# of a thousand layers need less than the rest of 2 GiB.
LARGEST = 2**31 - 2**26
# Smaller tensors stay in the graph: shapes and axes are read when it is loaded.
LEAST_OUTSIDE = 1024
# Tensors begin at whole pages, so that they can be mapped into memory.
ALIGNMENT = 4096


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A serialised graph. weights: the bytes of WEIGHTS_FILE, in parts; empty where all is in `model`."""

    model: bytes
    weights: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return len(self.model) + sum(map(len, self.weights))

    def files(self) -> dict[str, Sequence[bytes]]:
        """Return the content of each file by its name, in parts."""
        files: dict[str, Sequence[bytes]] = {MODEL_FILE: (self.model,)}
        return files | {WEIGHTS_FILE: self.weights} if self.weights else files

    def sha256(self) -> dict[str, str]:
        """Return the hash of each file by its name."""
        hashes = {}
        for name, parts in self.files().items():
            digest = hashlib.sha256()
            for part in parts:
                digest.update(part)
            hashes[name] = digest.hexdigest()
        return hashes

    @contextmanager
    def opened(self) -> Iterator[str | bytes]:
        """Yield what a session can be opened on: the bytes, or a path that lives as long as the block."""
        if not self.weights:
            yield self.model
            return
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            try:
                for name, parts in self.files().items():
                    with Path(scratch, name).open("wb") as file:
                        file.writelines(parts)
            except OSError as error:
                raise CannotWrite(
                    "cannot write {folder}: {strerror}", folder=scratch, strerror=error.strerror
                ) from None
            yield str(Path(scratch, MODEL_FILE))


def serialize(model: onnx.ModelProto, *, largest: int = LARGEST, check: bool = True) -> OnnxFile:
    """Return the checked graph, the same bytes for the same graph.

    largest: bytes of tensors from which on they go into the second file; `model` then loses them.
    """
    if sum(_size(tensor) for tensor in model.graph.initializer) <= largest:
        return OnnxFile(_content(model, check=check))
    weights: list[bytes] = []
    offset = 0
    for tensor in model.graph.initializer:
        if tensor.HasField("raw_data") and _size(tensor) >= LEAST_OUTSIDE:
            padding = bytes(-offset % ALIGNMENT)
            content = tensor.raw_data
            weights += [padding, content]
            _move_out(tensor, offset + len(padding), len(content))
            offset += len(padding) + len(content)
    # The checker wants to see the second file, which is not written yet. `verify` runs the graph.
    return OnnxFile(_content(model, check=False), tuple(weights))


def open_graph(model: onnx.ModelProto, threads: int, *, largest: int = LARGEST) -> Session:
    """Return a session on a graph that this process has just built, of any size; see `serialize`."""
    with serialize(model, largest=largest, check=False).opened() as opened:
        return open_session(opened, threads)


def _content(model: onnx.ModelProto, *, check: bool) -> bytes:
    content = bytes(model.SerializeToString(deterministic=True))
    # The checker refuses larger ones in memory, whatever they hold. They go on unchecked: ONNX Runtime
    # checks what it loads, and `verify` runs it.
    if check and len(content) <= onnx.checker.MAXIMUM_PROTOBUF:
        onnx.checker.check_model(content)
    return content


def _size(tensor: TensorProto) -> int:
    # Not by its bytes, which protobuf would copy to show them.
    itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * itemsize)


def _move_out(tensor: TensorProto, offset: int, length: int) -> None:
    """Leave in the graph where the tensor's bytes are, instead of the bytes."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
