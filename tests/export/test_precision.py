"""The precisions beside int8: activations scaled by row, 16-bit weights, and the first that agrees."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.errors import DisagreesWithCheckpoint, UnsupportedModel
from export.families.linears import FloatLinear, Int8Linear
from export.onnx_file import serialize
from export.pipeline import export
from export.quantisation import half, quantise
from export.quantisation.half import STORED, halve
from export.quantisation.quantise import quantize, sites_by_row
from export.quantisation.ranges import Rows, search
from export.settings import Settings
from export.source.tensors import FloatArray
from export.verification import trade
from export.verification.verify import Thresholds
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.manifest import MODEL_FILE, Agreement, read_manifest
from server.inference.model import Model
from server.messages.terminal import Terminal
from tests.support.encoders import SHAPES, float_encoder, one_by_one, token_ids, toy_network
from tests.support.exports import change, toy_settings
from tests.support.toys import toy_texts


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale every activation by row, also those that gain nothing by it."""
    monkeypatch.setattr(quantise, "BY_ROW_LEAVES", np.inf)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return toy_settings(tmp_path)


def row_encoder(checkpoint: Any) -> SessionEncoder:
    """Return an int8 encoder that scales every activation by row."""
    network = checkpoint.network()
    linears = quantize(
        network,
        token_ids(checkpoint, toy_texts(30)),
        weight_bits=8,
        threads=1,
        by_row=sites_by_row(network),
    ).linears
    graph = serialize(network.whole(linears, int8_embeddings=True))
    return SessionEncoder(graph.model, network.packing(linears))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES.keys())
def test_vectors_of_activations_scaled_by_row_are_close_to_float32(
    options: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, **options)
    texts = token_ids(checkpoint, toy_texts(40, seed=5))
    cosines = row_cosines(
        one_by_one(float_encoder(checkpoint), texts), one_by_one(row_encoder(checkpoint), texts)
    )
    assert cosines.mean() > 0.9995
    assert cosines.min() > 0.98


def test_only_activations_that_gain_by_it_are_scaled_by_row(tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path, pooling="mean")
    network = checkpoint.network()
    texts = token_ids(checkpoint, toy_texts(30))
    everywhere = sites_by_row(network)
    quantized = quantize(network, texts, weight_bits=8, threads=1, by_row=everywhere)
    scaled = {
        name
        for name, linear in quantized.linears.items()
        if isinstance(linear, Int8Linear) and linear.input.by_row
    }
    # What a layer norm gives has rows of one size.
    assert not {name for name in scaled if "intermediate" in name or "self" in name}
    plain = quantize(network, texts, weight_bits=8, threads=1)
    errors = {site.site: site.relative_error for site in plain.report}
    for site in quantized.report:
        if site.site in scaled:
            assert site.relative_error < 0.6 * errors[site.site]


def test_rows_with_a_lower_bound_use_all_of_the_range() -> None:
    random = np.random.default_rng(3)
    # As after a Gelu: a few tokens are much larger than the others, and nothing is far below zero.
    x = np.maximum(random.normal(size=(400, 64)), -0.17).astype(np.float32)
    x[::50] *= 40
    linears = [
        FloatLinear(random.normal(size=(64, 32)).astype(np.float32), np.zeros(32, np.float32))
    ]
    rows = Rows(x, x.min(axis=0), x.max(axis=0))
    plain = search(rows, linears, 127, must_save=0.0)
    choice = search(rows, linears, 127, must_save=0.0, by_row=True)
    assert choice.quantizer.by_row
    assert choice.quantizer.zero_point == 0
    assert choice.quantizer.floor == pytest.approx(x.min() / choice.divisor.max(), rel=0.9)
    small = np.delete(np.arange(400), np.s_[::50])
    errors = [np.abs(each.restored(x) * each.divisor - x)[small].max() for each in (plain, choice)]
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_vector_of_activations_scaled_by_row_does_not_depend_on_its_neighbours(
    pooling: str, tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, pooling=pooling)
    encoder = row_encoder(checkpoint)
    lengths = [3, 3, 17, 17, 17, 40, 5, 64, 30, 2]
    stream = np.concatenate(token_ids(checkpoint, toy_texts(40, seed=7)))
    texts = [stream[index : index + length] for index, length in enumerate(lengths)]
    assert np.abs(encoder.encode(texts) - one_by_one(encoder, texts)).max() < 1e-5


def test_16_bit_weights_are_half_the_size_and_the_same_vectors(settings: Settings) -> None:
    exact = export(change(settings, precision="fp32"))
    halved = export(change(settings, precision="fp16"))
    manifest = read_manifest(halved)
    assert (halved.name, manifest.precision, manifest.quantization) == ("onnx-fp16", "fp16", None)
    assert manifest.agreement.minimum > 0.99999
    stored = {each.name: each for each in onnx.load(halved / MODEL_FILE).graph.initializer}
    large = [each for each in stored.values() if np.prod(each.dims) >= 1024]
    assert large
    assert {each.data_type for each in large} == {TensorProto.FLOAT16}
    found, expected = (Model(folder).embed(["墨池 search", "天地"]) for folder in (halved, exact))
    assert np.abs(found - expected).max() < 1e-3


