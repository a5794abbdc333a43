"""Verification accepts sound results, refuses others, and names the texts at fault."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import DisagreesWithCheckpoint
from export.verification.verify import LONGEST_VERIFIED, Thresholds, _lengths, embed_each, verify
from server.inference.encoder import SessionEncoder
from server.types import Ids, Packing, VectorEncoder, Vectors
from tests.support.encoders import float_encoder, int8_encoder, one_by_one, token_ids, toy_network
from tests.support.toys import toy_texts, write_toy_checkpoint

TEXTS = toy_texts(30, seed=2)
MAX_TOKENS = 64
STRICT = Thresholds(mean=0.9999, minimum=0.9999)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return toy_network(tmp_path_factory.mktemp("verify"))


@pytest.fixture(scope="module")
def ids(toy: Checkpoint) -> list[Ids]:
    return token_ids(toy, TEXTS)


@pytest.fixture(scope="module")
def exact(toy: Checkpoint) -> SessionEncoder:
    return float_encoder(toy)


@pytest.fixture(scope="module")
def int8(toy: Checkpoint) -> SessionEncoder:
    return int8_encoder(toy)


@dataclass
class Changed:
    """An encoder that passes its texts and their vectors through `change`."""

    encoder: SessionEncoder
    change: Callable[[Sequence[Ids], Vectors], Vectors]

    @property
    def packing(self) -> Packing:
        return self.encoder.packing

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        return self.change(texts, self.encoder.encode(texts))


def run(
    exact: VectorEncoder, served: VectorEncoder, ids: list[Ids], thresholds: Thresholds
) -> None:
    verify(exact, served, TEXTS, ids, MAX_TOKENS, thresholds)


def test_same_model_agrees_entirely(exact: SessionEncoder, ids: list[Ids]) -> None:
    agreement = verify(exact, exact, TEXTS, ids, MAX_TOKENS, STRICT)
    assert agreement.mean == pytest.approx(1, abs=1e-6)
    assert agreement.minimum == pytest.approx(1, abs=1e-6)
    assert agreement.texts == len(TEXTS)


def test_agreement_is_mean_and_least_cosine(
    exact: SessionEncoder, int8: SessionEncoder, ids: list[Ids]
) -> None:
    agreement = verify(exact, int8, TEXTS, ids, MAX_TOKENS, Thresholds(0.99, 0.95))
    cosines = (one_by_one(exact, ids) * one_by_one(int8, ids)).sum(axis=1)
    assert agreement.mean == pytest.approx(cosines.mean(), abs=1e-5)
    assert agreement.minimum == pytest.approx(cosines.min(), abs=1e-5)
    assert agreement.minimum < agreement.mean < 1


def test_embed_each_gives_one_row_a_text(exact: SessionEncoder, ids: list[Ids]) -> None:
    assert np.array_equal(embed_each(exact, ids), one_by_one(exact, ids))


def test_worst_texts_are_named_worst_first_with_their_cosines(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    spoilt = {17: 0.5, 4: 0.3, 9: 0.1}

    def turn(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        changed = vectors.copy()
        for row, text in enumerate(texts):
            for index, amount in spoilt.items():
                if np.array_equal(text, ids[index]):
                    changed[row] += amount * np.roll(vectors[row], 1)
        return changed

    with pytest.raises(DisagreesWithCheckpoint) as caught:
        run(exact, Changed(exact, turn), ids, Thresholds(0.9999, 0.99))
    assert "余弦" in caught.value.chinese
    lines = caught.value.english.splitlines()
    assert "needs 0.9999" in lines[0]
    assert "--calibration" in lines[0]
    assert "--precision auto" in lines[0]
    named = [line.split(maxsplit=1) for line in lines[1:]]
    assert len(named) == 5
    for index, (_, text) in zip(spoilt, named[:3], strict=True):
        assert " ".join(TEXTS[index].split())[:40] in text
    cosines = [float(cosine) for cosine, _ in named]
    assert cosines == sorted(cosines)
    assert cosines[2] < 0.9999 < cosines[3]


def test_long_text_is_named_by_its_beginning_on_one_line(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    long = ["开头\n第二行 " + "字" * 500] * len(TEXTS)
    opposite = Changed(exact, lambda _, vectors: -vectors)
    with pytest.raises(DisagreesWithCheckpoint) as caught:
        verify(exact, opposite, long, ids, MAX_TOKENS, STRICT)
    line = caught.value.english.splitlines()[1]
    assert "开头 第二行" in line
    assert line.endswith("…'")
    assert len(line) < 90


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vector_that_is_no_direction_is_refused(
    value: float, exact: SessionEncoder, ids: list[Ids]
) -> None:
    def spoil(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        same = [np.array_equal(text, ids[3]) for text in texts]
        return np.where(np.array(same)[:, None], np.float32(value), vectors)

    with np.errstate(invalid="ignore"), pytest.raises(DisagreesWithCheckpoint, match="minimum"):
        run(exact, Changed(exact, spoil), ids, Thresholds(0.5, 0.5))


def test_vector_that_changes_in_a_batch_is_refused_and_its_text_named(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    def drift(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        return vectors + np.float32(3e-5 * (len(texts) > 1))

    with pytest.raises(DisagreesWithCheckpoint, match="3.0e-05 in a batch") as caught:
        run(exact, Changed(exact, drift), ids, STRICT)
    assert any(" ".join(text.split())[:30] in caught.value.english for text in TEXTS)
    assert "批次" in caught.value.chinese


def test_batch_that_gives_nan_is_refused(exact: SessionEncoder, ids: list[Ids]) -> None:
    """NaN is neither more nor less than a limit."""

    def spoil(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        return vectors * np.float32(np.nan if len(texts) > 1 else 1)

    with pytest.raises(DisagreesWithCheckpoint, match="changes by nan in a batch"):
        run(exact, Changed(exact, spoil), ids, STRICT)


def test_batch_that_gives_nan_for_its_last_text_is_refused(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    def spoil(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        changed = vectors.copy()
        if len(texts) > 1:
            changed[-1] = np.nan
        return changed

    with pytest.raises(DisagreesWithCheckpoint, match="changes by nan in a batch"):
        run(exact, Changed(exact, spoil), ids, STRICT)


@pytest.mark.parametrize("length", [2, 3])
def test_length_that_the_float32_model_cannot_be_compared_at_is_refused(
    length: int, exact: SessionEncoder, ids: list[Ids]
) -> None:
    def spoil(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        return vectors * np.float32(np.nan if len(texts[0]) == length else 1)

    usual = [text for text in ids if len(text) != length]
    with pytest.raises(DisagreesWithCheckpoint, match=f"at {length} tokens.* is nan"):
        verify(Changed(exact, spoil), exact, TEXTS[: len(usual)], usual, MAX_TOKENS, STRICT)


def test_texts_mixed_up_in_a_batch_are_refused(exact: SessionEncoder, ids: list[Ids]) -> None:
    swapped = Changed(exact, lambda _, vectors: np.roll(vectors, 1, axis=0))
    with pytest.raises(DisagreesWithCheckpoint, match="in a batch"):
        run(exact, swapped, ids, STRICT)


def test_text_that_stands_alone_with_its_length_is_tried_beside_others_too(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    class OneLength(Changed):
        packing = Packing(groups=1, longest=MAX_TOKENS)

    def drift(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        others = [not np.array_equal(text, texts[0]) for text in texts]
        moved = vectors.copy()
        moved[1:] += np.float32(3e-5 * any(others))
        return moved

    with pytest.raises(DisagreesWithCheckpoint, match="3.0e-05 in a batch"):
        run(exact, OneLength(exact, drift), ids, STRICT)


# Some of these are compared with float32 and some are not.
@pytest.mark.parametrize("spoilt_length", [1, 2, 3, 15, 16, 17, 40, MAX_TOKENS - 1, MAX_TOKENS])
@pytest.mark.parametrize("factor", [np.nan, np.inf, 0.0])
def test_length_that_gives_no_direction_is_refused_by_its_number(
    spoilt_length: int, factor: float, exact: SessionEncoder, ids: list[Ids]
) -> None:
    def spoil(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        return vectors * np.float32(factor if len(texts[0]) == spoilt_length else 1)

    usual = [text for text in ids if len(text) != spoilt_length]
    with pytest.raises(DisagreesWithCheckpoint, match=f"at {spoilt_length} tokens.*NaN") as caught:
        verify(exact, Changed(exact, spoil), TEXTS[: len(usual)], usual, MAX_TOKENS, STRICT)
    assert f"{spoilt_length} 个" in caught.value.chinese


def test_length_that_cannot_be_run_is_refused_by_its_number(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    def fail(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        if len(texts[0]) == 41:
            raise RuntimeError("cannot reshape")
        return vectors

    usual = [text for text in ids if len(text) != 41]
    with pytest.raises(DisagreesWithCheckpoint, match="at 41 tokens.*cannot reshape"):
        verify(exact, Changed(exact, fail), TEXTS[: len(usual)], usual, MAX_TOKENS, STRICT)


def lengths_run(exact: SessionEncoder, ids: list[Ids], max_tokens: int) -> set[int]:
    """Return the lengths that the check of lengths tries on the served encoder."""
    seen: set[int] = set()
    ended = False

    def note(texts: Sequence[Ids], vectors: Vectors) -> Vectors:
        if ended:
            seen.add(len(texts[0]))
        return vectors

    def follow(step: str) -> None:
        nonlocal ended
        ended = step == "lengths"

    verify(exact, Changed(exact, note), TEXTS, ids, max_tokens, STRICT, follow)
    return seen


@pytest.mark.parametrize("max_tokens", [3, 16, 17, MAX_TOKENS])
def test_every_length_up_to_the_maximum_is_run(
    max_tokens: int, exact: SessionEncoder, ids: list[Ids]
) -> None:
    assert lengths_run(exact, ids, max_tokens) == set(range(1, max_tokens + 1))


def test_past_many_lengths_only_some_are_run_and_the_maximum_is_one(
    exact: SessionEncoder, ids: list[Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.verification.verify.EVERY_LENGTH", 20)
    assert lengths_run(exact, ids, MAX_TOKENS) == {*range(1, 21), MAX_TOKENS}


def test_lengths_of_a_model_of_long_texts_are_few_tokens_together() -> None:
    compared, run = _lengths(8192)
    assert run[:128] == [*range(1, 129)]
    assert run[-3:] == [16 + 13 * 37, 2048, 8192]
    assert compared < set(run)
    assert sum(run) < 3 * 8192
    assert len(_lengths(512)[1]) == 512


def test_no_text_is_run_whose_attention_would_take_hours() -> None:
    assert _lengths(32_768) == _lengths(LONGEST_VERIFIED) == _lengths(8192)


def test_length_that_disagrees_is_refused_but_not_one_without_text(
    exact: SessionEncoder, ids: list[Ids]
) -> None:
    def turned(length: int) -> Changed:
        return Changed(
            exact,
            lambda texts, vectors: vectors * np.float32(-1 if len(texts[0]) == length else 1),
        )

    usual = [text for text in ids if len(text) not in (2, 3)]
    texts = TEXTS[: len(usual)]
    verify(exact, turned(2), texts, usual, MAX_TOKENS, STRICT)
    with pytest.raises(DisagreesWithCheckpoint, match="at 3 tokens the cosine.*-1.0000"):
        verify(exact, turned(3), texts, usual, MAX_TOKENS, STRICT)


def test_one_text_is_enough_to_verify(exact: SessionEncoder, ids: list[Ids]) -> None:
    assert verify(exact, exact, TEXTS[:1], ids[:1], MAX_TOKENS, STRICT).texts == 1


def test_every_step_is_reported(exact: SessionEncoder, ids: list[Ids]) -> None:
    steps: list[str] = []
    verify(exact, exact, TEXTS, ids, MAX_TOKENS, STRICT, steps.append)
    assert steps == ["agreement", "batches", "lengths"]


def test_vectors_of_any_length_may_change_in_proportion(tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path, normalize=False)
    tensors = load_file(folder / "model.safetensors")
    for name in ("weight", "bias"):
        tensors[f"encoder.layer.1.output.LayerNorm.{name}"] *= 1000
    save_file(tensors, folder / "model.safetensors")
    checkpoint = read_checkpoint(folder)
    ids = token_ids(checkpoint, TEXTS)
    served = int8_encoder(checkpoint)
    assert np.linalg.norm(one_by_one(served, ids), axis=1).min() > 1000
    agreement = verify(
        float_encoder(checkpoint), served, TEXTS, ids, MAX_TOKENS, Thresholds(0.99, 0.9)
    )
    assert agreement.mean > 0.999
