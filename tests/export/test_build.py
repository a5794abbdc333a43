"""The graphs that optimum hands over become checked bytes."""

from pathlib import Path

import onnx
import pytest

from export import build as building
from export import pipeline
from export.errors import (
    UnsupportedModel,
)
from export.graph import OPSET
from export.onnx_file import OnnxFile, serialize
from export.optimum import route
from export.optimum.route import OptimumGraphs
from export.settings import Settings
from export.source.model import Place, read_model
from tests.support.toys import write_toy_checkpoint


def small_graph(operator: str = "Identity") -> onnx.ModelProto:
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x"], ["y"])], "small", values[:1], values[1:]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])


def built(graphs: OptimumGraphs, monkeypatch: pytest.MonkeyPatch, folder: Path) -> building.Graphs:
    """Build an export from `graphs`, with nothing traced."""
    monkeypatch.setattr(route, "build_with_optimum", lambda *_, **__: graphs)
    settings = Settings(str(folder), via="optimum")
    toy = write_toy_checkpoint(folder / "toy")
    source = read_model(Place(toy, toy, "toy", "local"), settings)
    assert (source.family, source.network, source.dimension) == ("optimum", None, None)
    return building.build(source, [], settings, lambda _: None)


def test_graphs_become_checked_bytes_that_are_always_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exact, served = small_graph(), small_graph("Relu")
    graphs = built(OptimumGraphs(exact, served, 1), monkeypatch, tmp_path)
    assert graphs.float_model == OnnxFile(exact.SerializeToString(deterministic=True))
    assert graphs.served_model == OnnxFile(served.SerializeToString(deterministic=True))
    assert (graphs.dimension, graphs.packing.groups) == (1, 1)


def test_float32_graph_becomes_bytes_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = small_graph()
    graphs = built(OptimumGraphs(graph, graph, 1), monkeypatch, tmp_path)
    assert graphs.served_model is graphs.float_model


def test_graph_that_is_not_valid_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graphs = OptimumGraphs(small_graph(), small_graph("NoSuchOperator"), 1)
    with pytest.raises(UnsupportedModel, match="not valid ONNX: .*NoSuchOperator") as caught:
        built(graphs, monkeypatch, tmp_path)
    assert "不是有效的 ONNX" in caught.value.chinese


def test_graph_too_large_for_the_checker_goes_on_unchecked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 10)
    graph = small_graph()
    assert serialize(graph) == OnnxFile(graph.SerializeToString(deterministic=True))


def test_size_beyond_the_traced_width_is_refused_before_verification(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = write_toy_checkpoint(tmp_path / "toy")
    graph = small_graph()
    graphs = OptimumGraphs(graph, graph, 32)
    monkeypatch.setattr(route, "build_with_optimum", lambda *_, **__: graphs)
    settings = Settings(str(folder), via="optimum", precision="fp32", matryoshka=(33,))
    with pytest.raises(UnsupportedModel, match="--matryoshka 33 is outside 1 to 32"):
        pipeline.export(settings)
    assert not (folder / "onnx-fp32").exists()