def test_table_of_words_stays_in_16_bits_when_the_graph_runs(tmp_path: Path) -> None:
    network = toy_network(tmp_path, hidden=64).network()
    model = halve(network.whole(network.float_linears(), int8_embeddings=False))
    table = "embeddings.words.float" + STORED
    nodes = [node for graph in half._graphs(model.graph) for node in graph.node]
    readers = [node.op_type for node in nodes if table in node.input]
    # Both in the graph of rectangles and in that of packed batches.
    assert readers == ["Gather", "Gather"]


def test_weight_beyond_16_bits_is_refused_by_name() -> None:
    large: FloatArray = np.full(1024, 1e6, np.float32)
    graph = onnx.helper.make_graph(
        [], "large", [], [], [onnx.numpy_helper.from_array(large, "wild")]
    )
    with pytest.raises(UnsupportedModel, match="wild has a weight of 1e\\+06"):
        halve(onnx.helper.make_model(graph))


@pytest.mark.parametrize(
    ("needed", "taken"), [(0.9, "int8"), (0.99999, "fp16")], ids=["low", "high"]
)
def test_auto_takes_the_first_precision_that_agrees_and_shows_what_each_gives(
    needed: float, taken: str, settings: Settings
) -> None:
    said = io.StringIO()
    thresholds = Thresholds(mean=needed, minimum=min(needed, 0.999))
    folder = export(
        change(settings, precision="auto", thresholds=thresholds),
        Terminal("en", said, io.StringIO()),
    )
    assert folder.name == "onnx-auto"
    assert read_manifest(folder).precision == taken
    printed = said.getvalue().splitlines()[:-1]
    table, plot = (
        printed[: printed.index("size in MB")],
        printed[printed.index("size in MB") :],
    )
    assert [line.split()[0] for line in table][-1] == taken
    assert [line.split()[-1] for line in table] == ["refused"] * (len(table) - 1) + ["taken"]
    assert all(
        "times as fast as float32; mean 0.99" in line or "mean 1.0" in line for line in table
    )
    assert len(table) == (1 if taken == "int8" else 3)
    assert len(plot) == 3 * (1 + len(table))


def test_plot_has_bars_as_long_as_the_values() -> None:
    said = io.StringIO()
    tried = [
        trade.Trade("int8", 20.0, 4.0, Agreement(mean=0.996, minimum=0.9, texts=9), refused=True),
        trade.Trade("fp16", 40.0, 1.0, Agreement(mean=1.0, minimum=1.0, texts=9), refused=False),
    ]
    trade.show(tried, Terminal("en", said, io.StringIO()))
    size, speed, distance = (
        [line.split() for line in said.getvalue().splitlines()[i : i + 2]] for i in (3, 6, 9)
    )
    assert size == [["int8", "#" * 20, "20.0"], ["fp16", "#" * 40, "40.0"]]
    assert speed == [["int8", "#" * 40, "4.00"], ["fp16", "#" * 10, "1.00"]]
    assert distance == [["int8", "#" * 40, "0.00400"], ["fp16", "0.00000"]]


def test_export_of_one_precision_prints_no_table(settings: Settings) -> None:
    said = io.StringIO()
    export(change(settings, precision="fp16"), Terminal("en", said, io.StringIO()))
    (line,) = said.getvalue().splitlines()
    assert "cosine to float32" in line


def test_auto_that_finds_nothing_close_enough_names_the_worst_texts(settings: Settings) -> None:
    with pytest.raises(DisagreesWithCheckpoint, match="worst texts"):
        export(change(settings, precision="auto", thresholds=Thresholds(mean=1.0, minimum=1.0)))


def test_optimum_has_no_activations_scaled_by_row(settings: Settings) -> None:
    from export.build import build
    from export.source.model import locate, read_model

    asked = change(settings, precision="int8-rows", via="optimum")
    source = read_model(locate(asked), asked)
    with pytest.raises(UnsupportedModel, match="not for --via optimum"):
        build(source, [], asked, lambda _: None)


def test_constants_of_a_layer_stand_in_the_order_of_the_shipped_artifact(
    shipped_artifact: Path, tmp_path: Path
) -> None:
    # Their order is part of the file, and so of the fingerprint of every int8 artifact.
    network = toy_network(tmp_path).network()
    texts = token_ids(toy_network(tmp_path), toy_texts(20))
    linears = quantize(network, texts, weight_bits=8, threads=1).linears
    query = "encoder.layer.0.attention.self.query."
    made, shipped = (
        [each.name for each in model.graph.initializer if each.name.startswith(query)]
        for model in (
            network.whole(linears, int8_embeddings=True),
            onnx.load(shipped_artifact / MODEL_FILE),
        )
    )
    assert made == shipped
