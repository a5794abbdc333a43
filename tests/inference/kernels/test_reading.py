"""The recogniser of graphs: whatever is other than the exporter writes it is refused, or computed alike."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

from server.inference.comparison import row_cosines
from server.inference.encoder import GROUP_TEXTS, SessionEncoder
from server.inference.kernels.encoder import KernelEncoder
from server.inference.kernels.library import Network, NoKernels, open_library
from server.inference.kernels.onnx_file import NotReadable, read_graph
from server.inference.kernels.plan import FirstRows
from server.inference.kernels.reading import plan_of
from server.inference.manifest import MODEL_FILE
from server.types import Ids, Packing

# Differences of rounding, which layers multiply: random networks of few numbers are touchy.
ALIKE = 0.98


class Change(NamedTuple):
    """One change of a graph. what: for the message of a test that fails."""

    what: str
    make: Callable[[], object]


def graphs_of(graph: GraphProto, *, outermost: bool = True) -> Iterator[GraphProto]:
    """Yield the graphs that texts of one length go through: all but the packed layout."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            packed = outermost and attribute.name == "then_branch"
            if attribute.type == AttributeProto.GRAPH and not packed:
                yield from graphs_of(attribute.g, outermost=False)


def changes(model: ModelProto) -> Iterator[Change]:
    """Yield every kind of change at every place, but of what only the packed layout reads."""
    graphs = list(graphs_of(model.graph))
    defaults = {each.name for each in model.graph.input}
    read = {name for graph in graphs for node in graph.node for name in node.input} - defaults
    for graph in graphs:
        yield from changes_of_order(graph)
        for node in graph.node:
            yield from changes_of_node(graph, node)
        for tensor in graph.initializer:
            if tensor.name in read:
                yield from changes_of_tensor(tensor)
    for opset in model.opset_import:
        yield Change(f"opset {opset.domain}", partial(setattr, opset, "version", opset.version + 1))


def changes_of_order(graph: GraphProto) -> Iterator[Change]:
    def swap(place: int) -> None:
        nodes = list(graph.node)
        nodes[place], nodes[place + 1] = nodes[place + 1], nodes[place]
        del graph.node[:]
        graph.node.extend(nodes)

    for place, node in enumerate(graph.node):
        yield Change(f"without {node.op_type} {node.output[0]}", partial(graph.node.pop, place))
        twice = helper.make_node("Neg", [node.output[0]], [f"{node.output[0]}.more"])
        yield Change(f"more after {node.output[0]}", partial(graph.node.insert, place + 1, twice))
        if place + 1 < len(graph.node):
            yield Change(f"{node.output[0]} after the next", partial(swap, place))
    for output in graph.output:
        for node in graph.node:
            other = node.output[0]
            if other != output.name:
                yield Change(f"{other} for a result", partial(setattr, output, "name", other))


def changes_of_node(graph: GraphProto, node: NodeProto) -> Iterator[Change]:
    name = node.output[0]
    tensors = [*(each.name for each in graph.initializer), *(each.output[0] for each in graph.node)]
    generator = random.Random(name)
    yield Change(f"domain of {name}", partial(setattr, node, "domain", "elsewhere"))
    for kind in ("Abs", "Relu", "Tanh"):
        yield Change(f"{kind} for {name}", partial(setattr, node, "op_type", kind))
    for place, read in enumerate(node.input):
        others = [each for each in (*node.input, *tensors, "") if each not in (read, name)]
        for other in generator.sample(others, min(3, len(others))):
            yield Change(
                f"{other or 'nothing'} for {read} in {name}",
                partial(node.input.__setitem__, place, other),
            )
        yield Change(f"{name} without {read}", partial(node.input.pop, place))
    yield Change(f"{name} reads more", partial(node.input.append, node.input[0]))
    yield Change(
        f"{name} has another attribute",
        partial(node.attribute.append, helper.make_attribute("k", 1)),
    )
    for attribute in node.attribute:
        if attribute.type != AttributeProto.GRAPH:
            yield from changes_of_attribute(node, attribute)


def changes_of_attribute(node: NodeProto, attribute: AttributeProto) -> Iterator[Change]:
    name = f"{attribute.name} of {node.output[0]}"
    yield Change(f"without {name}", partial(node.attribute.remove, attribute))
    others: dict[int, list[object]] = {
        AttributeProto.FLOAT: [attribute.f * 2, 0.5, -1.0, "text", 1],
        AttributeProto.INT: [attribute.i + 1, attribute.i - 1, 0, -attribute.i, 2.5, "text"],
        AttributeProto.STRING: ["tanh", "other", 1],
        AttributeProto.INTS: [list(attribute.ints)[::-1], [0], 1],
    }
    for value in others[attribute.type]:
        made = helper.make_attribute(attribute.name, value)
        if made != attribute:
            yield Change(f"{name} is {value}", partial(attribute.CopyFrom, made))


