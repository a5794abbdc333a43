"""Scores of pairs through the engine: the queue, the limits, and the loop that must stay free."""

import asyncio
import threading
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest

from server.errors import EmptyInput, InvalidRequest, Overloaded, TextTooLong, TooManyTexts
from server.inference.answers import Scored, Times, ranking
from server.inference.engine import pairs_with
from server.inference.manifest import PairPrompt, TextRules
from server.inference.model import Model
from server.inference.tokenization.loop_tokenizer import SLICE_CHARACTERS, LoopTokenizer
from server.inference.tokenization.pairs import Bare
from server.inference.tokenizer import Kept, Tokenizer
from server.telemetry.metrics import Metrics
from server.types import Ids, Pair, Tokens
from tests.support.engines import counter, models_of, run
from tests.support.fakes import PATIENCE_S, Gated, with_parts
from tests.support.scorers import PAIRS, expected_scores
from tests.support.toys import tokenizer


def test_scores_are_those_of_each_pair_alone_in_any_company(
    toy_model: Model, toy_scorer: Model
) -> None:
    pairs = [*PAIRS, ("墨", "池" * 100)] * 40
    rows = toy_scorer.tokenizer.encode_pairs(pairs)

    async def test() -> None:
        metrics = Metrics()
        async with models_of(toy_model, toy_scorer, metrics=metrics) as models:
            engine = models.choose("", "score").engine
            found = await engine.score(pairs)
            np.testing.assert_allclose(
                found.logits, expected_scores(list(rows.ids))[:, 0], atol=1e-6
            )
            np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-found.logits)), atol=1e-6)
            assert found.tokens == rows.count
            assert list(found.truncated) == list(range(3, 160, 4))
            for pair, logit in zip(pairs[:4], found.logits, strict=False):
                alone = await engine.score([pair])
                np.testing.assert_allclose(alone.logits, [logit], atol=1e-6)
        assert counter(metrics, "texts_total") == 164
        assert counter(metrics, "truncated_texts_total") == 41

    run(test)


def test_equal_pairs_have_equal_scores_whatever_their_batch(
    toy_model: Model, toy_scorer: Model
) -> None:
    class Imprecise:
        """Gives a text another last digit each time, as the sizes of batches do."""

        packing = toy_scorer.encoder.packing
        calls = 0

        def encode(self, texts: Sequence[Ids]) -> Any:
            self.calls += 1
            found = toy_scorer.encoder.encode(texts)
            return [each + np.float32(1e-5 * self.calls) for each in found]

    async def test() -> None:
        scorer = with_parts(toy_scorer, encoder=Imprecise(), wide=None)
        async with models_of(toy_model, scorer, lanes=1, batch_tokens=1) as models:
            found = await models.choose("", "score").engine.score([("墨", "池"), ("墨", "笔")] * 4)
            assert found.logits[0] != found.logits[1]
            assert found.logits.tolist() == found.logits[:2].tolist() * 4
            assert sorted(ranking(found.logits)[:4]) in ([0, 2, 4, 6], [1, 3, 5, 7])

    run(test)


def test_wrong_pairs_are_refused(toy_model: Model, toy_scorer: Model) -> None:
    async def test() -> None:
        async with models_of(toy_model, toy_scorer, max_texts=4) as models:
            score = models.choose("", "score").engine.score
            with pytest.raises(EmptyInput, match="list is empty"):
                await score([])
            for pair in (("", "a"), ("a", "")):
                with pytest.raises(EmptyInput, match="text 1 is empty"):
                    await score([("a", "b"), pair])
            with pytest.raises(TooManyTexts, match="at most 4"):
                await score([("a", "b")] * 5)
            with pytest.raises(TextTooLong, match="text 1 and its query .* than the 16 tokens"):
                await score([("a", "b"), ("墨", "池" * 100)], truncate=False)
            for pair in (("\ud800", "a"), ("a", "\ud800")):
                with pytest.raises(
                    InvalidRequest, match="text 1 or its query is not valid Unicode"
                ):
                    await score([("a", "b"), pair])
        with pytest.raises(EmptyInput, match="query is empty"):
            pairs_with("", ["a"])

    run(test)


