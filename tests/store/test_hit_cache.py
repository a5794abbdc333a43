"""Hits that were shown lately: bounded, and never another version's."""

from server.store.hit_cache import Parts
from server.store.records import Part, Span


def part(id: str, text: str) -> Part:
    return Part(id, text, None, {}, Span(0, len(text)), True)


def test_what_is_kept_is_known_and_nothing_else() -> None:
    parts = Parts()
    parts.keep({1: part("a", "甲"), 2: part("b", "乙")})
    assert parts.known([1, 3]) == {1: part("a", "甲")}


def test_the_oldest_go_when_there_are_too_many_characters() -> None:
    parts = Parts(max_characters=10)
    for label in range(5):
        parts.keep({label: part(str(label), "甲乙丙")})
        parts.keep({label: part(str(label), "甲乙丙")})
    assert list(parts.known(range(5))) == [2, 3, 4]
    parts.keep({9: part("long", "甲" * 11)})
    assert parts.known(range(10)) == {}
    parts.keep({5: part("5", "甲")})
    assert list(parts.known(range(10))) == [5]
