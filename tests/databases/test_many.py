"""More documents than databases give or count by default."""

from server.databases.database import VectorDatabase
from server.store.filters.tree import parse
from server.store.records import Info
from tests.support.databases import Engine, entry

PER_PUT = 1_000


def test_many_documents_are_counted_listed_and_deleted_exactly(
    engine: Engine, database: VectorDatabase, info: Info
) -> None:
    given = [
        entry(at, f"id {at}", f"text {at}", {"n": at, "third": at % 3 == 0})
        for at in range(engine.many)
    ]
    for begin in range(0, len(given), PER_PUT):
        database.put(info, given[begin : begin + PER_PUT])
    assert database.count(info, None) == engine.many
    half = parse({"n": {"$gte": engine.many // 2}})
    assert database.count(info, half) == engine.many - engine.many // 2
    everything = database.page(info, -1, engine.many + 1, None)
    assert [number for number, _ in everything] == list(range(engine.many))
    thirds = database.page(info, -1, engine.many, parse({"third": True}))
    assert [number for number, _ in thirds] == list(range(0, engine.many, 3))
    k = min(1_000, engine.many // 3)
    assert len(database.nearest(info, given[0].rows[0].vector, k, half)) == k
    assert len(database.by_words(info, ["text"], k, None)) == k
    ids = [each.document.id for each in given]
    assert len(database.digests(info, ids)) == engine.many
    database.delete(info, ids[1::2])
    assert database.count(info, None) == (engine.many + 1) // 2
    rest = database.entries(info, -1, engine.many)
    assert [each.number for each in rest] == list(range(0, engine.many, 2))