def changes_of_tensor(tensor: onnx.TensorProto) -> Iterator[Change]:
    array = numpy_helper.to_array(tensor)
    small = array.astype(np.float64)
    others = {
        "doubled": (2 * small).astype(array.dtype),
        "one more": (small + 1).astype(array.dtype),
        "negative": (-small).astype(array.dtype),
        "zero": np.zeros_like(array),
        "of one number": array.reshape(-1)[:1],
        "of another shape": array.reshape(1, *array.shape),
        "shorter": array[:-1] if array.ndim and len(array) > 1 else array.reshape(1, 1),
        "of another type": array.astype(np.int32 if array.dtype != np.int32 else np.int8),
        "signed": array.astype(np.int8 if array.dtype == np.uint8 else np.uint8),
    }
    for what, other in others.items():
        made = numpy_helper.from_array(np.ascontiguousarray(other), tensor.name)
        if made != tensor:
            yield Change(f"{tensor.name} is {what}", partial(tensor.CopyFrom, made))


def texts(vocabulary: int, longest: int) -> list[Ids]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, vocabulary, size) for size in (1, 7, longest)]


def check(content: bytes, folder: Path, ids: list[Ids], what: str) -> bool:
    """Return whether the kernels refuse a graph; one that they take they must compute as ONNX Runtime does."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    try:
        plan = plan_of(read_graph(path))
    except NotReadable:
        return True
    network = Network(plan, open_library())
    try:
        session = SessionEncoder(str(path), Packing(1, 1))
        expected = [session.encode([each]) for each in ids]
    except Exception as error:
        # ONNX Runtime's errors have no common class. What it refuses the kernels must not compute.
        pytest.fail(f"{what}: taken, and ONNX Runtime says {str(error)[:200]}")
    for text, vectors in zip(ids, expected, strict=True):
        found = KernelEncoder(network, 512).encode([text])
        if not np.isfinite(vectors).all():
            continue
        norm = np.linalg.norm(vectors)
        if norm < 1e-6:
            assert np.linalg.norm(found) < 1e-3, what
            continue
        assert row_cosines(found, vectors).min() > ALIKE, what
        assert np.linalg.norm(found) == pytest.approx(norm, rel=0.05), what
    return False


def check_all(path: Path, folder: Path, ids: list[Ids], every: int = 1) -> tuple[int, int]:
    """Return how many changes were refused, and how many computed alike; `every`: one in so many is made."""
    try:
        open_library()
    except NoKernels as error:
        pytest.skip(f"the kernels: {error}")
    original = onnx.load(path).SerializeToString()
    assert not check(original, folder, ids, "the graph itself")
    total = sum(1 for _ in changes(onnx.load_from_string(original)))
    refused = 0
    for place in range(0, total, every):
        model = onnx.load_from_string(original)
        change = next(each for at, each in enumerate(changes(model)) if at == place)
        change.make()
        refused += check(model.SerializeToString(), folder, ids, change.what)
    made = len(range(0, total, every))
    return refused, made - refused


@pytest.mark.parametrize("fixture", ["cls_artifact", "mean_artifact"])
def test_changed_graph_is_refused_or_computed_alike(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(fixture) / MODEL_FILE
    longest = 140 if fixture == "cls_artifact" else 40
    refused, alike = check_all(path, tmp_path, texts(100, longest), every=23)
    # Scales, biases and weights of other values are another network, which is computed.
    assert refused > alike > 0


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["cls_artifact", "mean_artifact"])
def test_every_changed_graph_is_refused_or_computed_alike(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(fixture) / MODEL_FILE
    longest = 140 if fixture == "cls_artifact" else 40
    refused, alike = check_all(path, tmp_path, texts(100, longest))
    assert refused > alike > 0


@pytest.mark.slow
def test_changed_shipped_graph_is_refused_or_computed_alike(
    shipped_artifact: Path, tmp_path: Path
) -> None:
    check_all(shipped_artifact / MODEL_FILE, tmp_path, texts(20_000, 140), every=97)


def test_plan_has_the_parts_of_the_graph(cls_artifact: Path, mean_artifact: Path) -> None:
    plan = plan_of(read_graph(cls_artifact / MODEL_FILE))
    assert [isinstance(layer.qkv, FirstRows) for layer in plan.layers] == [False, False, True]
    assert (plan.heads, plan.long_from, plan.normalised) == (2, 128, True)
    assert all(layer.steps is not None for layer in plan.layers[:-1])
    # Each norm but the last one writes bytes, where a layer of all rows or a product follows.
    reads = [plan.embedded.read, *(layer.after_feed.read for layer in plan.layers)]
    assert [read is not None for read in reads] == [True, True, False, False]
    assert all(layer.after_attention.read is not None for layer in plan.layers)
    plan = plan_of(read_graph(mean_artifact / MODEL_FILE))
    assert (plan.heads, plan.normalised) == (1, False)
    assert not any(isinstance(layer.qkv, FirstRows) for layer in plan.layers)


def test_graph_whose_texts_of_one_length_are_packed_is_refused(
    cls_artifact: Path, tmp_path: Path
) -> None:
    model = onnx.load(cls_artifact / MODEL_FILE)
    (groups,) = (each for each in model.graph.initializer if each.name == GROUP_TEXTS)
    groups.CopyFrom(numpy_helper.from_array(np.ones(8, np.int64), GROUP_TEXTS))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(NotReadable, match="rectangle"):
        plan_of(read_graph(tmp_path / "model.onnx"))


def test_every_number_of_the_plan_is_finite(cls_artifact: Path) -> None:
    plan = plan_of(read_graph(cls_artifact / MODEL_FILE))
    for layer in plan.layers:
        for linear in (layer.out, layer.up):
            assert np.isfinite(linear.scale).all() and np.isfinite(linear.bias).all()
            assert linear.weight.dtype == np.int8
