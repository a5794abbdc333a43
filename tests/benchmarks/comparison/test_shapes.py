"""Checkpoints of any size, and the comparison of encoders on them, compute what they say."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.comparison import checkpoint, shapes
from benchmarks.comparison.environments import Failed
from benchmarks.comparison.shapes import KINDS, LIBRARY, PACKAGES, ROOT, Contender, Process, Way
from benchmarks.comparison.turns import OURS
from export.checkpoint import read_checkpoint
from export.families.bert.shape import BertShape
from server.inference.comparison import row_cosines
from server.inference.model import Model
from server.types import Vectors
from tests.support.reference_bert import ReferenceBert

SMALL = (3, 96, 6, 192)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, shipped_checkpoint: Path) -> Path:
    return checkpoint.write(tmp_path_factory.mktemp("written") / "3x96", *SMALL)


@pytest.fixture
def encoder(toy_artifact: Path, tmp_path: Path) -> Process:
    command = [sys.executable, str(LIBRARY), OURS, str(toy_artifact), "2"]
    return Process(command, {**os.environ, "PYTHONPATH": str(ROOT)}, tmp_path / "log")


def test_a_written_checkpoint_is_read_as_one_of_its_size(written: Path) -> None:
    found = read_checkpoint(written)
    shape = found.shape
    assert isinstance(shape, BertShape)
    assert (shape.layers, shape.hidden, shape.heads, shape.intermediate) == SMALL
    assert (found.settings.pooling, found.settings.normalize) == ("cls", True)
    assert found.settings.lower_case


def test_the_same_seed_writes_the_same_weights_and_another_does_not(
    written: Path, tmp_path: Path
) -> None:
    def weights(folder: Path) -> bytes:
        return (folder / "model.safetensors").read_bytes()

    again = checkpoint.write(tmp_path / "again", *SMALL)
    other = checkpoint.write(tmp_path / "other", *SMALL, seed=1)
    assert weights(again) == weights(written) != weights(other)


def test_random_weights_tell_texts_apart(written: Path) -> None:
    network = ReferenceBert(written)
    ids = np.random.default_rng(0).integers(1000, 8000, (8, 12))
    ids[:, 0] = 101
    vectors = np.asarray(network.embed(ids), np.float32)
    # With BERT's own initial weights 0.998: what is left of the texts would drown in rounding.
    assert shapes.different(vectors) < 0.97


def test_different_is_the_mean_cosine_of_all_pairs() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    assert shapes.different(vectors) == pytest.approx((0 + 0.6 + 0.8) / 3, abs=1e-3)


def test_the_encoder_answers_each_question_with_its_times_and_vectors(
    encoder: Process, toy_artifact: Path, tmp_path: Path
) -> None:
    texts = ["天地", "山水云雨", "天地日月", "大"]
    expected = Model(toy_artifact).embed(texts)
    file = tmp_path / "vectors.npy"
    try:
        for batch_tokens in (0, 8):
            encoder.ask(texts, batch_tokens, times=3, save=str(file))
            assert (
                len([seconds for seconds, work in encoder.answer() if min(seconds, work) > 0]) == 3
            )
            found: Vectors = np.load(file)
            assert row_cosines(found, expected).min() > 0.99999
    finally:
        encoder.close()


def test_a_lone_text_has_the_vector_it_has_among_others(
    encoder: Process, toy_artifact: Path, tmp_path: Path
) -> None:
    contender = Contender(OURS, [Way([encoder], 2, 256)])
    try:
        (found,) = contender.vectors(["山水"], tmp_path)
        assert min(contender.lone("山水", 3)) > 0
    finally:
        contender.close()
    assert np.allclose(found, Model(toy_artifact).embed(["山水"])[0], atol=1e-5)


def test_a_process_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, str(LIBRARY), OURS, str(tmp_path / "nothing"), "1"]
    process = Process(command, {**os.environ, "PYTHONPATH": str(ROOT)}, tmp_path / "log")
    try:
        with pytest.raises(Failed, match="nothing"):
            process.ask(["天"], 0)
            process.answer()
    finally:
        process.close()


def test_several_processes_share_a_workload_evenly(toy_artifact: Path, tmp_path: Path) -> None:
    class Told:
        def __init__(self, seconds: float) -> None:
            self.seconds, self.texts = seconds, list[str]()

        def ask(self, texts: list[str], batch_size: int) -> None:
            self.texts = texts

        def answer(self) -> list[tuple[float, float]]:
            return [(self.seconds, 0.5)]

    first, second = Told(1.0), Told(2.0)
    way = Way([first, second], 1, 8)  # type: ignore[list-item]
    assert way.took(["a", "bbbb", "cc", "ddd"]) == (2.0, 1.0)
    assert (first.texts, second.texts) == (["bbbb", "cc"], ["ddd", "a"])


def test_the_ratios_are_those_of_the_medians() -> None:
    ours = [(1.0, 4.0), (2.0, 4.0), (9.0, 4.0)]
    lines = dict(shapes.summary({OURS: ours, "x": [(3.0, 6.0), (3.0, 6.0), (4.0, 8.0)]}))
    assert (lines[OURS]["ours_to_it"], lines[OURS]["cpu_ratio"]) == (1, 1)
    assert (lines["x"]["ours_to_it"], lines["x"]["cpu_ratio"]) == (1.5, 1.5)


def test_some_texts_are_taken_from_all_over_the_list() -> None:
    texts = [f"{number:010}" for number in range(100)]
    found = shapes.some(texts, 100)
    assert len(found) == 10 and found[-1] == texts[90]
    assert shapes.some(texts, 10_000) == texts


def test_the_setting_of_a_way_says_processes_threads_batch_and_numbers() -> None:
    assert set(KINDS) == {OURS, *PACKAGES}
    way = Way([None, None], 1, 8)  # type: ignore[list-item]
    expected = "2 processes of 1 threads, batches to 8 texts, dynamic int8"
    assert way.setting(*KINDS["onnx"]) == expected
