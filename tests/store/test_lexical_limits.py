"""Limits of the search by words, each with what lies at it and one beyond."""

import time

from server.store.lexical import (
    MAX_PHRASES,
    MAX_PLACES,
    MAX_QUERY,
    MAX_TERMS,
    SHOWN,
    ask,
    highlight,
    indexed,
    terms,
)


def test_characters_of_a_query_beyond_the_limit_are_not_read() -> None:
    assert MAX_QUERY == 4_096
    assert terms("，" * (MAX_QUERY - 4) + "劳动合同") == ["劳动", "动合", "合同"]
    assert terms("，" * (MAX_QUERY - 3) + "劳动合同") == ["劳动", "动合"]
    assert highlight("劳动合同", "，" * (MAX_QUERY - 2) + "劳动合同") == [(0, 2)]


def test_identifiers_beyond_the_limit_are_asked_for_as_words() -> None:
    addresses = [f"10.20.30.{n}" for n in range(40, 50)]
    asked = ask(" ".join(addresses))
    assert [phrase.words[-1] for phrase in asked.phrases] == [str(n) for n in range(40, 48)]
    assert len(asked.phrases) == MAX_PHRASES == 8
    assert asked.words == ("10", "20", "30", "48", "49")


def test_terms_up_to_the_limit_are_all_asked_for_and_beyond_it_evenly() -> None:
    numbers = [str(n) for n in range(1000, 1128)]
    assert MAX_TERMS == 64
    assert terms(" ".join(numbers[:64])) == numbers[:64]
    assert terms(" ".join(numbers)) == numbers[::2]


def test_highlights_end_at_the_limit_of_characters() -> None:
    assert SHOWN == 20_000
    assert highlight("，" * (SHOWN - 2) + "劳动", "劳动") == [(SHOWN - 2, SHOWN)]
    assert highlight("，" * (SHOWN - 1) + "劳动", "劳动") == []


def test_highlights_end_at_the_limit_of_places_with_the_last_one_whole() -> None:
    assert MAX_PLACES == 1_000
    places = [(3 * n, 3 * n + 2) for n in range(MAX_PLACES)]
    assert highlight("劳动，" * MAX_PLACES, "劳动") == places
    assert highlight("劳动，" * (MAX_PLACES + 1), "劳动") == places
    begin, end = places[-1]
    text = "劳动，" * (MAX_PLACES - 1) + "劳动劳动，劳动"
    assert highlight(text, "劳动") == [*places[:-1], (begin, end + 2)]


def test_highlights_of_identifiers_and_words_stand_in_their_order() -> None:
    text = "劳动合同 192.168.10.1，劳动"
    assert highlight(text, "劳动 192.168.10.1") == [(0, 2), (5, 17), (18, 20)]


def test_words_between_chinese_characters_are_indexed_in_linear_time() -> None:
    def seconds(words: int) -> float:
        text = "".join(f"a{n}中" for n in range(words))
        begun = time.thread_time()
        assert indexed(text).split()[:3] == ["a0", "a0中", "中a1"]
        return time.thread_time() - begun

    # Eight times as long a text would take 64 times as long in quadratic time.
    small, large = seconds(2_000), seconds(16_000)
    assert large < 24 * small + 0.1
