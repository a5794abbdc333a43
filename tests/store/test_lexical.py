"""Words on a real FTS5 index, and highlights as a reader would mark them."""

import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.store.lexical import MAX_TERMS, SHOWN, ask, highlight, indexed, terms
from server.store.words.folding import fold
from server.store.words.ranking import COUNTED, REQUIRED, divided, frequencies, match_expression
from tests.support.words import Words, marked


@pytest.fixture(scope="module")
def any_words() -> Iterator[Words]:
    words = Words("深圳 AND AI", 'a "b" c*', "税 NEAR(法, 2) OR x", "rank: text - + ^ ( ) { }")
    yield words
    words.database.close()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("劳动合同", "用人单位应当订立书面劳动合同"),
        ("劳动", "参加劳动"),
        ("税", "个人所得税"),
        ("税", "税务机关"),
        ("税", "征税3次"),
        ("A股", "A股市场"),
        ("4月28日", "二〇〇九年4月28日"),
        ("第3条", "见第3条第2款"),
        ("gpu", "没有GPU的机器"),
        ("ISO9001", "通过ISO9001认证"),
        ("ISO 9001", "通过ISO9001认证"),
        ("ISO9001", "通过 ISO 9001 认证"),
        ("ＡＩ", "ai 时代"),
        ("AI", "ＡＩ时代"),
        ("㍿", "株式会社"),
        ("STRASSE", "Straße"),
        ("e\u0301cole", "\u00c9COLE"),
        ("がっこう", "か\u3099っこうに行く"),
        ("한국", "대한한국어"),
        ("snake_case", "a case of snake"),
        ("哪里", "这里是哪里"),
        ("x" * 100, "x" * 100),
        ("\U00020000\U00030000", "古\U00020000\U00030000字"),
    ],
)
def test_a_query_finds_a_text_that_has_its_words(query: str, text: str) -> None:
    words = Words(text, "无关 irrelevant 0")
    assert words.found(query) == [0]
    words.database.close()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("动劳", "劳动"),
        ("税", "法律"),
        ("art", "start party"),
        ("900", "ISO9001"),
        ("한국", "한 국"),
        ("", "text"),
        ("？！，_*\"'", "text"),
        ("\0\ud800\U000e0000", "\0 text"),
    ],
)
def test_a_query_does_not_find_a_text_without_its_words(query: str, text: str) -> None:
    words = Words(text)
    assert words.found(query) == []
    words.database.close()


def test_texts_with_more_and_rarer_words_of_the_query_come_first() -> None:
    words = Words(*["公司注册地址在深圳"] * 5, "深圳的劳动争议", "劳动争议仲裁", *["天气晴朗"] * 20)
    assert words.found("深圳劳动争议仲裁")[:2] == [6, 5]
    words.database.close()


def test_question_words_are_asked_for_only_where_there_is_nothing_else() -> None:
    assert terms("锣鼓经是什么？") == ["锣鼓", "鼓经", "经是"]
    assert terms("为什么要征税") == ["要征", "征税"]
    assert terms("什么") == ["什么"]
    assert terms("是什么") == ["是什", "什么"]
    assert terms("多少 4") == ["4"]


def test_a_single_character_is_asked_for_where_it_stands_alone() -> None:
    assert terms("税 减免") == ["税", "减免"]
    assert terms("税") == ["税"]
    assert terms("4月") == ["4月", "4"]


def test_a_word_beside_single_characters_that_stand_apart_is_a_pair_with_its_neighbour() -> None:
    assert {"a股", "股票"} <= set(terms("A 股 票"))
    assert "第3" in terms("第 3") and "3条" in terms("3 条")
    assert "ab" not in terms("a b")


def test_parts_of_a_hexadecimal_number_are_no_terms() -> None:
    assert terms("rtx4090ti") == ["rtx4090ti", "rtx", "4090", "ti"]
    assert terms("3f2a9c81") == ["3f2a9c81"]


def test_a_long_query_is_asked_for_evenly() -> None:
    query = " ".join(str(number) for number in range(1000, 1500))
    asked = terms(query)
    assert len(asked) == MAX_TERMS
    assert asked[0] == "1000" and int(asked[-1]) > 1480
    assert len(terms("劳动合同" * 10**6)) == 4


def expression(counts: dict[str, int], required: int = REQUIRED) -> str:
    return match_expression(*divided(counts, required))


def test_the_rarest_terms_decide_what_is_found_and_the_next_only_count() -> None:
    counts = {"规定": COUNTED, "工伤": REQUIRED - 1, "认定": 1, "应当": COUNTED + 1, "没有": 0}
    assert expression(counts) == '("认定" OR "工伤") AND ("认定" OR "工伤" OR "规定")'
    assert expression(counts, 10**6) == '"认定" OR "工伤" OR "规定" OR "应当"'
    assert expression({"应当": 10**9}) == '"应当"'
    assert expression({"税": 1}) == '"税"*'
    assert divided({"没有": 0}, REQUIRED) == divided({}, REQUIRED) == ([], [])


def test_terms_that_only_count_change_the_order_but_not_what_is_found() -> None:
    words = Words("工伤 其他", "工伤 规定", *["规定 其他"] * 4, *["无关 无关"] * 9)
    assert set(words.found("工伤 规定")) == {0, 1, 2, 3, 4, 5}
    matching = expression({"工伤": 2, "规定": 5}, required=2)
    assert matching == '("工伤") AND ("工伤" OR "规定")'
    rows = words.database.execute(
        "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank", (matching,)
    )
    assert [number for (number,) in rows] == [1, 0]
    words.database.close()


