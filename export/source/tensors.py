"""Reads the weights of a model's folder: safetensors in one file or in shards, or a pickle.

No torch is needed for safetensors.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # Registers bfloat16 with numpy, where safetensors finds it by name.
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from export.errors import CorruptFile, MissingPackage, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.source.folder import ModelFolder
from export.source.json_file import Json, is_object_of_strings, shown
from export.source.modules import Modules
from server.messages.message import Message

FloatArray = npt.NDArray[np.float32]
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


def check_plain_weights(config: Json) -> None:
    """Refuse weights that transformers would change while it loads them."""
    if config.get("quantization_config"):
        raise UnsupportedModel(
            "config.json has a quantization_config, so the weights are quantised; export the model that "
            "it was made from"
        )


def weight_files(folder: ModelFolder, modules: Modules, *, allow_pickle: bool) -> list[Path]:
    """Return the files that hold the weights; raises NoSuchModel where none may be read."""
    single, index, pickled = map(modules.file, (SINGLE, SHARD_INDEX, PICKLED))
    if folder.has(single):
        return [folder.file(single)]
    if folder.has(index):
        return _shards(folder, modules, index)
    place = folder.path(modules.transformer)
    if folder.has(pickled) and allow_pickle:
        return [folder.file(pickled)]
    if folder.has(pickled):
        raise NoSuchModel(
            "{folder} has only pytorch_model.bin; add --allow-pickle to read it (weights only)",
            folder=place,
        )
    raise NoSuchModel("{folder} has no model.safetensors", folder=place)


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


def read_tensors(files: Sequence[Path], rename: Callable[[str], str]) -> dict[str, FloatArray]:
    """Return every tensor of the files under the name that `rename` gives it.

    Floating-point numbers come in float32, others as they are: `check_tensors` refuses them.
    """
    tensors: dict[str, FloatArray] = {}
    for path in files:
        read = _read_pickle if path.suffix == ".bin" else _read_safetensors
        for stored, array in read(path).items():
            name = rename(stored)
            first = tensors.setdefault(name, array)
            if first is not array and not np.array_equal(first, array):
                raise CorruptFile(
                    "{path} holds the tensor {name} a second time, with other numbers",
                    path=path,
                    name=name[:80],
                )
    return tensors


def _read_safetensors(path: Path) -> dict[str, FloatArray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: _widened(file.get_tensor(name)) for name in file.keys()}
    except (
        *(SafetensorError, OSError, AttributeError),
        *(TypeError, ValueError, OverflowError, MemoryError),
    ) as error:
        # AttributeError and TypeError: an element type that numpy does not have.
        raise CorruptFile(
            "{path} cannot be read as safetensors: {error}", path=path, error=error
        ) from None


def _widened(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(array, dtype=np.float32) if array.dtype in FLOATS else array


def _read_pickle(path: Path) -> dict[str, FloatArray]:
    try:
        import torch
    except ImportError:
        raise MissingPackage(
            "reading pytorch_model.bin needs torch: install the export-any extra"
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        # numpy lacks bfloat16 and the kinds that are quantised.
        floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        return {
            name: (tensor.float() if tensor.dtype in floats else tensor).numpy()
            for name, tensor in loaded.items()
        }
    except Exception as error:
        # torch raises many kinds (pickle, zip, attribute errors) for a bad or unsafe file.
        raise CorruptFile(
            "{path} cannot be read as weights only: {error}", path=path, error=error
        ) from None


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
        if tensors[name].dtype != np.float32:
            raise UnsupportedModel(
                "tensor {name} holds numbers of the type {kind}, which are those of a quantised model; "
                "export the model that it was made from",
                name=name,
                kind=str(tensors[name].dtype),
            )
        if not np.isfinite(tensors[name]).all():
            raise CorruptFile("tensor {name} holds NaN or infinity", name=name)