def test_pairs_that_do_not_fit_are_refused_before_they_are_tokenised(
    toy_model: Model, toy_scorer: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0
    encode_pairs = Tokenizer.encode_pairs

    def counted(self: Tokenizer, pairs: Sequence[Pair], *given: object, **named: object) -> Tokens:
        nonlocal encoded
        encoded += len(pairs)
        return encode_pairs(self, pairs, *given, **named)  # type: ignore[arg-type]

    async def test() -> None:
        gate = Gated(toy_scorer.encoder)
        scorer = with_parts(toy_scorer, encoder=gate, wide=None)
        settings: dict[str, Any] = {"lanes": 1, "batch_tokens": 1, "bulk_queue_tokens": 16_000}
        async with models_of(toy_model, scorer, **settings) as models:
            engine = models.choose("", "score").engine
            first = asyncio.create_task(engine.score([("墨", "池" * 50)] * 900))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            monkeypatch.setattr(Tokenizer, "encode_pairs", counted)
            try:
                with pytest.raises(Overloaded):
                    await engine.score([("墨", "池" * 50)] * 2000)
                assert encoded == 0
                with pytest.raises(Overloaded):
                    await engine.score([("墨", "池" * 50)] * 1000)
                assert encoded < 400
            finally:
                gate.open()
                await first

    run(test)


def test_abandoned_pairs_are_not_computed(toy_model: Model, toy_scorer: Model) -> None:
    async def test() -> None:
        metrics, gate = Metrics(), Gated(toy_scorer.encoder)
        scorer = with_parts(toy_scorer, encoder=gate, wide=None)
        async with models_of(toy_model, scorer, metrics=metrics, lanes=1) as models:
            engine = models.choose("", "score").engine
            first = asyncio.create_task(engine.score([("a", "b")]))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            second = asyncio.create_task(engine.score([("a", "c")]))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            gate.open()
            await first
        assert counter(metrics, "abandoned_total") == 1

    run(test)


def test_long_query_is_read_once_and_in_a_thread(
    toy_scorer: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "墨池" * (5 * SLICE_CHARACTERS)
    pairs = [(query, "花鸟" * 10)] * 500
    # Characters of the long text that each call reads, and whether it holds up the loop.
    read: list[int] = []
    on_loop = []
    read_texts = Tokenizer._bare

    def counted(self: Tokenizer, texts: Collection[str], keep: Kept) -> dict[str, Bare]:
        if query in texts:
            on_loop.append(threading.current_thread() is threading.main_thread())
        read.append(sum(map(len, texts)))
        return read_texts(self, texts, keep)

    monkeypatch.setattr(Tokenizer, "_bare", counted)
    reading = LoopTokenizer(toy_scorer.tokenizer)
    found = asyncio.run(reading.encode_pairs(pairs, "beginning", lambda _: None))
    assert on_loop == [False]
    assert len(read) > 2 and sum(read) <= len(query) + 500 * 20
    whole = toy_scorer.tokenizer.encode_pairs(pairs[:1])
    assert all((row == whole.ids[0]).all() for row in found.ids)
    assert list(found.truncated) == list(range(500))


def test_instruction_of_a_request_is_tokenised_once(
    toy_model: Model, toy_scorer: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = PairPrompt("a", "b:", "server", " c:", " d:", "e")
    rules = TextRules(lower_case=True, max_tokens=512, pair_prompt=prompt)
    scorer = with_parts(toy_scorer, tokenizer=Tokenizer(tokenizer().to_str(), rules))
    read: list[str] = []
    read_piece = Tokenizer._read_piece

    def counted(self: Tokenizer, text: str) -> list[int]:
        read.append(text)
        return read_piece(self, text)

    async def test() -> None:
        async with models_of(toy_model, scorer) as models:
            engine = models.choose("", "score").engine
            pairs = [("墨", "池" * 100)] * (3 * SLICE_CHARACTERS // 100)
            assert (await engine.score(pairs, instruction="search")).tokens > 3 * SLICE_CHARACTERS

    monkeypatch.setattr(Tokenizer, "_read_piece", counted)
    run(test)
    assert sum("search" in text for text in read) == 1


def test_large_requests_let_others_have_turns(toy_model: Model, toy_scorer: Model) -> None:
    async def test() -> None:
        metrics, turns = Metrics(), 0
        async with models_of(toy_model, toy_scorer, metrics=metrics) as models:
            engine = models.choose("", "score").engine
            large = asyncio.create_task(engine.score([("墨池", "花鸟" * 30)] * 1000))
            while not counter(metrics, "tokenize_seconds_count"):
                await asyncio.sleep(0)
                turns += 1
            await large
        assert turns >= 60_000 // SLICE_CHARACTERS

    run(test)


def test_order_is_by_logits_also_where_the_sigmoid_no_longer_tells_them_apart() -> None:
    logits = np.array([30, 40, -200, 40, -100], np.float32)
    done = Scored(logits, "identity", 0, (), Times(0, 0, 0))
    assert done.relevance[0] == done.relevance[1] == 1
    assert done.scores is logits
    assert list(ranking(logits)) == [1, 3, 0, 4, 2]
    assert list(ranking(logits, 2)) == [1, 3]
    assert list(ranking(logits[:0])) == []
