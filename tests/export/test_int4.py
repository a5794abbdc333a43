"""4-bit weights of decoders: the numbers, the graph, and that an export writes them only if they are asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto

from export.checkpoint import read_checkpoint
from export.errors import UnsupportedModel
from export.families.linears import FloatLinear, LinearWriter, NibbleLinear, Site
from export.graph import GraphWriter
from export.pipeline import export
from export.quantisation import int4, rowwise
from export.settings import Settings
from export.verification.verify import DEFAULTS, Thresholds
from server.inference.comparison import row_cosines
from server.inference.manifest import read_manifest
from server.inference.model import Model
from server.inference.runtime import open_session
from tests.support.decoder_toys import write_decoder
from tests.support.encoders import random_ids, toy_network
from tests.support.reference_decoder import ReferenceDecoder
from tests.support.toys import toy_texts, write_toy_texts

Array = npt.NDArray[np.float32]
SHAPES = [(64, 48), (72, 5), (7, 3), (160, 600)]


def numbers(packed: npt.NDArray[np.uint8]) -> Array:
    """Return numbers of 4 bits, two of which are in a byte."""
    both = np.stack([packed & 15, packed >> 4], axis=-1)
    return both.reshape(*packed.shape[:-1], -1).astype(np.float32)


def restored(linear: NibbleLinear) -> Array:
    """Return the weights that 4 bits stand for, (K, N)."""
    zero = numbers(linear.zero_point)[:, : linear.scale.shape[1], None]
    whole = (numbers(linear.weight) - zero) * linear.scale[..., None]
    return whole.reshape(len(whole), -1)[:, : linear.inputs].T


def made(shape: tuple[int, int], seed: int = 0) -> tuple[FloatLinear, NibbleLinear]:
    random = np.random.default_rng(seed)
    weight = random.standard_normal(shape).astype(np.float32)
    weight[:, 0] = 0
    bias = random.standard_normal(shape[1]).astype(np.float32)
    return FloatLinear(weight, bias), int4._nibbles(weight, bias)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_are_closer_than_rounding_to_the_nearest(shape: tuple[int, int]) -> None:
    exact, linear = made(shape)
    found = restored(linear)
    assert found.shape == shape and not found[:, 0].any()
    nearest = np.zeros_like(exact.weight)
    for begin in range(0, shape[0], 32):
        block = exact.weight[begin : begin + 32]
        step = np.abs(block).max(axis=0) / 7
        step[step == 0] = 1
        nearest[begin : begin + 32] = np.rint(block / step) * step
    error, of_nearest = (np.square(each - exact.weight).sum() for each in (found, nearest))
    assert error < 0.8 * of_nearest


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_graph_computes_with_these_weights(shape: tuple[int, int]) -> None:
    _, linear = made(shape)
    graph = GraphWriter()
    graph.input("x", TensorProto.FLOAT, ["rows", shape[0]])
    writer = LinearWriter(graph, {"linear": linear})
    writer.read_and_apply("x", Site("x", ("linear",)))
    model = graph.model("linear", {"linear": ["rows", shape[1]]})
    session = open_session(model.SerializeToString(), 1)
    rows = np.random.default_rng(1).standard_normal((5, shape[0])).astype(np.float32)
    (found,) = session.run(None, {"x": rows})
    expected = rows @ restored(linear) + linear.bias
    # What is left is the rounding of the activation to 8 bits.
    assert np.abs(found - expected).max() < 0.03 * np.abs(rows).max() * np.sqrt(shape[0])
    alone = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    assert np.allclose(found, alone, atol=1e-4)


def test_an_artifact_in_4_bits_is_written_for_a_lower_bar_only(tmp_path: Path) -> None:
    folder = write_decoder(
        tmp_path / "qwen3",
        max_tokens=64,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
    )
    settings = Settings(
        source=str(folder),
        precision="int4",
        calibration=write_toy_texts(tmp_path / "calibration.txt", 20),
        verify_texts=write_toy_texts(tmp_path / "verification.txt", 12, seed=1),
        thresholds=Thresholds(mean=0.9, minimum=0.8),
    )
    artifact = export(settings)
    manifest = read_manifest(artifact)
    assert manifest.precision == "int4" and artifact.name == "onnx-int4"
    assert manifest.quantization is not None and manifest.quantization.recipe == int4.RECIPE
    # By the default bar it is refused.
    assert 0.95 < manifest.agreement.mean < DEFAULTS["dense"].mean
    model = Model(artifact)
    texts = toy_texts(6, seed=9)
    reference = ReferenceDecoder(folder)
    ids = model.tokenizer.encode(texts).ids
    expected = np.concatenate([reference.embed(row[None]) for row in ids]).astype(np.float32)
    assert row_cosines(model.embed(texts), expected).min() > 0.93


def test_layers_in_4_bits_are_not_quantised_to_8_bits_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = read_checkpoint(write_decoder(tmp_path / "qwen3"))
    network, texts = checkpoint.network(), random_ids(3, 20, 0, checkpoint.shape.vocabulary)
    quantized: list[Site] = []
    quantize_site = rowwise._quantize_site

    def recorded(*arguments: Any) -> None:
        quantized.append(arguments[2])
        quantize_site(*arguments)

    monkeypatch.setattr(rowwise, "_quantize_site", recorded)
    done = int4.quantize(network, texts, weight_bits=8, threads=1)
    assert done.keys() == network.float_linears().keys()
    assert len(quantized) == 2 * len(network.layers)
    assert not any(site.feed_forward for site in quantized)


def test_other_families_have_no_4_bit_weights(tmp_path: Path) -> None:
    network = toy_network(tmp_path).network()
    assert not int4.fits(network)
    with pytest.raises(UnsupportedModel, match="int4 is written for decoders only"):
        int4.quantize(network, [], weight_bits=8, threads=1)
