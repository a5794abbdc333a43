"""Random sequences of calls leave a database as they leave a plain dictionary."""

import random
import time
from dataclasses import replace

import pytest

from server.databases.database import Entry, VectorDatabase
from server.store.filters.tree import Filter, parse
from server.store.records import Info
from tests.support.database_model import DatabaseModel
from tests.support.databases import entry, same, vector, words_of

WORDS = "apple banana cherry 苹果 香蕉 zebra".split()
STEPS, MOST_S = 60, 8.0


class Sequence:
    """Applies calls at random to a database and to the model, and compares their answers."""

    def __init__(self, database: VectorDatabase, info: Info, seed: int) -> None:
        self._database, self._info = database, info
        self._model = DatabaseModel()
        self._random = random.Random(seed)
        self._label = 1
        self._written: list[Entry] = []

    def step(self) -> None:
        draw = self._random
        act = draw.choice([self._put, self._put, self._repeat, self._delete, *[self._compare] * 3])
        act()

    def compare_all(self) -> None:
        found = self._database.entries(self._info, -1, 1_000)
        expected = self._model.entries()
        assert [each.number for each in found] == [each.number for each in expected]
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))

    def _entry(self, id: str) -> Entry:
        draw = self._random
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))
        cut = draw.randint(1, len(text))
        made = entry(
            self._label,
            id,
            text,
            {"n": draw.randint(0, 5), "tags": draw.sample(WORDS, k=draw.randint(0, 2))},
            title=draw.choice([None, "", "title"]),
            ends=sorted({cut, len(text)}),
        )
        self._label = made.rows[-1].label + draw.randint(1, 3)
        return made

    def _put(self) -> None:
        ids = self._random.sample(range(12), k=self._random.randint(1, 5))
        entries = [self._entry(f"id {at}") for at in ids]
        self._written += entries
        self._database.put(self._info, entries)
        self._model.put(entries)

    def _repeat(self) -> None:
        """Write again what was written before, as after a doubt: everything since some time, in order."""
        again = self._written[-self._random.randint(1, 6) :]
        latest = {each.document.id: each for each in again}
        self._database.put(self._info, list(latest.values()))
        self._model.put(list(latest.values()))

    def _delete(self) -> None:
        ids = [f"id {at}" for at in self._random.sample(range(14), k=3)]
        self._database.delete(self._info, ids)
        self._model.delete(ids)
        # What is written again later was acknowledged later than this.
        self._written = [each for each in self._written if each.document.id not in ids]

    def _filter(self) -> Filter | None:
        draw = self._random
        return draw.choice(
            [
                None,
                parse({"n": {"$gte": draw.randint(0, 5)}}),
                parse({"tags": draw.choice(WORDS)}),
                parse({"$or": [{"n": 1}, {"$not": {"tags": draw.choice(WORDS)}}]}),
                parse({"$id": f"id {draw.randrange(12)}"}),
            ]
        )

    def _compare(self) -> None:
        draw, database, info, model = self._random, self._database, self._info, self._model
        filter = self._filter()
        assert database.count(info, filter) == len(model.entries(filter))
        after, limit = draw.randint(-1, self._label), draw.randint(1, 8)
        expected = model.page(after, limit, filter)
        found = database.page(info, after, limit, filter)
        assert [number for number, _ in found] == [number for number, _ in expected]
        assert all(a.is_same(b) for (_, a), (_, b) in zip(found, expected, strict=True))
        query = vector(draw.randrange(1_000))
        cosines = model.cosines(query, filter)
        k = draw.randint(1, 30)
        hits = database.nearest(info, query, k, filter)
        best = sorted(cosines.values(), reverse=True)[:k]
        assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
        words = list(words_of(" ".join(draw.sample(WORDS, k=2))))
        by_words = database.by_words(info, words, 1_000, filter)
        assert {hit.label for hit in by_words} == model.labels(words, filter)
        stored = {each.document.id: each for each in model.entries()}
        ids = [f"id {at}" for at in draw.sample(range(14), k=4)]
        assert database.digests(info, ids) == {id: stored[id].digest for id in ids if id in stored}


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_calls_leaves_what_a_dictionary_has(
    database: VectorDatabase, info: Info, seed: int
) -> None:
    sequence = Sequence(database, replace(info), seed)
    end = time.monotonic() + MOST_S
    done = 0
    while done < STEPS and time.monotonic() < end:
        sequence.step()
        done += 1
    sequence.compare_all()
    assert done > 5
