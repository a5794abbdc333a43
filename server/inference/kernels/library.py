"""The compiled kernels: where they are, which CPUs they need, and a plan as the values that they read."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from server.inference.kernels.plan import (
    BlockLinear,
    FirstRows,
    Layer,
    Linear,
    Norm,
    Plan,
    Quantiser,
)
from server.inference.kernels.sources import LIBRARY, NEEDS, digest
from server.messages.message import SentenceError
from server.system.cpu import cpu_features
from server.types import Ids, Vectors

ALIGNMENT = 64
# Statuses of `inkwell_encode`.
PROBLEMS = {
    1: "a token id that the model does not have",
    2: "a text of an impossible length",
    3: "no memory",
    4: "more than 4,194,304 tokens in one batch",
}
MIDDLE = 128
COLUMNS = 32


class _Linear(Structure):
    _fields_ = [
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
    ]


class _Quantiser(Structure):
    _fields_ = [("scale", c_void_p), ("zero", c_float)]


class _Norm(Structure):
    _fields_ = [
        ("epsilon", c_float),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("read_weight", c_void_p),
        ("read_bias", c_void_p),
    ]


class _BlockLinear(Structure):
    _fields_ = [("weight", c_void_p), ("scale", c_void_p), ("middle", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        *((name, _Linear) for name in ("qkv", "out", "up", "down")),
        *((name, _Quantiser) for name in ("context", "active")),
        *((name, _Norm) for name in ("after_attention", "after_feed")),
        ("down_by_block", _BlockLinear),
        ("steps", c_float * 3),
        ("first_only", c_int32),
        ("query", _Linear),
        ("keys", POINTER(_Linear)),
        ("values", POINTER(_Linear)),
        *((name, _Quantiser) for name in ("first", "sought", "found")),
    ]


class _Network(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("hidden", "heads", "feed", "layers")),
        *((name, c_int32) for name in ("vocabulary", "positions", "long_from", "normalised")),
        *((name, c_void_p) for name in ("words", "word_scale", "position_rows")),
        ("embedded", _Norm),
        ("layer", POINTER(_Layer)),
    ]


class NoKernels(SentenceError):
    """Raised where the kernels cannot be used; the message says why."""


def check_cpu() -> None:
    """Raise NoKernels where this CPU lacks what the kernels are compiled for."""
    missing = NEEDS.keys() - cpu_features()
    if missing:
        raise NoKernels("this CPU has no {missing}", missing=tuple(sorted(missing)))


@cache
def open_library(path: Path = LIBRARY) -> Any:
    """Return the compiled kernels, once a process; raises NoKernels."""
    if not path.exists():
        raise NoKernels("they are not compiled; run `make kernels` where a C compiler is installed")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(
            "they were compiled for another system ({error}); run `make kernels` here",
            error=str(error),
        ) from None
    sources = getattr(library, "inkwell_sources", None)
    if sources is not None:
        sources.restype = c_char_p
    if sources is None or sources() != digest().encode():
        raise NoKernels("they were compiled from other sources; run `make kernels`")
    library.inkwell_network_size.restype = c_int32
    assert library.inkwell_network_size() == ctypes.sizeof(_Network) + ctypes.sizeof(_Layer)
    library.inkwell_crew.argtypes, library.inkwell_crew.restype = [c_int32], c_void_p
    library.inkwell_encode.argtypes = [
        POINTER(_Network),
        c_void_p,
        c_void_p,
        c_void_p,
        c_int32,
        c_void_p,
    ]
    library.inkwell_encode.restype = c_int32
    return library


@cache
def crew_of(library: Any, threads: int) -> int | None:
    """Return so many threads that compute a batch together, and sleep between batches.

    They live as long as the process, so all models of it share them: a second batch at the same time is computed by
    its caller alone.
    """
    found: int | None = library.inkwell_crew(threads)
    return found


class Network:
    """A plan in the memory that the kernels read, which lives as long as this does."""

    def __init__(self, plan: Plan, library: Any) -> None:
        self._library = library
        self._kept: list[Any] = []
        self.width = plan.words.shape[1]
        heads, positions = plan.heads, plan.positions
        layers = (_Layer * len(plan.layers))(*(self._layer(layer) for layer in plan.layers))
        self._network = _Network(
            self.width,
            heads,
            plan.layers[0].up.weight.shape[1],
            len(plan.layers),
            *(len(plan.words), len(positions), plan.long_from, plan.normalised),
            *(self._keep(plan.words), self._keep(plan.word_scale), self._keep(positions)),
            self._norm(plan.embedded),
            layers,
        )
        self._kept.append(layers)

    def encode(self, texts: Sequence[Ids], threads: int = 1) -> Vectors:
        """Return float32 (B, H), a row a text; releases the interpreter lock. Raises ValueError.

        texts: int64 (T,) arrays of any lengths. threads: how many compute them together.
        """
        if not texts:
            raise ValueError("a batch has at least one text")
        crew = crew_of(self._library, threads) if threads > 1 else None
        # A lone text is short of time: to join it with nothing would take longer than a layer's norms.
        joined = texts[0] if len(texts) == 1 else np.concatenate(texts)
        ids = np.ascontiguousarray(joined, np.int64)
        lengths = np.array([len(each) for each in texts], np.int32)
        vectors = np.empty((len(texts), self.width), np.float32)
        places = (each.ctypes.data for each in (ids, lengths))
        status = self._library.inkwell_encode(
            byref(self._network), crew, *places, len(texts), vectors.ctypes.data
        )
        if status:
            raise ValueError(PROBLEMS[status])
        return vectors

    def _keep(self, values: npt.NDArray[Any]) -> int:
        """Return the address of a copy, aligned."""
        room = np.empty(values.nbytes + ALIGNMENT, np.uint8)
        begin = -room.ctypes.data % ALIGNMENT
        copy = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
        copy[...] = values
        self._kept.append(room)
        return copy.ctypes.data

    def _packed(self, weight: npt.NDArray[np.int8]) -> int:
        """Keep a weight (K, N) as [N / 32][K / 4][32][4]."""
        inputs, outputs = weight.shape
        split = weight.reshape(inputs // 4, 4, outputs // COLUMNS, COLUMNS)
        return self._keep(split.transpose(2, 0, 3, 1))

    def _linear(self, linear: Linear) -> _Linear:
        values = (self._keep(linear.scale), self._keep(linear.bias))
        return _Linear(*linear.weight.shape, self._packed(linear.weight), *values)

    def _linears(self, linears: Sequence[Linear]) -> Any:
        made = (_Linear * len(linears))(*map(self._linear, linears))
        self._kept.append(made)
        return made

    def _quantiser(self, quantiser: Quantiser) -> _Quantiser:
        return _Quantiser(self._keep(quantiser.scale), quantiser.zero)

    def _norm(self, norm: Norm) -> _Norm:
        made = _Norm(norm.epsilon, self._keep(norm.weight), self._keep(norm.bias))
        if norm.read is not None:
            made.read_weight = self._keep(norm.weight * norm.read.scale)
            made.read_bias = self._keep(norm.bias * norm.read.scale + np.float32(norm.read.zero))
        return made

    def _layer(self, layer: Layer) -> _Layer:
        made = _Layer(
            out=self._linear(layer.out),
            up=self._linear(layer.up),
            context=self._quantiser(layer.context),
            after_attention=self._norm(layer.after_attention),
            after_feed=self._norm(layer.after_feed),
        )
        if layer.steps is not None:
            made.steps = (c_float * 3)(*layer.steps)
        if layer.active is not None:
            made.active = self._quantiser(layer.active)
        if isinstance(layer.down, BlockLinear):
            made.down_by_block = self._block_linear(layer.down)
            made.down.inputs, made.down.outputs = layer.down.weight.shape
        else:
            made.down = self._linear(layer.down)
        if isinstance(layer.qkv, FirstRows):
            self._put_first_rows(made, layer.qkv)
        else:
            made.qkv = self._linear(layer.qkv)
        return made

    def _put_first_rows(self, made: _Layer, rows: FirstRows) -> None:
        made.first_only = 1
        made.query, made.first = self._linear(rows.query), self._quantiser(rows.first)
        made.keys, made.sought = self._linears(rows.keys), self._quantiser(rows.sought)
        made.values, made.found = self._linears(rows.values), self._quantiser(rows.found)

    def _block_linear(self, linear: BlockLinear) -> _BlockLinear:
        blocks, outputs = linear.scale.shape
        sums = linear.weight.reshape(blocks, -1, outputs).sum(axis=1, dtype=np.int64)
        middle = (-MIDDLE * sums * linear.scale).astype(np.float32)
        kept = (self._keep(each) for each in (linear.scale, middle, linear.bias))
        return _BlockLinear(self._packed(linear.weight), *kept)
