"""Reads the weights of a model's folder: safetensors in one file or in shards, or a pickle.

They stay in their files, mapped, and are read as they are used: a model's float32 weights may be larger
than the memory that an export may take. No torch is needed for safetensors.
"""

import json
import math
import mmap
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from export.errors import CorruptFile, MissingPackage, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.source.folder import ModelFolder
from export.source.json_file import Json, is_object_of_strings, shown
from export.source.modules import Modules, in_folder
from server.messages.message import Message

FloatArray = npt.NDArray[np.float32]
# Read from the files when it is asked for: keep no more of them than the work in hand needs.
Tensors = Mapping[str, FloatArray]
# Name of a tensor -> its shape.
Shapes = Mapping[str, tuple[int, ...]]

SINGLE, SHARD_INDEX, PICKLED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)
# Shards lie beside their index: model-00001-of-00005.safetensors. No folder, nothing hidden.
SHARD = re.compile(r"[A-Za-z0-9][\w.-]{0,200}\.safetensors", re.ASCII)
MOST_SHARDS = 1_000
# Numbers of other types are codes of a quantised model, which mean nothing without their scales.
FLOATS = {np.dtype(kind) for kind in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)}
# The element types of safetensors that numpy has.
ELEMENTS: dict[str, Any] = {
    **{"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": np.bool_,
}
# Numbers of a part of a tensor.
PART = 2**22


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file; kind: of its numbers there, or of what `load` makes of them."""

    shape: tuple[int, ...]
    kind: np.dtype[Any]
    load: Callable[[], npt.NDArray[Any]]

    def array(self) -> npt.NDArray[Any]:
        """Return the numbers, floating-point ones in float32. Float32 stays in the mapped file."""
        loaded = self.load()
        return np.asarray(loaded, dtype=np.float32) if self.kind in FLOATS else loaded


class StoredTensors(Mapping[str, FloatArray]):
    """The tensors of a model's files, each mapped into memory while it is in use.

    Floating-point numbers come in float32, others as they are: `check_tensors` refuses them.
    """

    def __init__(self) -> None:
        self._stored: dict[str, StoredTensor] = {}

    def add(self, name: str, tensor: StoredTensor) -> bool:
        """Add a tensor; return whether no other one of this name has other numbers."""
        first = self._stored.setdefault(name, tensor)
        return first is tensor or np.array_equal(first.array(), tensor.array())

    def update(self, other: "StoredTensors") -> None:
        """Add other tensors, which replace those of the same name."""
        self._stored |= other._stored

    def __getitem__(self, name: str) -> FloatArray:
        return self._stored[name].array()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def check_plain_weights(config: Json) -> None:
    """Refuse weights that transformers would change while it loads them."""
    if config.get("quantization_config"):
        raise UnsupportedModel(
            "config.json has a quantization_config, so the weights are quantised; export the model that "
            "it was made from"
        )


def weight_files(folder: ModelFolder, modules: Modules, *, allow_pickle: bool) -> list[Path]:
    """Return the files that hold the weights; raises NoSuchModel where none may be read."""
    index = modules.file(SHARD_INDEX)
    if folder.has(index) and not folder.has(modules.file(SINGLE)):
        return _shards(folder, modules, index)
    return [weight_file(folder, modules.transformer, allow_pickle=allow_pickle)]


def weight_file(folder: ModelFolder, inner: str, *, allow_pickle: bool) -> Path:
    """Return the one file with the weights of a module, whose folder is `inner`; raises NoSuchModel."""
    name = stored_weights(
        lambda each: folder.has(in_folder(inner, each)),
        folder.path(inner),
        (SINGLE, PICKLED),
        allow_pickle=allow_pickle,
    )
    return folder.file(in_folder(inner, name))


def stored_weights(
    has: Callable[[str], bool], place: Path | str, names: tuple[str, str], *, allow_pickle: bool
) -> str:
    """Return which of two files holds weights; raises NoSuchModel where none may be read.

    has: whether there is a file of a name. place: what messages call the folder. names: of safetensors, which is
    taken where both are there, and of a pickle.
    """
    safe, pickled = names
    if has(safe):
        return safe
    if not has(pickled):
        raise NoSuchModel("{folder} has no {file}", folder=place, file=safe)
    if not allow_pickle:
        raise NoSuchModel(
            "{folder} has only {file}; add --allow-pickle to read it (weights only)",
            folder=place,
            file=pickled,
        )
    return pickled


def _shards(folder: ModelFolder, modules: Modules, index: str) -> list[Path]:
    path = folder.path(index)
    names = shard_names(path, folder.json_value(index))
    missing = [name for name in names if not folder.has(modules.file(name))]
    if missing or not names:
        raise NoSuchModel(
            "{index} names missing files: {missing}",
            index=path,
            missing=tuple(missing[:10]) or Message("none at all"),
        )
    return [folder.file(modules.file(name)) for name in names]


def shard_names(index: Path, value: Any) -> list[str]:
    """Return the names of the shards in the JSON value of an index; raises CorruptFile."""
    if not isinstance(value, dict):
        raise CorruptFile("{path} must hold a JSON object", path=index)
    weight_map = value.get("weight_map", {})
    if not is_object_of_strings(weight_map):
        raise CorruptFile(
            "{index}: weight_map is {shown}, not an object of strings",
            index=index,
            shown=shown(weight_map),
        )
    names = sorted(set(weight_map.values()))
    if len(names) > MOST_SHARDS:
        raise CorruptFile(
            "{index} names {n_shards} files, at most {most} are read",
            index=index,
            n_shards=len(names),
            most=MOST_SHARDS,
        )
    for name in names:
        if not SHARD.fullmatch(name):
            raise CorruptFile(
                "{index} names {shown}, which is outside the folder or no plain name of a shard, such as "
                "model-00001-of-00005.safetensors",
                index=index,
                shown=shown(name),
            )
    return names


def read_tensors(files: Sequence[Path], rename: Callable[[str], str]) -> StoredTensors:
    """Return every tensor of the files under the name that `rename` gives it."""
    tensors = StoredTensors()
    for path in files:
        read = _open_pickle if path.suffix in (".bin", ".pt") else _open_safetensors
        for stored, tensor in read(path).items():
            name = rename(stored)
            if not tensors.add(name, tensor):
                raise CorruptFile(
                    "{path} holds the tensor {name} a second time, with other numbers",
                    path=path,
                    name=name[:80],
                )
    return tensors


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        # The library checks that each tensor lies inside the file and none over another.
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
        return _described(WeightsFile(path), names)
    except (
        *(SafetensorError, OSError, AttributeError, KeyError),
        *(TypeError, ValueError, OverflowError, MemoryError),
    ) as error:
        raise CorruptFile(
            "{path} cannot be read as safetensors: {error}", path=path, error=error
        ) from None


def _described(file: "WeightsFile", names: Sequence[str]) -> dict[str, StoredTensor]:
    length = int.from_bytes(file.bytes(0, 8), "little")
    header = json.loads(file.bytes(8, length))
    found = {}
    for name in names:
        described = header[name]
        # KeyError: an element type that numpy does not have.
        kind = np.dtype(ELEMENTS[described["dtype"]])
        shape = tuple(described["shape"])
        offset = 8 + length + described["data_offsets"][0]
        found[name] = StoredTensor(shape, kind, partial(file.array, offset, shape, kind))
    return found


class WeightsFile:
    """A file that stays open as long as one of its tensors may be asked for."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def bytes(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def array(self, offset: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a tensor in a mapping of its own, whose pages are given back with the array."""
        count = math.prod(shape)
        if not count:
            return np.zeros(shape, kind)
        before = offset % mmap.ALLOCATIONGRANULARITY
        length = before + count * kind.itemsize
        pages = mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ, offset=offset - before)
        return np.frombuffer(pages, kind, count, before).reshape(shape)


