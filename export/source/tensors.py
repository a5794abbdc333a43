"""Reads the weights of a model's folder: safetensors in one file or in shards, or a pickle.

No torch is needed for safetensors.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ml_dtypes  # noqa: F401  Registers bfloat16 with numpy, where safetensors finds it by name.
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from export.errors import CorruptFile, MissingPackage, NoSuchModel, ShapeMismatch
from export.source.json_file import is_object_of_strings, read_json, shown
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


def weight_files(folder: Path, *, allow_pickle: bool) -> list[Path]:
    """Return the files that hold the weights; raises NoSuchModel where none may be read."""
    single, index, pickled = (folder / name for name in (SINGLE, SHARD_INDEX, PICKLED))
    if single.exists():
        return [single]
    if index.exists():
        return _shards(index)
    if pickled.exists() and allow_pickle:
        return [pickled]
    if pickled.exists():
        raise NoSuchModel(
            "{folder} has only pytorch_model.bin; add --allow-pickle to read it (weights only)",
            folder=folder,
        )
    raise NoSuchModel("{folder} has no model.safetensors", folder=folder)


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map", {})
    if not is_object_of_strings(weight_map):
        raise CorruptFile(
            "{index}: weight_map is {shown}, not an object of strings",
            index=index,
            shown=shown(weight_map),
        )
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CorruptFile(
                "{index} names {shown}, which is outside the folder", index=index, shown=shown(name)
            )
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing or not names:
        raise NoSuchModel(
            "{index} names missing files: {missing}",
            index=index,
            missing=tuple(missing) or Message("none at all"),
        )
    return [index.parent / name for name in names]


def read_tensors(files: Sequence[Path], rename: Callable[[str], str]) -> dict[str, FloatArray]:
    """Return every tensor of the files in float32, under the name that `rename` gives it."""
    tensors: dict[str, FloatArray] = {}
    for path in files:
        read = _read_pickle if path.suffix == ".bin" else _read_safetensors
        tensors |= {rename(name): array for name, array in read(path).items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, FloatArray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {
                name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in file.keys()
            }
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        # AttributeError and TypeError: an element type that numpy does not have.
        raise CorruptFile(
            "{path} cannot be read as safetensors: {error}", path=path, error=error
        ) from None


def _read_pickle(path: Path) -> dict[str, FloatArray]:
    try:
        import torch
    except ImportError:
        raise MissingPackage(
            "reading pytorch_model.bin needs torch: install the export-any extra"
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in loaded.items()}
    except Exception as error:
        # torch raises many kinds (pickle, zip, attribute errors) for a bad or unsafe file.
        raise CorruptFile(
            "{path} cannot be read as weights only: {error}", path=path, error=error
        ) from None


def check_tensors(tensors: Tensors, expected: Shapes) -> None:
    """Refuse weights that a network cannot be built from: a wrong shape, NaN or infinity."""
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
        if not np.isfinite(tensors[name]).all():
            raise CorruptFile("tensor {name} holds NaN or infinity", name=name)
