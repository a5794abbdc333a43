"""Texts to vectors through the real tokenizer, queue and lanes, with the toy model."""

import asyncio
import random
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from server.config import Config
from server.errors import (
    EmptyInput,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    ServerError,
    ShuttingDown,
    TextTooLong,
    TooManyTexts,
)
from server.inference.answers import cut
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.telemetry.metrics import Metrics
from server.types import Ids, Vectors, unit
from tests.support.engines import SAME, counter, embed, models_of, run, running
from tests.support.fakes import PATIENCE_S, Broken, Echo, Gated, eventually, with_parts
from tests.support.toys import toy_texts


def test_order_is_kept_for_2000_texts_of_random_lengths(toy_model: Model) -> None:
    texts = toy_texts(2000, longest=90, seed=11)
    embedded = embed(toy_model, texts)
    expected = toy_model.embed(texts)
    assert embedded.vectors.shape == (2000, toy_model.manifest.dimension)
    assert embedded.vectors.dtype == np.float32
    np.testing.assert_allclose(embedded.vectors, expected, atol=SAME)
    # A shuffle of equal lengths must not go unnoticed.
    assert len(np.unique(expected.round(4), axis=0)) > 1990


def test_vectors_are_independent_of_company(toy_model: Model) -> None:
    texts = toy_texts(500, seed=12)
    random.Random(0).shuffle(texts)

    async def test() -> None:
        async with running(toy_model) as engine:
            together = (await engine.embed(texts)).vectors
            crowd = await asyncio.gather(*(engine.embed([text]) for text in texts))
            alone = [(await engine.embed([text])).vectors[0] for text in texts]
        np.testing.assert_allclose(together, alone, rtol=0, atol=SAME)
        np.testing.assert_allclose(np.concatenate([one.vectors for one in crowd]), alone, atol=SAME)
        assert np.abs(together - np.roll(together, 1, axis=0)).max(axis=1).min() > 100 * SAME

    run(test)


def test_requests_at_once_get_each_its_own_answer(toy_model: Model) -> None:
    texts = toy_texts(400, seed=13)
    parts = [texts[begin : begin + 1 + begin % 23] for begin in range(0, 370, 7)]

    async def test() -> None:
        async with running(toy_model, interactive_tokens=100) as engine:
            answers = await asyncio.gather(*(engine.embed(part) for part in parts))
        for part, answer in zip(parts, answers, strict=True):
            np.testing.assert_allclose(answer.vectors, toy_model.embed(part), atol=SAME)

    run(test)


def test_vectors_have_unit_length(toy_model: Model) -> None:
    vectors = embed(toy_model, toy_texts(50)).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_tokens_are_those_of_all_texts_with_the_special_ones(toy_model: Model) -> None:
    assert embed(toy_model, ["墨池", "笔", "search"]).tokens == 4 + 3 + 3


def test_longer_texts_are_cut_reported_and_counted(toy_model: Model) -> None:
    limit = toy_model.manifest.text.max_tokens
    fits, over = "墨" * (limit - 2), "墨" * (limit - 1)
    metrics = Metrics()

    async def test() -> None:
        async with running(toy_model, metrics) as engine:
            embedded = await engine.embed([fits, over, "笔", over + over])
        assert embedded.truncated == [1, 3]
        assert embedded.tokens == 3 * limit + 3
        np.testing.assert_allclose(embedded.vectors[1], embedded.vectors[0], atol=SAME)

    run(test)
    assert counter(metrics, "truncated_texts_total") == 2
    assert counter(metrics, "texts_total") == 4
    assert counter(metrics, "tokens_total") == 3 * limit + 3


def test_truncation_is_reported_by_its_place_in_a_large_request(toy_model: Model) -> None:
    texts = toy_texts(300, longest=30)
    places = [5, 123, 299]
    for place in places:
        texts[place] = "池" * 70
    assert embed(toy_model, texts).truncated == places


def test_forbidden_truncation_names_the_text_and_the_limit(toy_model: Model) -> None:
    with pytest.raises(TextTooLong, match=r"text 1 .*\b64 tokens"):
        embed(toy_model, ["短", "长" * 63], truncate=False)
    assert embed(toy_model, ["短", "长" * 62], truncate=False).truncated == []


def test_query_gets_the_instruction_and_a_document_none(toy_model: Model) -> None:
    instruction = toy_model.manifest.text.query_instruction
    assert instruction
    document, query = embed(toy_model, ["墨池"]), embed(toy_model, ["墨池"], "query")
    spelled_out = embed(toy_model, [instruction + "墨池"])
    np.testing.assert_allclose(query.vectors, spelled_out.vectors, atol=SAME)
    assert np.abs(query.vectors - document.vectors).max() > 100 * SAME