def _open_pickle(path: Path) -> dict[str, StoredTensor]:
    try:
        import torch
    except ImportError:
        raise MissingPackage(
            "reading {file} needs torch: install the export-any extra", file=path.name
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        # numpy lacks bfloat16 and the kinds that are quantised.
        floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

        def stored(tensor: Any) -> StoredTensor:
            if tensor.dtype not in floats:
                array = tensor.numpy()
                return StoredTensor(array.shape, array.dtype, lambda: array)
            return StoredTensor(
                tuple(tensor.shape), np.dtype(np.float32), lambda: tensor.detach().float().numpy()
            )

        return {name: stored(tensor) for name, tensor in loaded.items()}
    except Exception as error:
        # torch raises many kinds (pickle, zip, attribute errors) for a bad or unsafe file.
        raise CorruptFile(
            "{path} cannot be read as weights only: {error}", path=path, error=error
        ) from None


def _is_zip(path: Path) -> bool:
    """Return whether a pickle is of the newer kind, whose tensors can be mapped."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_tensors(tensors: Tensors, expected: Shapes) -> None:
    """Refuse weights that a network cannot be built from: a wrong shape or type, NaN or infinity."""
    for name, shape in expected.items():
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            what = Message("is missing")
            if found is not None:
                what = Message("has shape {shape}", shape=str(found))
            raise ShapeMismatch(
                "tensor {name} {what}; config.json asks for {expected}",
                name=name,
                what=what,
                expected=str(shape),
            )
    for name in expected:
        tensor = tensors[name]
        if tensor.dtype != np.float32:
            raise UnsupportedModel(
                "tensor {name} holds numbers of the type {kind}, which are those of a quantised model; "
                "export the model that it was made from",
                name=name,
                kind=str(tensor.dtype),
            )
        if not all(np.isfinite(rows).all() for rows in in_parts(tensor)):
            raise CorruptFile("tensor {name} holds NaN or infinity", name=name)


def in_parts(tensor: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield a tensor's rows in parts of some megabytes, for work whose copies must stay small."""
    rows = tensor.reshape(len(tensor), -1) if tensor.ndim else tensor.reshape(1, 1)
    step = max(1, PART // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        yield rows[first : first + step]
