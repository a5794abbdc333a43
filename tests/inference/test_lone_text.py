"""A text that comes alone runs on the event loop where this model is fast enough, and only there."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from server.errors import InferenceFailed
from server.inference import engine as engine_module
from server.inference.model import Model
from server.inference.speed import measured_rate
from server.telemetry.metrics import Metrics
from server.types import Ids, Vectors
from tests.support.engines import SAME, run, running
from tests.support.fakes import Broken, Echo, with_parts
from tests.support.toys import toy_texts


class Placed(Echo):
    """Notes on which thread each batch was computed."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._encoder = model.encoder
        self.threads: list[int] = []

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        self.threads.append(threading.get_ident())
        return self._encoder.encode(texts)


class Slow(Placed):
    """Sleeps 1 ms a token before it computes."""

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        time.sleep(0.001 * sum(map(len, texts)))
        return super().encode(texts)


@pytest.fixture(autouse=True)
def everything_is_fast_enough(lanes_for_everything: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every lone text run on the loop, however busy this machine is."""
    monkeypatch.setattr(engine_module, "LOOP_S", 60.0)


def test_lone_text_is_computed_on_the_loop_and_several_are_not(toy_model: Model) -> None:
    async def test() -> None:
        placed, here = Placed(toy_model), threading.get_ident()
        model = with_parts(toy_model, encoder=placed, wide=None)
        async with running(model, Metrics(), lanes=2) as engine:
            for _ in range(3):
                found = await engine.embed(["墨池"])
                np.testing.assert_allclose(found.vectors, toy_model.embed(["墨池"]), atol=SAME)
            assert placed.threads == [here] * 3
            await engine.embed(["墨池", "笔"])
            assert here not in placed.threads[3:]

    run(test)


def test_slow_model_computes_short_texts_on_the_loop_and_longer_ones_in_the_lanes(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 tokens take 4 ms and more, 62 tokens 62 ms: far from the limit on both sides.
    monkeypatch.setattr(engine_module, "LOOP_S", 0.03)

    async def test() -> None:
        slow, here = Slow(toy_model), threading.get_ident()
        model = with_parts(toy_model, encoder=slow, wide=None, rate=900.0)
        async with running(model, Metrics(), lanes=2) as engine:
            await engine.embed(["墨池"])
            assert slow.threads == [here]
            await engine.embed(["墨池" * 30])
            assert here not in slow.threads[1:]

    run(test)


def test_model_that_was_measured_to_be_slow_never_keeps_the_loop(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOOP_S", 0.003)

    async def test() -> None:
        slow = Slow(toy_model)
        rate = measured_rate(slow, toy_model.tokenizer.encode(["墨池"]).ids, 64)
        slow.threads.clear()
        model = with_parts(toy_model, encoder=slow, wide=None, rate=rate)
        async with running(model, Metrics(), lanes=1) as engine:
            for text in ["墨池", "笔", "墨池" * 20]:
                await engine.embed([text])
        assert threading.get_ident() not in slow.threads

    run(test)


def test_rate_follows_what_lone_texts_take(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that becomes slower leaves the loop by itself."""
    monkeypatch.setattr(engine_module, "LOOP_S", 0.003)

    async def test() -> None:
        slow, here = Slow(toy_model), threading.get_ident()
        # Measured while it was fast: 4 tokens would take 0.8 ms.
        model = with_parts(toy_model, encoder=slow, wide=None, rate=5000.0)
        async with running(model, Metrics(), lanes=1) as engine:
            for _ in range(60):
                await engine.embed(["墨池"])
        assert slow.threads[0] == here
        assert slow.threads[-1] != here

    run(test)


def test_company_sends_everybody_to_the_lanes_for_a_while(toy_model: Model) -> None:
    async def test() -> None:
        placed, here = Placed(toy_model), threading.get_ident()
        model = with_parts(toy_model, encoder=placed, wide=None)
        async with running(model, Metrics(), lanes=2) as engine:
            texts = toy_texts(40, longest=8, seed=31)
            found = await asyncio.gather(*(engine.embed([text]) for text in texts))
            for text, each in zip(texts, found, strict=True):
                np.testing.assert_allclose(each.vectors, toy_model.embed([text]), atol=SAME)
            assert placed.threads.count(here) == 1
            await engine.embed(["墨池"])
            assert placed.threads[-1] != here
            engine._company_until = 0.0
            await engine.embed(["墨池"])
            assert placed.threads[-1] == here

    run(test)


def test_failure_on_the_loop_is_reported_and_the_next_is_computed(
    toy_model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running(with_parts(toy_model, encoder=Broken(), wide=None), Metrics()) as engine:
            for _ in range(2):
                with pytest.raises(InferenceFailed, match="ArithmeticError"):
                    await engine.embed(["墨池"])

    run(test)
    assert len([record for record in caplog.records if record.exc_info]) == 2
