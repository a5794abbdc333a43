"""Reads the nodes and tensors of an ONNX file, for what runs it without ONNX Runtime.

An ONNX file is a message of Protocol Buffers: fields of a number and a value, which may be a message itself. So
few of them are needed here that a reader of fields is shorter than a library with generated classes. A file
that is damaged, or has something that is not read here, raises NotReadable: then ONNX Runtime gets it, and says
what is wrong.

https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
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
    """Nodes in the order of computation, and constants by name. outputs: names."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


def read_graph(path: Path) -> Graph:
    """Return the graph of a file; its tensors are views of the file's bytes. Raises NotReadable, OSError."""
    try:
        for number, value in _fields(memoryview(path.read_bytes())):
            if number == 7:
                return _graph(_message(value))
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise NotReadable(f"{path.name}: {error}") from None
    raise NotReadable(f"{path.name} has no graph")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: number, and a whole number or bytes."""
    at = 0
    while at < len(message):
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
    return value - (1 << 64) if value >> 63 else value


def _graph(message: memoryview) -> Graph:
    graph = Graph()
    for number, value in _fields(message):
        if number == 1:
            graph.nodes.append(_node(_message(value)))
        elif number == 5:
            name, tensor = _tensor(_message(value))
            graph.tensors[name] = tensor
        elif number == 12:
            graph.outputs += [_text(name) for key, name in _fields(_message(value)) if key == 1]
    return graph


def _node(message: memoryview) -> Node:
    node = Node()
    for number, value in _fields(message):
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            node.operator = _text(value)
        elif number == 5:
            name, attribute = _attribute(_message(value))
            node.attributes[name] = attribute
        elif number == 7:
            node.domain = _text(value)
    return node


def _attribute(message: memoryview) -> tuple[str, Any]:
    name, kind, values = "", 0, dict[int, Any]()
    numbers = []
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number == 20:
            kind = _signed(value)
        elif number == 8:
            numbers += _numbers(value)
        else:
            values[number] = value
    if kind == FLOAT:
        return name, struct.unpack("<f", values[2])[0] if 2 in values else 0.0
    if kind == INT:
        return name, _signed(values.get(3, 0))
    if kind == STRING:
        return name, _text(values.get(4, memoryview(b"")))
    if kind == GRAPH:
        return name, _graph(_message(values.get(6, 0)))
    if kind == INTS:
        return name, numbers
    raise NotReadable(f"attribute {name!r} has the kind {kind}")


def _numbers(value: int | memoryview) -> list[int]:
    """Return one whole number, or several that are packed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _number(value, at)
        found.append(_signed(number))
    return found


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    shape: list[int] = []
    name, kind, content = "", 0, memoryview(b"")
    for number, value in _fields(message):
        if number == 1:
            shape += _numbers(value)
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
        raise NotReadable(f"tensor {name!r} has the shape {shape}")
    return name, np.frombuffer(content, DTYPES[kind]).reshape(shape)


def scalar(tensors: Mapping[str, Tensor], name: str) -> float:
    """Return the only number of a tensor; raises NotReadable where there is no such tensor."""
    if name not in tensors or tensors[name].size != 1:
        raise NotReadable(f"there is no single number {name!r}")
    return float(tensors[name].reshape(()))


def the_only(values: Sequence[Any], what: str) -> Any:
    """Return the only one of these; raises NotReadable where there are more or none."""
    if len(values) != 1:
        raise NotReadable(f"{len(values)} of {what} where one is expected")
    return values[0]