def test_as_many_terms_as_there_may_be_are_no_error() -> None:
    every = map(chr, range(0x4E00, 0x5000))
    many = [one for one in every if fold(one) == one][:MAX_TERMS]
    words = Words(" ".join(many), "规定")
    counts = dict(words.database.execute(*frequencies(many)))
    assert counts == dict.fromkeys(many, 1)
    matching = expression({**counts, "规定": REQUIRED})
    rows = words.database.execute("SELECT rowid FROM words WHERE words MATCH ?", (matching,))
    assert [number for (number,) in rows] == [0]
    words.database.close()


# Letters that fold, expand, join and vanish, what FTS5 would read as syntax, and what is no text.
CHARACTERS = st.one_of(
    st.characters(),
    st.sampled_from(
        "\"'*()^:-+{}ANDORNEAR深圳劳动税什么aA1ＡßǅİΣςﬁ①㍿ﷺ\u0301\u3099か\0\ud800\udc00"
    ),
)
ANY_TEXT = st.text(CHARACTERS, max_size=40)


@settings(max_examples=500, deadline=None)
@given(ANY_TEXT)
@example('" OR 1 --')
@example("NEAR(a b, 5) AND NOT text : ^a*")
@example("\ud800\0\x1a\ufffe")
def test_any_query_runs_or_asks_for_nothing(any_words: Words, query: str) -> None:
    any_words.found(query)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
@example('"0"')  # a phrase and nothing beside it
@example("0\x85\U0002ebe1")  # an ideograph that is younger than this Python's table of letters
def test_the_index_holds_the_terms_that_queries_are_made_of(text: str) -> None:
    words = Words(text)
    assert words.vocabulary() == set(indexed(text).split())
    assert {term for term in terms(text) if len(term) > 1} <= words.vocabulary()
    asked = ask(text)
    if not asked.excluded:
        assert bool(words.found(text)) == bool(asked.terms or asked.required)
    words.database.close()


def test_folding_many_marks_takes_linear_time() -> None:
    # NFKC alone would take 13 minutes for these.
    text = "a" + "\u0301\u0323" * 500_000
    assert indexed(text)
    assert highlight(text, "b") == []


# --- highlight ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("用人单位应当订立劳动合同。", "劳动合同怎么写", ["劳动合同"]),
        ("劳动法与合同法", "劳动合同", ["劳动", "合同"]),
        ("税法，所得税", "税", ["税", "税"]),
        ("税法，所得税", "税法", ["税法"]),
        ("ＧＰＵ与gpus", "gpu", ["ＧＰＵ"]),
        ("通过ISO9001认证", "iso 9001", ["ISO9001"]),
        ("通过ISO9001认证", "9001", ["9001"]),
        ("第3条，3条", "第3条", ["第3条", "3条"]),
        ("见㍿与①", "株式会社 1", ["㍿", "①"]),
        ("Straße e\u0301cole", "strasse école", ["Straße", "e\u0301cole"]),
        ("か\u3099くせい", "がくせい", ["か\u3099くせい"]),
        ("中国人中国", "中国", ["中国", "中国"]),
        ("中国人民", "中国 国人", ["中国人"]),
        ("无关", "劳动", []),
        ("", "劳动", []),
        ("劳动", "", []),
        ("劳\0动\ud800劳动", "劳动", ["劳动"]),
    ],
)
def test_highlights_are_the_words_of_the_query(text: str, query: str, expected: list[str]) -> None:
    assert marked(text, query) == expected


@settings(max_examples=500, deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_highlights_are_in_order_and_disjoint_and_within_the_text(text: str, query: str) -> None:
    spans = highlight(text, query)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(set(edges))
    assert all(0 <= begin < end <= len(text) for begin, end in spans)


PLAIN = st.text(st.sampled_from("深圳劳动合同法，。 "), max_size=60)


@given(PLAIN, PLAIN)
def test_highlights_are_what_a_slow_reader_underlines(text: str, query: str) -> None:
    pairs = set(terms(query))
    underlined = [False] * (len(text) + 1)
    for term in pairs:
        # Blanks between Chinese characters separate nothing.
        for found in re.finditer(f"(?=({' *'.join(term)}))", text):
            underlined[found.start() : found.end(1)] = [True] * len(found[1])
    covered = [False] * (len(text) + 1)
    for begin, end in highlight(text, query):
        assert not (begin and covered[begin - 1]), "neighbours are one span"
        covered[begin:end] = [True] * (end - begin)
    assert covered == underlined


@given(st.text(st.sampled_from("深ＡaßﬁﷺかがéQ①，"), min_size=1, max_size=200), st.data())
def test_a_highlighted_text_is_mapped_back_through_folding(text: str, data: st.DataObject) -> None:
    decomposed = data.draw(st.sampled_from([text, unicodedata.normalize("NFD", text)]))
    letters = [
        begin
        for begin, end in highlight(decomposed + " 税收", "税收")
        if (begin, end) == (len(decomposed) + 1, len(decomposed) + 3)
    ]
    assert len(letters) == 1


def test_only_the_beginning_of_a_very_long_text_is_highlighted() -> None:
    text = "劳动 " + "其他" * 5_000_000 + "劳动"
    assert len(text) > SHOWN
    assert highlight(text, "劳动") == [(0, 2)]
