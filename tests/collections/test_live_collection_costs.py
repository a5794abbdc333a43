"""What a collection on the event loop learns about the cost of its reads, and how it divides them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.collections import live_collection as live_module
from server.collections.live_collection import LiveCollection
from server.collections.read_cost import HIT_S
from server.collections.search_turns import _queries_a_turn
from server.inference.model import Model
from server.store.filters.tree import parse
from server.store.records import Document
from server.store.search import Query
from tests.collections.test_live_collection import run


def test_long_texts_make_searches_cost_more(toy_model: Model, tmp_path: Path) -> None:
    async def test(live: LiveCollection) -> None:
        before = live.hit_time.seconds
        for seconds, number in ((1.0, 10), (0.1, 100)):
            live.hit_time.observe(seconds, number)
        assert live.hit_time.seconds == pytest.approx((before + 0.001) / 2)
        for _ in range(20):
            live.hit_time.observe(0.0, 100)
        assert live.hit_time.seconds == pytest.approx(before, rel=0.01)

    run(test, toy_model, tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        {"mode": "dense", "filter": parse({"$not": {"year": 1}})},
        {"mode": "lexical", "words": "墨池"},
        {"mode": "hybrid", "words": "墨池"},
    ],
    ids=["filter", "words", "both"],
)
def test_filters_and_words_do_not_make_other_searches_cost_more(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, Any]
) -> None:
    clock = iter(range(0, 1_000_000, 100))

    async def test(live: LiveCollection) -> None:
        await live.add([Document(str(n), "墨池") for n in range(60)])
        [vector] = await live.vectors_of(["墨"])
        before = live.hit_time.seconds
        monkeypatch.setattr(live_module, "now", lambda: next(clock))
        [found] = await live.search([Query(top_k=60, vector=vector, **query)])
        assert len(found) == 60 and live.hit_time.seconds == before
        await live.page_within(0, 60, parse({"$not": {"year": 1}}))
        assert live.hit_time.seconds == before

    run(test, toy_model, tmp_path)


def test_plain_searches_and_pages_show_what_a_text_costs(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_000_000))

    async def test(live: LiveCollection) -> None:
        await live.add([Document(str(n), "墨池") for n in range(60)])
        [vector] = await live.vectors_of(["墨"])
        assert live.hit_time.seconds == HIT_S
        # Every reading of the clock is a second later, and a thread reads it twice.
        monkeypatch.setattr(live_module, "now", lambda: next(clock))
        plain = Query("dense", 60, vector)
        await live._reads.run(0.0, lambda: live._found([plain]))
        once = HIT_S + (1 / 60 - HIT_S) / 2
        assert live.hit_time.seconds == pytest.approx(once)
        await live._reads.run(0.0, lambda: live._found([plain, plain]))
        twice = once + (1 / 120 - once) / 2
        assert live.hit_time.seconds == pytest.approx(twice)
        # A query that is not plain beside it says nothing about texts.
        words = Query("lexical", 60, words="墨池")
        await live._reads.run(0.0, lambda: live._found([plain, words]))
        assert live.hit_time.seconds == pytest.approx(twice)
        await live.page_within(0, 60, None)
        assert live.hit_time.seconds == pytest.approx(twice + (1 / 60 - twice) / 2)

    run(test, toy_model, tmp_path)


def test_long_texts_are_expected_to_cost_more_when_one_is_written_and_when_they_are_opened(
    toy_model: Model, tmp_path: Path
) -> None:
    async def write(live: LiveCollection) -> None:
        await live.add([Document("large", "墨", metadata={"notes": "x" * 3_000_000})])
        # Of the database's files only the main one counts.
        await live.read(live.collection.documents.database.shorten_log)
        assert live.hit_time.seconds == HIT_S
        await live.add([Document("small", "池")])
        assert live.hit_time.seconds > 5 * HIT_S

    async def reopen(live: LiveCollection) -> None:
        assert live.hit_time.seconds > 5 * HIT_S

    for test in (write, reopen):
        run(test, toy_model, tmp_path)


def test_a_turn_has_at_most_32_queries_and_about_2000_hits() -> None:
    def queries(*top_k: int) -> Sequence[Query]:
        return [Query("lexical", k, words="x") for k in top_k]

    for most, number in (
        (1, 32),
        (62, 32),
        (63, 31),
        (100, 20),
        (1_000, 2),
        (1_001, 1),
        (9_999, 1),
    ):
        assert _queries_a_turn(queries(1, most, 1)) == number


def test_conditions_that_are_sound_are_looked_up_once_until_something_is_written(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(live: LiveCollection) -> None:
        await live.add([Document("a", "墨", metadata={"year": 1, "name": "x"})])
        real, asked = live.collection.documents.warnings, []

        def counted(operands: Any) -> list[str]:
            asked.append([operand.key for operand in operands])
            return real(operands)

        monkeypatch.setattr(live.collection.documents, "warnings", counted)
        assert await live.warnings(None) == [] == asked
        year, both = parse({"year": 2}), parse({"year": 2, "name": "y"})
        for _ in range(2):
            assert await live.warnings(year) == []
        assert asked == [["year"]]
        for _ in range(2):
            assert await live.warnings(both) == []
        assert asked == [["year"], ["name"]], "only what is new is looked up"
        for _ in range(2):
            (said,) = await live.warnings(parse({"name": 3}))
            assert said.startswith("no value of 'name' can match")
        assert asked[2:] == [["name"], ["name"]], "a warning is looked up each time"
        await live.add([Document("b", "池", metadata={"year": "1"})])
        assert await live.warnings(year) == []
        assert asked[4:] == [["year"]]
        await live.delete(["a"])
        (said,) = await live.warnings(year)
        assert said.startswith("no value of 'year' can match")

    run(test, toy_model, tmp_path)


def test_no_more_sound_conditions_are_remembered_than_there_is_room_for(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "MOST_SOUND", 2)

    async def test(live: LiveCollection) -> None:
        await live.add([Document("a", "墨")])
        for key in "abc":
            assert await live.warnings(parse({key: 1})) == []
        assert {operand.key for operand in live._sound} == {"a", "b"}

    run(test, toy_model, tmp_path)
