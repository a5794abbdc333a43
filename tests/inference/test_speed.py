"""The speed of a model: measured with a clock that is an argument, then followed."""

from collections.abc import Sequence

import numpy as np
import pytest

from server.inference.speed import (
    ENOUGH_S,
    MEASURED_TOKENS,
    RUNS,
    SMOOTHING,
    Speed,
    measured_rate,
)
from server.types import Ids, Vectors
from tests.support.fakes import Echo

SAMPLE = [np.arange(5, dtype=np.int64), np.arange(7, dtype=np.int64)]


class Timed(Echo):
    """Each batch takes the next of `seconds` on its own clock."""

    def __init__(self, *seconds: float) -> None:
        self.now = 0.0
        self.lengths: list[int] = []
        self._seconds = list(seconds)

    def clock(self) -> float:
        return self.now

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        self.lengths += map(len, texts)
        self.now += self._seconds.pop(0)
        return super().encode(texts)


def test_fastest_of_a_few_runs_counts() -> None:
    encoder = Timed(0.004, 0.002, 0.009, 0.003, 0.002)
    assert measured_rate(encoder, SAMPLE, 512, encoder.clock) == pytest.approx(64 / 0.002)
    assert encoder.lengths == [MEASURED_TOKENS] * RUNS


def test_large_model_runs_once() -> None:
    encoder = Timed(0.4, 0.1)
    assert measured_rate(encoder, SAMPLE, 512, encoder.clock) == pytest.approx(64 / 0.4)
    assert len(encoder.lengths) == 1


def test_measuring_takes_no_longer_than_is_enough() -> None:
    step = ENOUGH_S / 2.5
    encoder = Timed(*[step] * RUNS)
    measured_rate(encoder, SAMPLE, 512, encoder.clock)
    assert len(encoder.lengths) == 3


def test_process_that_is_stopped_before_the_first_run_measures_all_the_same() -> None:
    encoder = Timed(0.002, 0.002, 0.002, 0.002, 0.002)
    moments = iter([0.0, 10.0])

    def clock() -> float:
        encoder.now = max(encoder.now, next(moments, 0.0))
        return encoder.now

    assert measured_rate(encoder, SAMPLE, 512, clock) == pytest.approx(64 / 0.002)


def test_text_is_no_longer_than_the_model_reads() -> None:
    encoder = Timed(*[0.001] * RUNS)
    assert measured_rate(encoder, SAMPLE, 16, encoder.clock) == pytest.approx(16_000)
    assert set(encoder.lengths) == {16}


def test_rate_follows_what_is_observed_and_one_delay_moves_it_little() -> None:
    speed = Speed(1000.0)
    speed.observe(10, 3600.0)
    assert speed.rate > 1000.0 * (1 - 1.01 * SMOOTHING)
    for _ in range(200):
        speed.observe(100, 0.01)
    assert speed.rate == pytest.approx(10_000, rel=0.01)
    assert speed.seconds(50) == pytest.approx(0.005, rel=0.01)
