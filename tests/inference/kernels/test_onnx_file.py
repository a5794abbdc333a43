"""The reader of ONNX files, against the onnx package, and on files that are damaged or made to harm."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from server.inference.kernels import onnx_file
from server.inference.kernels.onnx_file import DEEPEST, Graph, NotReadable, read_graph
from server.inference.manifest import MODEL_FILE

VALUES = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.GRAPH: "g",
    AttributeProto.INTS: "ints",
}


def check_same(found: Graph, graph: GraphProto) -> None:
    """Compare everything that is read with what the onnx package reads."""
    assert found.outputs == [each.name for each in graph.output]
    assert set(found.tensors) == {each.name for each in graph.initializer}
    for tensor in graph.initializer:
        expected = numpy_helper.to_array(tensor)
        read = found.tensors[tensor.name]
        assert read.dtype == expected.dtype and read.shape == expected.shape
        assert read.tobytes() == expected.tobytes()
    assert len(found.nodes) == len(graph.node)
    for node, wanted in zip(found.nodes, graph.node, strict=True):
        assert (node.operator, node.domain) == (wanted.op_type, wanted.domain)
        assert (node.inputs, node.outputs) == (list(wanted.input), list(wanted.output))
        assert set(node.attributes) == {each.name for each in wanted.attribute}
        for attribute in wanted.attribute:
            value = getattr(attribute, VALUES[attribute.type])
            if attribute.type == AttributeProto.GRAPH:
                check_same(node.attributes[attribute.name], value)
            elif attribute.type == AttributeProto.STRING:
                assert node.attributes[attribute.name] == value.decode()
            else:
                read = node.attributes[attribute.name]
                assert read == (list(value) if attribute.type == AttributeProto.INTS else value)


@pytest.mark.parametrize("fixture", ["cls_artifact", "mean_artifact", "shipped_artifact"])
def test_file_is_read_as_the_onnx_package_reads_it(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(fixture) / MODEL_FILE
    model, found = onnx.load(path), read_graph(path)
    check_same(found, model.graph)
    assert found.opsets == {each.domain: each.version for each in model.opset_import}


def read_bytes(content: bytes, folder: Path) -> Graph:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return read_graph(path)


def damaged(content: bytes) -> Iterator[bytes]:
    """Yield the file truncated, and with bits and whole stretches changed."""
    generator = random.Random(0)
    for end in range(0, len(content), max(1000, len(content) // 60)):
        yield content[:end]
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(generator.choice((1, 1, 8, 64))):
            changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        yield bytes(changed)
        begin = generator.randrange(len(content))
        yield content[:begin] + generator.randbytes(generator.randrange(40)) + content[begin:]


def test_damaged_file_is_not_readable_or_read(cls_artifact: Path, tmp_path: Path) -> None:
    content = (cls_artifact / MODEL_FILE).read_bytes()
    refused = 0
    for each in damaged(content):
        try:
            read_bytes(each, tmp_path)
        except NotReadable:
            refused += 1
    # Most bytes are weights, in which nothing can be noticed.
    assert refused > 60


def test_structure_with_any_bit_flipped_is_not_readable_or_read(tmp_path: Path) -> None:
    content = tiny_model().SerializeToString()
    refused = 0
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        try:
            read_bytes(bytes(changed), tmp_path)
        except NotReadable:
            refused += 1
    assert refused > len(content)


def tiny_model(*tensors: TensorProto, depth: int = 0) -> ModelProto:
    """Return a model with a graph `depth` deep in attributes."""
    nodes = [helper.make_node("Split", ["x"], ["y", "z"], axis=1)]
    graph = helper.make_graph(nodes, "inner", [], [])
    for _ in range(depth):
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=graph)]
        graph = helper.make_graph(nodes, "outer", [], [])
    graph.initializer.extend(tensors)
    return helper.make_model(graph)


def test_graphs_in_graphs_are_read_to_a_depth_only(tmp_path: Path) -> None:
    read_bytes(tiny_model(depth=DEEPEST).SerializeToString(), tmp_path)
    with pytest.raises(NotReadable, match="deep"):
        read_bytes(tiny_model(depth=DEEPEST + 1).SerializeToString(), tmp_path)
    # The onnx package itself does not make such a file.
    graph = b""
    for _ in range(3000):
        attribute = b"\xa0\x01\x05" + field(6, graph)
        graph = field(1, field(5, attribute))
    with pytest.raises(NotReadable, match="deep"):
        read_bytes(field(7, graph), tmp_path)


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def tensor(**values: object) -> TensorProto:
    made = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    for name, value in values.items():
        made.ClearField(name)
        getattr(made, name).extend(value) if isinstance(value, list) else setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dims": [1 << 40, 1 << 40]}, "model.onnx: "),
        ({"dims": [-2]}, "shape"),
        ({"dims": [3]}, "model.onnx: "),
        ({"dims": [1] * 100}, "model.onnx: "),
        ({"data_type": TensorProto.FLOAT16}, "data type 10"),
        ({"data_type": 99}, "data type 99"),
        ({"float_data": [1.0]}, "not in raw bytes"),
        ({"data_location": TensorProto.EXTERNAL}, "in another file"),
        ({"raw_data": b"123"}, "model.onnx: "),
    ],
)
def test_tensor_of_impossible_size_or_kind_is_refused(
    values: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(NotReadable, match=said):
        read_bytes(tiny_model(tensor(**values)).SerializeToString(), tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x38\x01"]
)
def test_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotReadable):
        read_bytes(content, tmp_path)


def test_file_of_countless_nodes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each empty node takes two bytes of the file, and hundreds in memory."""
    monkeypatch.setattr(onnx_file, "MOST_FIELDS", 1000)
    read_bytes(field(7, field(1, b"") * 900), tmp_path)
    with pytest.raises(NotReadable, match="1,000 fields"):
        read_bytes(field(7, field(1, b"") * 2000), tmp_path)
    # Numbers that are packed into one field count too.
    numbers = field(8, b"\x01" * 2000)
    with pytest.raises(NotReadable, match="1,000 fields"):
        read_bytes(field(7, field(1, field(5, numbers))), tmp_path)
