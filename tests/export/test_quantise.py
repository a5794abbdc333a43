"""Int8 networks against their float32 originals, and the arithmetic they are made with."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.families.batches import GROUPS
from export.families.family import HIDDEN
from export.families.linears import BlockwiseLinear, FloatLinear, Int8Linear, Linears
from export.quantisation import quantise
from export.quantisation.quantise import Quantized, quantize
from export.quantisation.ranges import Rows, fake_quantize, quantize_columns, smoothing_divisor
from server.inference.comparison import row_cosines
from server.inference.encoder import INPUT_IDS, SessionEncoder
from server.inference.runtime import open_session
from server.types import Ids, Packing
from tests.support.encoders import (
    SHAPES,
    float_encoder,
    int8_encoder,
    one_by_one,
    token_ids,
    toy_network,
)
from tests.support.toys import toy_texts, write_toy_checkpoint

# Least cosines to float32 that a network of random weights may have. Measured 0.99972 at worst, and
# 0.990 with heads of width one; most are at 0.9999.
MEAN, MINIMUM = 0.9995, 0.98


@pytest.mark.parametrize("weight_bits", [8, 7])
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES.keys())
def test_int8_vectors_are_close_to_float32(
    options: dict[str, Any], weight_bits: int, tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, **options)
    texts = token_ids(checkpoint, toy_texts(60, seed=5))
    exact = one_by_one(float_encoder(checkpoint), texts)
    found = one_by_one(int8_encoder(checkpoint, weight_bits), texts)
    cosines = row_cosines(exact, found)
    assert cosines.mean() > MEAN
    assert cosines.min() > MINIMUM
    assert np.abs(exact - found).max() > 1e-6, "the int8 graph computes in float32"


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("weight_bits", [8, 7])
def test_int8_vector_does_not_depend_on_its_neighbours(
    pooling: str, weight_bits: int, tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, pooling=pooling)
    encoder = int8_encoder(checkpoint, weight_bits)
    lengths = [3, 3, 17, 17, 17, 40, 5, 64, 30, 2]
    stream = np.concatenate(token_ids(checkpoint, toy_texts(40, seed=7)))
    texts = [stream[index : index + length] for index, length in enumerate(lengths)]
    together = encoder.encode(texts)
    assert np.abs(together - one_by_one(encoder, texts)).max() < 1e-5
    assert np.abs(together - np.roll(together, 1, axis=0)).max() > 0.1


def test_biases_without_earlier_errors_are_taken_where_they_help_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = toy_network(tmp_path, pooling="mean")
    texts = token_ids(checkpoint, toy_texts(30))

    def biases(leaves: float) -> tuple[dict[str, Any], Quantized]:
        monkeypatch.setattr(quantise, "OWN_BIAS_LEAVES", leaves)
        done = quantize(checkpoint.network(), texts, weight_bits=8, threads=1)
        return {name: linear.bias for name, linear in done.linears.items()}, done

    (corrected, _), (own, done) = biases(-1.0), biases(np.inf)
    assert own.keys() == done.own.keys()
    for name, bias in own.items():
        np.testing.assert_array_equal(bias, done.own[name].bias)
        # They differ by the errors of the layers before: much less than a bias.
        assert 0 < np.abs(bias - corrected[name]).max() < 0.05


@pytest.mark.parametrize(("weight_bits", "limit"), [(8, 127), (7, 63)])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_weight_lies_within_its_bits_and_uses_them(
    weight_bits: int, limit: int, pooling: str, tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, pooling=pooling, intermediate=300)
    quantized = quantize(
        checkpoint.network(),
        token_ids(checkpoint, toy_texts(20)),
        weight_bits=weight_bits,
        threads=1,
    )
    assert quantized.linears.keys() == checkpoint.network().float_linears().keys()
    for name, linear in quantized.linears.items():
        assert not isinstance(linear, FloatLinear), name
        weight = np.asarray(linear.weight, dtype=np.int64)
        assert np.array_equal(weight, linear.weight)
        assert np.abs(weight).max(axis=0).min() == limit, name
        assert np.abs(weight).max() == limit, name


def test_stored_matrices_of_7_bits_lie_within_63(tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path)
    quantized = quantize(
        checkpoint.network(), token_ids(checkpoint, toy_texts(20)), weight_bits=7, threads=1
    )
    model = checkpoint.network().whole(quantized.linears, int8_embeddings=True)
    stored = {
        constant.name: numpy_helper.to_array(constant).astype(int)
        for constant in model.graph.initializer
        if constant.name.endswith(".weight")
        and constant.data_type in (TensorProto.INT8, TensorProto.UINT8)
    }
    assert stored.keys() == {f"{name}.weight" for name in checkpoint.network().float_linears()}
    for name, weight in stored.items():
        zero = 128 if name == "encoder.layer.1.output.dense.weight" else 0
        assert np.abs(weight - zero).max() == 63, name


def test_only_the_one_row_output_of_cls_pooling_is_blockwise(tmp_path: Path) -> None:
    for pooling, expected in (("cls", {"encoder.layer.1.output.dense"}), ("mean", set())):
        checkpoint = toy_network(tmp_path / pooling, pooling=pooling)
        quantized = quantize(
            checkpoint.network(), token_ids(checkpoint, toy_texts(20)), weight_bits=8, threads=1
        )
        blockwise = {
            name
            for name, linear in quantized.linears.items()
            if isinstance(linear, BlockwiseLinear)
        }
        assert blockwise == expected


@pytest.mark.parametrize(
    ("pooling", "n_texts", "parts"),
    [
        # As many texts as have all their rows sampled. Not the value projection: it is divided by
        # what the attention output is multiplied by.
        ("mean", 30, ["attention.self.query", "attention.self.key"]),
        ("mean", 30, ["attention.output.dense", "intermediate.dense", "output.dense"]),
        ("cls", 400, ["attention.output.dense", "intermediate.dense", "output.dense"]),
    ],
    ids=["mean, before attention", "mean, after it", "cls, after it"],
)
def test_mean_output_of_each_linear_layer_is_that_of_the_float_model(
    pooling: str, n_texts: int, parts: list[str], tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path, layers=1, pooling=pooling)
    texts = token_ids(checkpoint, toy_texts(n_texts))
    quantized = quantize(checkpoint.network(), texts, weight_bits=7, threads=1)
    names = [f"encoder.layer.0.{part}" for part in parts]
    exact = outputs(checkpoint, checkpoint.network().float_linears(), names, texts, int8=False)
    found = outputs(checkpoint, quantized.linears, names, texts, int8=True)
    for name in names:
        # Only the rounding of activations that is done as the graph runs is not taken off.
        error = found[name] - exact[name]
        assert np.abs(error).mean() > 1e-4, name
        assert np.abs(error.mean(axis=0)).max() < 0.3 * np.abs(error).mean(), name


def outputs(
    checkpoint: Checkpoint, linears: Linears, names: list[str], texts: list[Ids], *, int8: bool
) -> dict[str, Any]:
    """Return the tensors `names` of the first layer, with the rows of all texts together."""
    embedded, output = checkpoint.network().embeddings(int8=int8)
    session = open_session(embedded.SerializeToString(), 1)
    hidden = [session.run([output], {INPUT_IDS: ids[None]})[0] for ids in texts]
    model, _ = checkpoint.network().layer(linears, 0)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(model.SerializeToString(), 1)
    runs = [session.run(names, {HIDDEN: rows}) for rows in hidden]
    return {
        name: np.concatenate([run[index][0] for run in runs]) for index, name in enumerate(names)
    }


def test_progress_names_every_activation_once(tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path)
    seen: list[str] = []
    quantize(
        checkpoint.network(),
        token_ids(checkpoint, toy_texts(20)),
        weight_bits=8,
        threads=1,
        progress=seen.append,
    )
    after = ["attention.output.dense", "intermediate.dense", "output.dense"]
    by_head = ["attention.self", "attention.self.key", "attention.self.value"]
    assert seen == [
        *(f"encoder.layer.0.{part}" for part in ("attention.self", *after)),
        *(f"encoder.layer.1.{part}" for part in (*by_head, *after)),
    ]


def test_report_tells_what_each_search_chose(tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path, pooling="mean")
    quantized = quantize(
        checkpoint.network(), token_ids(checkpoint, toy_texts(20)), weight_bits=8, threads=1
    )
    assert len(quantized.report) == 8
    for site in quantized.report:
        assert site.low <= 0 <= site.high
        assert 0 < site.relative_error < 0.01
        assert site.alpha is None or 0.5 <= site.alpha <= 1


def test_one_wild_channel_is_smoothed(tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path, pooling="mean", layers=1)
    tensors = load_file(folder / "model.safetensors")
    # What a trained network does: one channel 60 times as large, read by small weights.
    tensors["encoder.layer.0.intermediate.dense.weight"][:, 5] /= 60
    tensors["encoder.layer.0.attention.output.LayerNorm.weight"][5] *= 60
    save_file(tensors, folder / "model.safetensors")
    checkpoint = read_checkpoint(folder)
    texts = token_ids(checkpoint, toy_texts(40))
    quantized = quantize(checkpoint.network(), texts, weight_bits=8, threads=1)
    (chosen,) = (site for site in quantized.report if site.site.endswith("intermediate.dense"))
    assert chosen.alpha is not None
    linear = quantized.linears["encoder.layer.0.intermediate.dense"]
    assert isinstance(linear, Int8Linear)
    assert linear.input.smoothing is not None
    assert linear.input.smoothing.argmax() == 5


@pytest.mark.parametrize(
    "zeroed",
    [
        "encoder.layer.0.attention.self.value",
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.intermediate.dense",
        "encoder.layer.1.output.dense",
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_of_zeros_is_quantised_like_any_other(
    zeroed: str, with_bias: bool, tmp_path: Path
) -> None:
    folder = write_toy_checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{zeroed}.weight"][:] = 0
    if not with_bias:
        tensors[f"{zeroed}.bias"][:] = 0
    save_file(tensors, folder / "model.safetensors")
    checkpoint = read_checkpoint(folder)
    texts = token_ids(checkpoint, toy_texts(20, seed=3))
    exact = one_by_one(float_encoder(checkpoint), texts)
    assert row_cosines(exact, one_by_one(int8_encoder(checkpoint), texts)).mean() > MEAN


def test_dead_relu_is_quantised_like_any_other(tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path, activation="relu", pooling="mean")
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.intermediate.dense.bias"][:] = -1000
    save_file(tensors, folder / "model.safetensors")
    checkpoint = read_checkpoint(folder)
    texts = token_ids(checkpoint, toy_texts(20, seed=3))
    exact = one_by_one(float_encoder(checkpoint), texts)
    assert row_cosines(exact, one_by_one(int8_encoder(checkpoint), texts)).mean() > MEAN


def test_quantised_network_is_the_same_each_time_and_on_any_number_of_threads(
    tmp_path: Path,
) -> None:
    checkpoint = toy_network(tmp_path)
    texts = token_ids(checkpoint, toy_texts(30))
    models = []
    for threads in (1, 1, 2):
        quantized = quantize(checkpoint.network(), texts, weight_bits=8, threads=threads)
        model = checkpoint.network().whole(quantized.linears, int8_embeddings=True)
        models.append(model.SerializeToString(deterministic=True))
    assert models[0] == models[1] == models[2]


# --- the arithmetic -------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-128 / 64, 127 / 64), (0.0, 255 / 8), (-255 / 2, 0.0)])
def test_fake_quantize_rounds_and_saturates_as_onnxruntime_does(low: float, high: float) -> None:
    scale = np.float32((high - low) / 255)
    zero_point = np.uint8(round(-low / float(scale)))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "round trip",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.array(scale), "scale"),
            numpy_helper.from_array(np.array(zero_point), "zero"),
        ],
    )
    opsets = [helper.make_opsetid("", 20)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    # Whole, half and quarter steps, so that ties are among them, to beyond both ends.
    x = (np.arange(-1100, 1100) * scale / 4).astype(np.float32)
    (expected,) = open_session(model.SerializeToString(), 1).run(None, {"x": x})
    assert np.array_equal(fake_quantize(x, low, high), expected)
    assert expected.min() == np.float32(low)
    assert expected.max() == np.float32(high)


def test_weight_columns_have_a_scale_each_and_zeros_stay_zero() -> None:
    weight = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    weight[:, 2] *= 1e-4
    weight[:, 4] = 0
    whole, scale = quantize_columns(weight, 63)
    assert np.array_equal(whole, np.rint(whole))
    assert np.abs(whole).max(axis=0).tolist() == [63, 63, 63, 63, 0, 63]
    assert (np.abs(whole * scale - weight) <= scale / 2 * 1.0001).all()


def test_smoothing_divisor_takes_the_size_off_large_channels() -> None:
    generator = np.random.default_rng(0)
    sampled = generator.standard_normal((50, 8)).astype(np.float32)
    sampled[:, 3] *= 100
    rows = Rows(sampled, sampled.min(axis=0), sampled.max(axis=0))
    weight = generator.standard_normal((8, 5)).astype(np.float32)
    divisor = smoothing_divisor(rows, weight, 0.8)
    assert divisor.argmax() == 3
    assert np.log(divisor).mean() == pytest.approx(0, abs=1e-6)
    spread = np.ptp(np.log(np.abs(sampled).max(axis=0)))
    assert np.ptp(np.log(np.abs(sampled / divisor).max(axis=0))) < spread / 2


def test_one_token_text_goes_through_an_int8_graph(tmp_path: Path) -> None:
    encoder: SessionEncoder = int8_encoder(toy_network(tmp_path))
    vector = encoder.encode([np.array([7])])
    assert encoder.packing == Packing(GROUPS, longest=64)
    assert np.isfinite(vector).all()
