"""A finished graph as the bytes of one file, or with a second file where its tensors are large.

A protobuf message holds less than 2 GiB, and is copied several times while it is written and loaded. Past
LARGEST the large tensors go into a second file, in ONNX's external data format. The runtime finds that file
beside the first one, by the name in the graph, and maps it into memory instead of copying it.
"""

import hashlib
import math
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
from onnx import TensorProto, helper, numpy_helper

from export.errors import CannotWrite
from export.graph import CONSTANT_MAKER
from server.inference.manifest import MODEL_FILE
from server.inference.runtime import Session, open_session

# Name of the second file, which stands in the graph too.
WEIGHTS_FILE = f"{MODEL_FILE}.data"
# What a graph's tensors may have together and stay in its file. Above it, loading would need several
# times that memory for a moment.
LARGEST = 2**29
# The same for the graphs of calibration, which are opened once each and not kept.
LARGEST_PART = 2**26
# Smaller tensors stay in the graph: shapes and axes are read when it is loaded.
LEAST_OUTSIDE = 1024
# Tensors begin at whole pages, so that they can be mapped into memory.
ALIGNMENT = 4096
CHUNK = 2**20


class WeightsFile:
    """The content of WEIGHTS_FILE, on disk in a scratch folder that is removed with this object.

    Iterating yields the content in parts.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="export-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        with (self.folder / WEIGHTS_FILE).open("rb") as file:
            while part := file.read(CHUNK):
                yield part

    def add(self, array: npt.NDArray[Any], name: str) -> TensorProto:
        """Write a tensor behind the others; return what stands in the graph for it."""
        tensor = TensorProto(
            name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        self.move_out(tensor, array.reshape(-1).view(np.uint8).data)
        return tensor

    def move_out(self, tensor: TensorProto, content: bytes | memoryview) -> None:
        """Write a tensor's content, and leave in the tensor where that is."""
        begin = -(-self._size // ALIGNMENT) * ALIGNMENT
        with writing(self.folder), (self.folder / WEIGHTS_FILE).open("ab") as file:
            file.write(bytes(begin - self._size))
            file.write(content)
        self._size = begin + len(content)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS_FILE, "offset": begin, "length": len(content)}
        for key, value in place.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Report a file of a scratch folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            "cannot write {folder}: {strerror}", folder=folder, strerror=error.strerror
        ) from None


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A serialised graph. weights: the content of WEIGHTS_FILE, in parts; empty where all is in `model`."""

    model: bytes
    weights: Iterable[bytes] = ()

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return len(self.model) + sum(map(len, self.weights))

    def files(self) -> dict[str, Iterable[bytes]]:
        """Return the content of each file by its name, in parts."""
        files: dict[str, Iterable[bytes]] = {MODEL_FILE: (self.model,)}
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
        if not isinstance(self.weights, WeightsFile):
            yield self.model
            return
        path = self.weights.folder / MODEL_FILE
        with writing(path.parent):
            path.write_bytes(self.model)
        try:
            yield str(path)
        finally:
            path.unlink(missing_ok=True)


class _Constants:
    """The constants of a graph that is being made: in memory, and from `largest` bytes on in a file."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._held: list[TensorProto] = []
        self._bytes = 0
        self.file: WeightsFile | None = None

    def make(self, array: npt.NDArray[Any], name: str) -> TensorProto:
        if array.nbytes < LEAST_OUTSIDE:
            return numpy_helper.from_array(array, name)
        self._bytes += array.nbytes
        if self.file is None and self._bytes > self._largest:
            self.file = WeightsFile()
            for tensor in self._held:
                self.file.move_out(tensor, tensor.raw_data)
            self._held.clear()
        if self.file is not None:
            return self.file.add(array, name)
        self._held.append(tensor := numpy_helper.from_array(array, name))
        return tensor


_CONSTANTS: ContextVar[_Constants | None] = ContextVar("constants", default=None)


@contextmanager
def large_graph(*, largest: int | None = None) -> Iterator[None]:
    """Let one graph that is made and serialised in this block be of any size.

    Its constants go to a file one by one, so no more than `largest` bytes of them are in memory.
    """
    constants = _Constants(LARGEST if largest is None else largest)
    made, found = CONSTANT_MAKER.set(constants.make), _CONSTANTS.set(constants)
    try:
        yield
    finally:
        CONSTANT_MAKER.reset(made)
        _CONSTANTS.reset(found)


def serialize(model: onnx.ModelProto, *, largest: int = LARGEST, check: bool = True) -> OnnxFile:
    """Return the checked graph, the same bytes for the same graph.

    largest: bytes of tensors from which on they go into the second file; `model` then loses them.
    """
    constants = _CONSTANTS.get()
    weights = None if constants is None else constants.file
    if weights is None:
        if sum(_size(tensor) for tensor in model.graph.initializer) <= largest:
            return OnnxFile(_content(model, check=check))
        weights = WeightsFile()
        for tensor in model.graph.initializer:
            if tensor.HasField("raw_data") and _size(tensor) >= LEAST_OUTSIDE:
                weights.move_out(tensor, tensor.raw_data)
    # The checker wants to see the second file, which has another place. `verify` runs the graph.
    return OnnxFile(_content(model, check=False), weights)


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
