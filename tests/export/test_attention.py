"""Attention in int8 against its definition in float64, and where a graph uses it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from export.checkpoint import Checkpoint
from export.families.batches import GROUPS
from export.families.bert.attention import HEADS_AT_ONCE, LONG, LONGEST, Scales, attend_in_int8
from export.families.linears import Int8Linear
from export.graph import GraphWriter
from export.onnx_file import serialize
from export.quantisation.quantise import Quantized, quantize
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.runtime import open_session
from server.types import Packing
from tests.support.encoders import (
    int8_encoder,
    one_by_one,
    random_ids,
    token_ids,
    toy_network,
)
from tests.support.toys import toy_texts

Array = npt.NDArray[np.float32]


def scales_of(projected: tuple[Array, Array, Array]) -> Scales:
    queries, keys, values = projected
    read = (queries, keys, values - values.mean(axis=1, keepdims=True))
    return Scales(*(float(np.abs(each).max() / 127) for each in read))


def in_int8(
    projected: tuple[Array, Array, Array], heads: int, scales: Scales | None = None
) -> Array:
    """Compute the context by the graph; scales: from the largest numbers, unless given."""
    width = projected[0].shape[2] // heads
    writer = GraphWriter()
    names = [
        writer.input(name, TensorProto.FLOAT, ["texts", "tokens", heads * width])
        for name in ("queries", "keys", "values")
    ]
    scales = scales or scales_of(projected)
    output = attend_in_int8(writer, names, scales, heads, width, "context")
    model = writer.model("attention", {output: ["texts", "tokens", heads * width]})
    onnx.checker.check_model(model)
    session = open_session(model.SerializeToString(), 1)
    found: Array = session.run(None, dict(zip(names, projected, strict=True)))[0]
    return found


def exactly(projected: tuple[Array, Array, Array], heads: int) -> npt.NDArray[np.float64]:
    queries, keys, values = (
        each.astype(np.float64).reshape(*each.shape[:2], heads, -1).transpose(0, 2, 1, 3)
        for each in projected
    )
    scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(queries.shape[3])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context: npt.NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True) @ values
    return context.transpose(0, 2, 1, 3).reshape(projected[0].shape)


def random_projected(
    texts: int, tokens: int, heads: int, width: int = 16
) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(tokens + heads)
    queries, keys, values = random.standard_normal((3, texts, tokens, heads * width))
    return queries.astype(np.float32), keys.astype(np.float32), values.astype(np.float32)


def distance(found: Array, expected: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("heads", [1, HEADS_AT_ONCE, HEADS_AT_ONCE + 1, 3 * HEADS_AT_ONCE])
@pytest.mark.parametrize(("texts", "tokens"), [(1, LONG), (3, 101), (1, 512)])
def test_context_is_that_of_the_definition(texts: int, tokens: int, heads: int) -> None:
    projected = random_projected(texts, tokens, heads)
    assert distance(in_int8(projected, heads), exactly(projected, heads)) < 0.03


def test_row_spread_over_all_tokens_and_row_that_looks_at_one_are_as_exact() -> None:
    queries, keys, values = random_projected(1, 512, 1)
    for spread in (0.01, 1.0, 4.0):
        projected = (queries * np.float32(spread), keys, values)
        assert distance(in_int8(projected, 1), exactly(projected, 1)) < 0.03


def test_tail_of_weights_too_little_for_8_bits_is_not_lost() -> None:
    queries, keys, values = random_projected(1, 512, 1)
    # Every query looks at the first token; the others have 0.4 of the weight together.
    queries[:], keys[:] = 1, 0
    keys[0, 0] = np.log(0.6 / 0.4 * 511) / 4
    values += 3
    projected = (queries, keys, values)
    assert distance(in_int8(projected, 1), exactly(projected, 1)) < 0.03


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("tokens", [97, 103, 128])
def test_text_has_the_same_context_among_others(tokens: int, heads: int) -> None:
    projected = random_projected(3, tokens, heads)
    scales = scales_of(projected)
    together = in_int8(projected, heads, scales)
    for text in range(3):
        queries, keys, values = (each[text : text + 1] for each in projected)
        np.testing.assert_array_equal(
            in_int8((queries, keys, values), heads, scales), together[text : text + 1]
        )


# --- in the graph of an encoder -------------------------------------------------------------------


def long_toy(folder: Path, pooling: str = "mean", max_tokens: int = LONG + 32) -> Checkpoint:
    return toy_network(folder, pooling=pooling, max_tokens=max_tokens)


def quantized_toy(checkpoint: Checkpoint, weight_bits: int = 8) -> Quantized:
    calibration = token_ids(checkpoint, toy_texts(50))
    return quantize(checkpoint.network(), calibration, weight_bits=weight_bits, threads=1)


def scaled(quantized: Quantized) -> set[str]:
    """Return the layers whose output is read as 8-bit numbers."""
    return {
        name
        for name, linear in quantized.linears.items()
        if isinstance(linear, Int8Linear) and linear.output_scale is not None
    }


@pytest.mark.parametrize(("pooling", "layers"), [("mean", 2), ("cls", 1)])
def test_every_layer_that_computes_all_rows_has_it(
    pooling: str, layers: int, tmp_path: Path
) -> None:
    expected = {
        f"encoder.layer.{index}.attention.self.{part}"
        for index in range(layers)
        for part in ("query", "key", "value")
    }
    assert scaled(quantized_toy(long_toy(tmp_path, pooling))) == expected


def test_no_layer_has_it_with_7_bit_weights_or_short_or_huge_texts(tmp_path: Path) -> None:
    assert not scaled(quantized_toy(long_toy(tmp_path / "7 bits"), weight_bits=7))
    assert not scaled(quantized_toy(long_toy(tmp_path / "short", max_tokens=LONG - 1)))
    assert not scaled(quantized_toy(long_toy(tmp_path / "huge", max_tokens=LONGEST + 1)))


def both(checkpoint: Checkpoint) -> tuple[SessionEncoder, SessionEncoder]:
    """Return the int8 encoder, and one of the same numbers that computes all attention in float32."""
    linears = quantized_toy(checkpoint).linears
    plain = {
        name: replace(linear, output_scale=None) if isinstance(linear, Int8Linear) else linear
        for name, linear in linears.items()
    }
    found = []
    for each in (linears, plain):
        model = checkpoint.network().whole(each, int8_embeddings=True)
        found.append(SessionEncoder(serialize(model).model, checkpoint.network().packing(each)))
    return found[0], found[1]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_only_long_texts_are_computed_in_it_and_hardly_differ(pooling: str, tmp_path: Path) -> None:
    encoder, plain = both(long_toy(tmp_path, pooling))
    assert encoder.packing == Packing(GROUPS, longest=LONG - 1)
    assert plain.packing == Packing(GROUPS, longest=LONG + 32)
    for n_tokens in (LONG - 1, LONG, LONG + 32):
        texts = random_ids(4, n_tokens)
        found, expected = encoder.encode(texts), plain.encode(texts)
        assert np.array_equal(found, expected) == (n_tokens < LONG)
        assert row_cosines(found, expected).min() > 0.998


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_long_text_does_not_depend_on_its_neighbours(
    pooling: str, heads: int, tmp_path: Path
) -> None:
    encoder = int8_encoder(
        toy_network(tmp_path, pooling=pooling, heads=heads, max_tokens=LONG + 32)
    )
    for n_tokens in range(LONG, LONG + 32, 5):
        texts = random_ids(8, n_tokens)
        alone = one_by_one(encoder, texts)
        np.testing.assert_allclose(encoder.encode(texts), alone, rtol=0, atol=1e-5)


def test_float_graph_takes_any_lengths_together(tmp_path: Path) -> None:
    checkpoint = long_toy(tmp_path)
    assert checkpoint.network().packing(checkpoint.network().float_linears()).longest == LONG + 32
