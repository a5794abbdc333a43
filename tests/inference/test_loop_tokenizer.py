"""Large requests and huge texts are tokenised without keeping the loop, and no further than needed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from server.errors import (
    Overloaded,
    RequestTooLarge,
)
from server.inference.engine import Engine
from server.inference.model import Model
from server.inference.tokenization.loop_tokenizer import SLICE_CHARACTERS, LoopTokenizer
from server.inference.tokenizer import Tokenizer
from server.telemetry.metrics import Metrics
from server.types import InputType, Tokens
from tests.support.engines import SAME, counter, embed, run, running
from tests.support.fakes import PATIENCE_S, Gated, with_parts
from tests.support.toys import CHARACTERS


class Counting:
    """The model's tokenizer, which counts the texts that it is given."""

    def __init__(self, model: Model) -> None:
        self.texts = 0
        self._tokenizer = model.tokenizer

    def encode(self, texts: Sequence[str], input_type: InputType) -> Tokens:
        self.texts += len(texts)
        return self._tokenizer.encode(texts, input_type)


@asynccontextmanager
async def holding(
    model: Model, texts: list[str], metrics: Metrics, **settings: Any
) -> AsyncIterator[tuple[Engine, Counting]]:
    """An engine whose lane is held, with the tokens of `texts` in its bulk line."""
    gate, tokenizer = Gated(model.encoder), Counting(model)
    parts = with_parts(model, encoder=gate, tokenizer=tokenizer)
    async with running(parts, metrics, lanes=1, batch_tokens=1, **settings) as engine:
        # It takes one text of one batch to the gate; the rest waits.
        first = asyncio.create_task(engine.embed(["墨", *texts]))
        await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
        try:
            tokenizer.texts = 0
            yield engine, tokenizer
        finally:
            gate.open()
            await first


def test_full_queue_refuses_a_large_request_without_tokenising_it(toy_model: Model) -> None:
    async def test() -> None:
        metrics, texts = Metrics(), ["墨池" * 20] * 2000
        settings = {"bulk_queue_tokens": 2000 * 42 + 3}
        async with holding(toy_model, texts, metrics, **settings) as (engine, tokenizer):
            with pytest.raises(Overloaded, match="at least 2000 more"):
                await engine.embed(texts)
            assert tokenizer.texts == 0
        assert counter(metrics, "refused_total") == 1

    run(test)


def test_request_is_tokenised_no_further_than_the_queue_has_room(toy_model: Model) -> None:
    async def test() -> None:
        metrics, texts = Metrics(), ["墨池" * 20] * 2000
        room = 20_000
        settings = {"bulk_queue_tokens": 2000 * 42 + 3 + room}
        async with holding(toy_model, texts, metrics, **settings) as (engine, tokenizer):
            with pytest.raises(Overloaded):
                await engine.embed(texts)
            assert 0 < tokenizer.texts <= room // 42 + SLICE_CHARACTERS // 40
        assert counter(metrics, "refused_total") == 1

    run(test)


def test_request_of_more_tokens_than_fit_is_told_so_before_all_is_tokenised(
    toy_model: Model,
) -> None:
    async def test() -> None:
        tokenizer = Counting(toy_model)
        model = with_parts(toy_model, tokenizer=tokenizer)
        async with running(model, bulk_queue_tokens=10_000) as engine:
            with pytest.raises(RequestTooLarge, match="at least .* at most 10000"):
                await engine.embed(["墨池" * 20] * 2000)
        assert tokenizer.texts < 400

    run(test)


def test_large_request_lets_others_have_turns_while_it_is_tokenised(toy_model: Model) -> None:
    async def test() -> None:
        metrics, turns = Metrics(), 0
        async with running(toy_model, metrics) as engine:
            large = asyncio.create_task(engine.embed(["墨池" * 30] * 1000))
            while not counter(metrics, "tokenize_seconds_count"):
                await asyncio.sleep(0)
                turns += 1
            await large
        assert turns >= 60_000 // SLICE_CHARACTERS

    run(test)


@pytest.mark.parametrize("piece, count", [(CHARACTERS, 23_000), ("search server ", 240_000)])
def test_huge_text_is_answered_soon_and_like_its_beginning(
    toy_model: Model, piece: str, count: int
) -> None:
    started = time.process_time()
    embedded = embed(toy_model, [piece * count])
    assert time.process_time() - started < 1
    assert embedded.truncated == [0]
    np.testing.assert_allclose(
        embedded.vectors, toy_model.embed([(piece * 1000)[:1000]]), atol=SAME
    )


@pytest.mark.parametrize("text", ["a" * 10_000_000, "😀" * 2_500_000, "x" + " " * 10_000_000 + "y"])
def test_huge_text_of_almost_no_tokens_is_answered_soon(toy_model: Model, text: str) -> None:
    started = time.process_time()
    embedded = embed(toy_model, [text])
    assert time.process_time() - started < 1
    assert embedded.tokens == 3
    assert embedded.truncated == [0]


def test_long_listings_run_one_at_a_time(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    def counted(self: Any, texts: Sequence[Any], **_: Any) -> list[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1
        return [[] for _ in texts]

    monkeypatch.setattr(Tokenizer, "tokens", counted)
    monkeypatch.setattr(Tokenizer, "decode", counted)

    async def test() -> None:
        tokenizer = LoopTokenizer(toy_model.tokenizer)
        long = SLICE_CHARACTERS + 1
        await asyncio.gather(
            *(tokenizer.tokens(["墨" * long], "document", special=True) for _ in range(4)),
            *(tokenizer.decode([[5] * long], skip_special=True) for _ in range(4)),
        )

    asyncio.run(test())
    assert most == 1
