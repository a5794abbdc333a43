"""The cache of hits is bounded, and never gives another version of a document."""

import sys

from server.store.hit_cache import HitBudget, HitCache, n_bytes
from server.store.records import Chunk, Span


def chunk(id: str, text: str, **metadata: object) -> Chunk:
    return Chunk(id, text, None, metadata, Span(0, len(text)), True)


def test_what_is_kept_is_known_and_nothing_else() -> None:
    cache = HitCache()
    cache.keep({1: chunk("a", "甲"), 2: chunk("b", "乙")})
    assert cache.known([1, 3]) == {1: chunk("a", "甲")}


def test_the_oldest_go_when_they_take_too_many_bytes() -> None:
    one = n_bytes(chunk("0", "甲乙丙"))
    cache = HitCache(HitBudget(5 * one))
    for label in range(7):
        cache.keep({label: chunk(str(label), "甲乙丙")})
        cache.keep({label: chunk(str(label), "甲乙丙")})
    assert list(cache.known(range(7))) == [2, 3, 4, 5, 6]
    cache.keep({9: chunk("long", "甲" * 5 * one)})
    assert list(cache.known(range(10))) == [2, 3, 4, 5, 6], "a giant takes no one's place"


def test_titles_and_metadata_count() -> None:
    small, long = chunk("a", "甲"), "乙" * 10_000
    for large in (
        Chunk("a", "甲", long, {}, Span(0, 1), True),
        chunk("a", "甲", key=long),
        chunk("a", "甲", **{long: 1}),
        chunk("a", "甲", deep=[{"list": [long]}]),
    ):
        assert n_bytes(large) - n_bytes(small) >= sys.getsizeof(long) - sys.getsizeof("")


def test_collections_share_one_budget_and_keep_their_labels_apart() -> None:
    budget = HitBudget(5 * n_bytes(chunk("0", "甲乙丙")))
    first, second = HitCache(budget), HitCache(budget)
    first.keep({label: chunk("0", "甲乙丙") for label in range(4)})
    second.keep({label: chunk("1", "丁戊己") for label in range(3)})
    assert list(first.known(range(9))) == [2, 3]
    assert list(second.known(range(9))) == [0, 1, 2]
    assert second.known([2])[2].id == "1"
    second.clear()
    assert second.known(range(9)) == {} and len(first.known(range(9))) == 2
    first.keep({7: chunk("0", "甲乙丙"), 8: chunk("0", "甲乙丙")})
    assert list(first.known(range(9))) == [2, 3, 7, 8], "what was dropped has left room"