@pytest.mark.parametrize(
    "texts, error, message",
    [
        ([], EmptyInput, "empty"),
        (["墨", ""], EmptyInput, "text 1 is empty"),
        (["墨"] * 11, TooManyTexts, "11 .* at most 10"),
        (["墨", "\ud800"], InvalidRequest, "Unicode"),
        (["墨" * 3000, "a\udfffb" * 1000], InvalidRequest, "Unicode"),
        (["\udcff"], InvalidRequest, "Unicode"),
    ],
    ids=["no texts", "empty text", "too many", "surrogate", "in a slice", "alone"],
)
def test_wrong_texts_are_refused(
    toy_model: Model, texts: list[str], error: type[ServerError], message: str
) -> None:
    async def test() -> None:
        async with running(toy_model, max_texts=10) as engine:
            with pytest.raises(error, match=message):
                await engine.embed(texts)
            assert len((await engine.embed(["墨"] * 10)).vectors) == 10

    run(test)


@pytest.mark.parametrize("text", [" ", "\n\t", "　", "\0", "\u200b", "\ufeff"])
def test_text_without_anything_to_read_still_has_a_vector(toy_model: Model, text: str) -> None:
    embedded = embed(toy_model, [text])
    assert embedded.tokens == 2
    assert np.isfinite(embedded.vectors).all()


def test_dimensions_cut_a_vector_and_give_it_unit_length_again(toy_model: Model) -> None:
    manifest = msgspec.structs.replace(toy_model.manifest, matryoshka_dimensions=[8, 16])
    model = with_parts(toy_model, manifest=manifest)
    whole = embed(model, ["墨池", "笔"]).vectors
    short = embed(model, ["墨池", "笔"], dimensions=8).vectors
    assert short.shape == (2, 8)
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    assert short.flags.c_contiguous
    np.testing.assert_array_equal(embed(model, ["墨池", "笔"], dimensions=32).vectors, whole)


@pytest.mark.parametrize("dimensions", [-1, 0, 8, 31, 33, 1 << 70])
def test_dimensions_that_the_model_was_not_trained_for_are_refused(
    toy_model: Model, dimensions: int
) -> None:
    with pytest.raises(InvalidRequest, match=rf"dimensions {dimensions} .* 32") as refusal:
        embed(toy_model, ["墨"], dimensions=dimensions)
    assert refusal.value.param == "dimensions"


def test_zero_row_stays_zero_when_scaled() -> None:
    rows = np.array([[0, 0, 5], [3, 4, 5]], dtype=np.float32)
    assert unit(rows[:, :2]).tolist() == [[0, 0], [np.float32(0.6), np.float32(0.8)]]
    assert cut(rows, None) is rows
    assert cut(rows, 3) is rows


def test_cancelled_request_is_abandoned_and_computed_no_further(toy_model: Model) -> None:
    async def test() -> None:
        gate, metrics = Gated(toy_model.encoder), Metrics()
        async with running(with_parts(toy_model, encoder=gate), metrics, lanes=1) as engine:
            task = asyncio.create_task(engine.embed(["墨池" * 20] * 500))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert counter(metrics, "abandoned_total") == 1
            gate.open()
            after = await engine.embed(["笔"])
            np.testing.assert_allclose(after.vectors, toy_model.embed(["笔"]), atol=SAME)
            queued = metrics.registry.get_sample_value
            bulk = {"kind": "bulk"}
            eventually(lambda: queued("inkwell_queue_tokens", bulk) == 0)
        budget = Config().batch_tokens
        assert gate.texts <= budget // 42 + 1
        assert counter(metrics, "texts_total") == 1

    run(test)


def test_request_cancelled_while_it_is_tokenised_is_counted_too(toy_model: Model) -> None:
    async def test() -> None:
        metrics = Metrics()
        async with running(toy_model, metrics) as engine:
            task = asyncio.create_task(engine.embed(["墨池" * 20] * 500))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert counter(metrics, "abandoned_total") == 1

    run(test)


def test_request_cancelled_while_it_is_tokenised_is_never_queued(toy_model: Model) -> None:
    async def test() -> None:
        metrics = Metrics()
        async with running(toy_model, metrics) as engine:
            task = asyncio.create_task(engine.embed(["墨池" * 20] * 500))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert counter(metrics, "batch_texts_count") == 0

    run(test)


