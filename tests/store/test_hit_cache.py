"""The cache of hits is bounded, and never gives another version of a document."""

from server.store.hit_cache import HitCache
from server.store.records import Chunk, Span


def chunk(id: str, text: str) -> Chunk:
    return Chunk(id, text, None, {}, Span(0, len(text)), True)


def test_what_is_kept_is_known_and_nothing_else() -> None:
    cache = HitCache()
    cache.keep({1: chunk("a", "甲"), 2: chunk("b", "乙")})
    assert cache.known([1, 3]) == {1: chunk("a", "甲")}


def test_the_oldest_go_when_there_are_too_many_characters() -> None:
    cache = HitCache(max_characters=10)
    for label in range(5):
        cache.keep({label: chunk(str(label), "甲乙丙")})
        cache.keep({label: chunk(str(label), "甲乙丙")})
    assert list(cache.known(range(5))) == [2, 3, 4]
    cache.keep({9: chunk("long", "甲" * 11)})
    assert cache.known(range(10)) == {}
    cache.keep({5: chunk("5", "甲")})
    assert list(cache.known(range(10))) == [5]
