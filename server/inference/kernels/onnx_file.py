"""Reads the nodes and tensors of an ONNX file, for what runs it without ONNX Runtime.

An ONNX file is a message of Protocol Buffers: fields of a number and a value, which may be a message itself. So
few of them are needed here that a reader of fields is shorter than a library with generated classes. A file
that is damaged, or has something that is not read here, raises NotReadable: then ONNX Runtime gets it, and says
what is wrong.

https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Numbers of TensorProto's data types.
DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}
# Kinds of attributes: AttributeProto.type.
FLOAT, INT, STRING, GRAPH, INTS = 1, 2, 3, 5, 7
# Bytes of a number with 7 bits a byte.
LONGEST_NUMBER = 10
# Graphs in attributes of graphs: the exporter's are two deep.
DEEPEST = 4
# Fields of a file, and numbers of lists: those of 24 layers are 100,000. Each takes memory that its bytes do not tell.
MOST_FIELDS = 500_000

Tensor = npt.NDArray[Any]


class NotReadable(Exception):
    """Raised for a file that is no ONNX file, or has something that is not read here."""


@dataclass(slots=True)
class Node:
    """An operator. attributes: numbers, texts, lists of whole numbers, and graphs, by name."""

    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """Nodes in the order of computation, and constants by name. outputs: names.

    opsets: the versions of the sets of operators by domain; of the outermost graph alone.
    """

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)


def read_graph(path: Path) -> Graph:
    """Return the graph of a file; its tensors are views of the file's bytes. Raises NotReadable, OSError."""
    try:
        # Mapped: of a file that is not read here after all, nothing but the nodes is.
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _Reader().model(memoryview(content))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise NotReadable(f"{path.name}: {error}") from None


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and where the next field begins."""
    value = 0
    for place in range(LONGEST_NUMBER):
        byte = message[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise NotReadable("a number of more than 10 bytes")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise NotReadable("a number where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()


def _signed(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise NotReadable("a message where a number belongs")
    if value >> 64:
        raise NotReadable("a number of more than 64 bits")
    return value - (1 << 64) if value >> 63 else value


class _Reader:
    """Reads the messages of one file, and counts what it has read."""

    def __init__(self) -> None:
        self._left = MOST_FIELDS

    def model(self, message: memoryview) -> Graph:
        graph, opsets = None, dict[str, int]()
        for number, value in self._fields(message):
            if number == 7:
                graph = self._graph(_message(value), depth=0)
            elif number == 8:
                domain, version = "", 0
                for key, part in self._fields(_message(value)):
                    if key == 1:
                        domain = _text(part)
                    elif key == 2:
                        version = _signed(part)
                opsets[domain] = version
        if graph is None:
            raise NotReadable("there is no graph")
        graph.opsets = opsets
        return graph

    def _spend(self, number: int = 1) -> None:
        self._left -= number
        if self._left < 0:
            raise NotReadable(f"more than {MOST_FIELDS:,} fields")

    def _fields(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Yield the fields of a message: number, and a whole number or bytes."""
        at = 0
        while at < len(message):
            self._spend()
            key, at = _number(message, at)
            kind = key & 7
            if kind == 0:
                value, at = _number(message, at)
                yield key >> 3, value
                continue
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, at = _number(message, at)
            if size is None or at + size > len(message):
                raise NotReadable("a field of an unknown kind, or one that ends behind the file")
            yield key >> 3, message[at : at + size]
            at += size

    def _graph(self, message: memoryview, depth: int) -> Graph:
        if depth > DEEPEST:
            raise NotReadable(f"graphs are more than {DEEPEST} deep")
        graph = Graph()
        for number, value in self._fields(message):
            if number == 1:
                graph.nodes.append(self._node(_message(value), depth))
            elif number == 5:
                name, tensor = self._tensor(_message(value))
                graph.tensors[name] = tensor
            elif number == 12:
                named = self._fields(_message(value))
                graph.outputs += [_text(name) for key, name in named if key == 1]
            elif number == 15:
                raise NotReadable("a sparse tensor")
        return graph

    def _node(self, message: memoryview, depth: int) -> Node:
        node = Node()
        for number, value in self._fields(message):
            if number == 1:
                node.inputs.append(_text(value))
            elif number == 2:
                node.outputs.append(_text(value))
            elif number == 4:
                node.operator = _text(value)
            elif number == 5:
                name, attribute = self._attribute(_message(value), depth)
                node.attributes[name] = attribute
            elif number == 7:
                node.domain = _text(value)
        return node

    def _attribute(self, message: memoryview, depth: int) -> tuple[str, Any]:
        name, kind, values = "", 0, dict[int, Any]()
        numbers: list[int] = []
        for number, value in self._fields(message):
            if number == 1:
                name = _text(value)
            elif number == 20:
                kind = _signed(value)
            elif number == 8:
                numbers += self._numbers(value)
            elif number == 21:
                raise NotReadable(f"attribute {name!r} is that of a function")
            else:
                values[number] = value
        if kind == FLOAT:
            return name, struct.unpack("<f", _message(values[2]))[0] if 2 in values else 0.0
        if kind == INT:
            return name, _signed(values.get(3, 0))
        if kind == STRING:
            return name, _text(values.get(4, memoryview(b"")))
        if kind == GRAPH:
            return name, self._graph(_message(values.get(6, 0)), depth + 1)
        if kind == INTS:
            return name, numbers
        raise NotReadable(f"attribute {name!r} has the kind {kind}")

    def _numbers(self, value: int | memoryview) -> list[int]:
        """Return one whole number, or several that are packed."""
        if isinstance(value, int):
            return [_signed(value)]
        found, at = list[int](), 0
        while at < len(value):
            self._spend()
            number, at = _number(value, at)
            found.append(_signed(number))
        return found

    def _tensor(self, message: memoryview) -> tuple[str, Tensor]:
        shape: list[int] = []
        name, kind, content = "", 0, memoryview(b"")
        for number, value in self._fields(message):
            if number == 1:
                shape += self._numbers(value)
            elif number == 2:
                kind = _signed(value)
            elif number == 8:
                name = _text(value)
            elif number == 9:
                content = _message(value)
            elif number in (4, 5, 7, 13, 14):
                raise NotReadable(f"tensor {name!r} is in another file, or not in raw bytes")
        if kind not in DTYPES:
            raise NotReadable(f"tensor {name!r} has the data type {kind}")
        if any(side < 0 for side in shape):
            raise NotReadable(f"tensor {name!r} has the shape {shape[:8]}")
        return name, np.frombuffer(content, DTYPES[kind]).reshape(shape)