def test_answer_that_comes_after_its_request_was_cancelled_is_dropped(toy_model: Model) -> None:
    async def test() -> None:
        gate, metrics = Gated(toy_model.encoder), Metrics()
        async with running(with_parts(toy_model, encoder=gate), metrics, lanes=1) as engine:
            task = asyncio.create_task(engine.embed(["墨池"]))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            gate.open()
            assert len((await engine.embed(["笔"])).vectors) == 1
        assert gate.texts == 2
        assert counter(metrics, "texts_total") == 1

    run(test)


def test_failed_batch_answers_all_that_wait_for_it_and_the_next_request_works(
    toy_model: Model,
) -> None:
    class FailsOnce(Broken):
        packing = toy_model.encoder.packing
        failed = threading.Event()

        def encode(self, texts: Any) -> Vectors:
            if self.failed.is_set():
                return toy_model.encoder.encode(texts)
            self.failed.set()
            return super().encode(texts)

    async def test() -> None:
        metrics = Metrics()
        async with running(with_parts(toy_model, encoder=FailsOnce()), metrics, lanes=1) as engine:
            with pytest.raises(InferenceFailed):
                await engine.embed(["墨池"] * 20)
            again = await engine.embed(["墨池"] * 20)
            np.testing.assert_allclose(again.vectors[7], toy_model.embed(["墨池"])[0], atol=SAME)
        assert counter(metrics, "failed_batches_total") == 1

    run(test)


@pytest.mark.parametrize("columns", [31, 33, 0])
def test_vectors_of_the_wrong_width_are_a_failure_and_no_answer(
    toy_model: Model, columns: int
) -> None:
    class Bent(Echo):
        def encode(self, texts: Sequence[Ids]) -> Vectors:
            return np.ones((len(texts), columns), dtype=np.float32)

    with pytest.raises(InferenceFailed, match=f"{2 * columns} numbers for 2 vectors of 32"):
        embed(with_parts(toy_model, encoder=Bent(), wide=None), ["墨池", "笔"])


def test_full_queue_refuses_at_once_and_counts_it(toy_model: Model) -> None:
    async def test() -> None:
        gate, metrics = Gated(toy_model.encoder), Metrics()
        model = with_parts(toy_model, encoder=gate)
        async with running(model, metrics, lanes=1, interactive_queue_tokens=8) as engine:
            first = asyncio.create_task(engine.embed(["墨池"]))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            waiting = [asyncio.create_task(engine.embed(["墨池"])) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded) as refusal:
                await engine.embed(["笔"])
            assert refusal.value.retry_after_s >= 1
            gate.open()
            assert len(await asyncio.gather(first, *waiting)) == 3
            with pytest.raises(RequestTooLarge):
                await engine.embed(["墨池" * 4])
        assert counter(metrics, "refused_total") == 2
        assert counter(metrics, "texts_total") == 3

    run(test)


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        async with models_of(with_parts(toy_model, encoder=gate), lanes=1) as models:
            accepted = asyncio.create_task(models.default.embed(["墨池"] * 50))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            assert models.accepting
            closing = asyncio.create_task(asyncio.to_thread(models.close))
            await asyncio.to_thread(eventually, lambda: not models.accepting)
            with pytest.raises(ShuttingDown):
                await models.default.embed(["笔"])
            gate.open()
            assert len((await accepted).vectors) == 50
            await closing

    run(test)


def test_closing_fails_what_is_left_after_the_limit(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        model = with_parts(toy_model, encoder=gate)
        async with models_of(model, lanes=1, shutdown_s=0) as models:
            waiting = asyncio.create_task(models.default.embed(toy_texts(200)))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            await asyncio.to_thread(models.close)
            with pytest.raises(ShuttingDown):
                await waiting
            gate.open()

    run(test)


def test_answers_that_come_after_the_loop_has_ended_are_dropped(toy_model: Model) -> None:
    gate = Gated(toy_model.encoder)

    async def leave() -> ModelRegistry:
        model = with_parts(toy_model, encoder=gate)
        models = ModelRegistry([model], Config(lanes=1), Metrics(), asyncio.get_running_loop())
        waiting = asyncio.create_task(models.default.embed(["墨池"]))
        await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
        assert not waiting.done()
        return models

    models = asyncio.run(leave())
    gate.open()
    models.close()
    assert gate.texts == 1


def test_single_query_overtakes_a_large_request(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        async with running(with_parts(toy_model, encoder=gate), lanes=1) as engine:
            large = asyncio.create_task(engine.embed(["墨池" * 20] * 2000))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            query = asyncio.create_task(engine.embed(["笔"], "query"))
            await asyncio.sleep(0)
            gate.open()
            await query
            assert not large.done()
            assert gate.texts < 1000
            await large

    run(test)
