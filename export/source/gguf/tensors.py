"""The tensors of a GGUF file under the names of the checkpoint, in float32 as they are asked for.

They stay in the file, mapped. F32, F16, BF16 and Q8_0 are read here; other quantised types by the package gguf.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from export.errors import CorruptFile, MissingPackage, UnsupportedModel
from export.source.gguf.header import Header, Placed
from export.source.tensors import FloatArray, StoredTensor, WeightsFile

FLOAT_TYPES: Mapping[int, Any] = {
    0: np.float32,
    1: np.float16,
    28: np.float64,
    30: ml_dtypes.bfloat16,
}
Q8_0 = 8
# Tensors that no vector depends on: what a reranker or a language model has behind its network.
IGNORED = ("cls.", "output.")
# Numbers of a block and its bytes: a scale in 16 bits, and a byte each.
Q8_0_BLOCK, Q8_0_BYTES = 32, 34
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class Names:
    """What a checkpoint calls the tensors of an architecture. layer: before the names of its parts."""

    whole: Mapping[str, str]
    layer: str
    parts: Mapping[str, str]

    def of(self, stored: str) -> str:
        """Return the checkpoint's name of a tensor; one that is not known keeps its name."""
        found = LAYER.fullmatch(stored)
        if found is not None and found[2] in self.parts:
            return f"{self.layer}.{found[1]}.{self.parts[found[2]]}.{found[3]}"
        name, _, end = stored.rpartition(".")
        return f"{self.whole[name]}.{end}" if name in self.whole else stored


def stored_tensors(path: Path, header: Header, names: Names) -> dict[str, StoredTensor]:
    """Return the tensors of a file; raises an ExportError for one outside the file, or of an unknown type."""
    file = WeightsFile(path)
    found, free = {}, 0
    for stored, placed in sorted(header.tensors.items(), key=lambda each: each[1].offset):
        if stored.startswith(IGNORED):
            continue
        if placed.offset < free:
            raise CorruptFile(
                "{path}: the tensor {name} lies inside another; download or copy it again",
                path=path,
                name=stored[:80],
            )
        tensor, size = _stored(path, file, header, stored, placed)
        found[names.of(stored)], free = tensor, placed.offset + size
    return found


def check_all_used(tensors: Collection[str], used: Collection[str]) -> None:
    """Refuse a file with a tensor that the network would be written without, as llama.cpp does."""
    rest = sorted(set(tensors).difference(used))
    if rest:
        raise UnsupportedModel(
            "GGUF: the tensor {name} is not read, nor are {others} others, and vectors may depend on them; "
            "export the model that the file was made from",
            name=rest[0][:80],
            others=len(rest) - 1,
        )


def _stored(
    path: Path, file: WeightsFile, header: Header, name: str, placed: Placed
) -> tuple[StoredTensor, int]:
    """Return a tensor and its bytes in the file."""
    offset = header.end + placed.offset
    if placed.kind in FLOAT_TYPES:
        kind = np.dtype(FLOAT_TYPES[placed.kind])
        length = math.prod(placed.shape) * kind.itemsize
        _check_place(path, header, name, offset, length)
        load = partial(file.array, offset, placed.shape, kind)
        return StoredTensor(placed.shape, kind, load), length
    block, size, widen = _blocks(path, name, placed.kind)
    if placed.shape[-1] % block:
        raise CorruptFile(
            "{path}: the rows of {name} have {width} numbers, no multiple of {block}",
            path=path,
            name=name[:80],
            width=placed.shape[-1],
            block=block,
        )
    rows = (*placed.shape[:-1], placed.shape[-1] // block * size)
    _check_place(path, header, name, offset, math.prod(rows))

    def widened() -> FloatArray:
        return widen(file.array(offset, rows, np.dtype(np.uint8))).reshape(placed.shape)

    return StoredTensor(placed.shape, np.dtype(np.float32), widened), math.prod(rows)


def _check_place(path: Path, header: Header, name: str, offset: int, length: int) -> None:
    if offset + length > header.size:
        raise CorruptFile(
            "{path}: the tensor {name} reaches beyond the end of the file; download or copy it again",
            path=path,
            name=name[:80],
        )


def _blocks(path: Path, name: str, kind: int) -> tuple[int, int, Callable[[Any], FloatArray]]:
    """Return the numbers and the bytes of a block of a quantised type, and what makes float32 of blocks."""
    if kind == Q8_0:
        return Q8_0_BLOCK, Q8_0_BYTES, widen_q8_0
    try:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import _type_traits, dequantize
    except ImportError:
        raise MissingPackage(
            "{path}: {name} is quantised as type {kind} of GGML, which needs the package gguf: install the "
            "gguf extra, or take a file in F32, F16, BF16 or Q8_0",
            path=path,
            name=name[:80],
            kind=kind,
        ) from None
    known = {int(each): each for each in GGMLQuantizationType if each in _type_traits}
    if kind not in known:
        raise UnsupportedModel(
            "{path}: {name} is of type {kind} of GGML, which is not read; take a file in F16 or Q8_0",
            path=path,
            name=name[:80],
            kind=kind,
        )
    return (*GGML_QUANT_SIZES[known[kind]], partial(_widen, dequantize, known[kind]))


def _widen(dequantize: Callable[..., Any], kind: Any, raw: npt.NDArray[np.uint8]) -> FloatArray:
    return np.asarray(dequantize(raw, kind), np.float32)


def widen_q8_0(raw: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the numbers of blocks of 32 bytes with a scale before them: uint8 (..., bytes) -> float32 (...)."""
    blocks = raw.reshape(-1, Q8_0_BYTES)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8) * scales
