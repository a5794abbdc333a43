"""Identifiers, numbers and hidden characters: what finds what, and what comes first."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.identifiers import QUESTIONS, SIZE, TEXT, sets
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.lexical import MAX_PHRASES, ask, highlight, indexed, terms
from server.store.records import Document, Info
from server.store.search import Mode, Query, search
from server.store.words.ranking import frequencies
from tests.support.stored_documents import within
from tests.support.words import Words, marked

KINDS = sets()


@pytest.fixture(scope="module", params=list(KINDS))
def confusable(request: pytest.FixtureRequest) -> Iterator[tuple[list[str], Words]]:
    identifiers = list(KINDS[request.param])
    # A long text has the identifier, a short one others like it.
    long = "，".join(["其余部分按照规定执行"] * 20)
    words = Words(
        *(TEXT.format(identifier=each) + long * (n % 2) for n, each in enumerate(identifiers))
    )
    yield identifiers, words
    words.database.close()


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=list(QUESTIONS))
def test_the_text_with_exactly_the_identifier_comes_first(
    confusable: tuple[list[str], Words], question: str
) -> None:
    identifiers, words = confusable
    assert len(identifiers) == SIZE
    first = [words.found(question.format(identifier=each))[0] for each in identifiers]
    assert first == list(range(SIZE))


def test_the_exact_identifier_comes_first_in_hybrid_where_vectors_say_little(
    tmp_path: Path,
) -> None:
    identifiers = [each for kind in KINDS.values() for each in kind]
    documents = [Document(each, TEXT.format(identifier=each)) for each in identifiers]
    # Texts that differ in a few digits have nearly the same vector, and the nearest is another one.
    noise = np.random.default_rng(0).normal(0, 0.05, (len(documents), 8))
    vectors = (1 + noise).astype(np.float32)
    with closing(DataFolder(tmp_path)) as folder:
        collection = folder.create(Info("x", "f", 8))
        collection.add(documents, vectors)
        queries = [Query("hybrid", 3, vectors[0], each) for each in identifiers]
        found = search(collection, queries)
    assert [hits[0].id for hits in found] == identifiers


@pytest.mark.parametrize(
    ("query", "first", "second"),
    [
        ("1.10", "版本 1.10 发布", "版本 1.10.2 发布"),
        ("1.10.2", "版本 v1.10.2 发布", "版本 v1.2.10 发布"),
        ("192.168.1.1", "http://192.168.1.1:8080/a", "http://192.168.1.1x:8080/a"),
        ("10.1.10.1", "10.1.10.1", "1.10.1.10"),
        ("aa:bb:cc:11", "aa:bb:cc:11", "bb:cc:11:aa"),
        ("(2020)京01民终1234号", "（2020）京01民终1234号判决", "（1234）京01民终2020号判决"),
        ("2019 - 2020", "2019-2020", "2020-2019"),
        ("zhang.wei@example.com", "zhang.wei@example.com", "wei.zhang@example.com"),
        ("zhang.wei@example.com 2024", "zhang.wei@example.com 2023", "com.2024.example wei zhang"),
        ("example.org", "example.org", "mail.example.org"),
        ("com.example.app", "com.example.app.Main", "app.example.com"),
        ("db-prod-main", "主机 db-prod-main 正常", "主机 prod-db-main 正常"),
        ("report_final.docx", "report_final.docx", "final_report.docx"),
        ("state-of-the-art", "state-of-the-art" + " other" * 50, "state of the art"),
        ("45,000", "预算 45,000 元", "预算 45000 元"),
        ("45000", "预算 45000 元", "预算 45,000 元"),
        ("1,234,567.89", "1,234,567.89", "1234567.89"),
        ("-5", "温度 -5 度", "温度 5 度"),
        ("5", "温度 5 度", "温度 -5 度"),
        ("−5", "温度-5度", "温度 5 度"),
        ("C++", "C++ 程序", "C 程序"),
        ("C#", "C# 程序", "C++ 程序"),
    ],
)
def test_order_and_adjacency_of_an_identifier_count(query: str, first: str, second: str) -> None:
    words = Words(second, first, *["其他文字"] * 5)
    assert words.found(query)[0] == 1
    words.database.close()


@pytest.mark.parametrize(
    ("query", "others"),
    [
        ("state-of-the-art", ["art of the state"]),
        ("well-known", ["known well", "a known fact"]),
        ("and/or", ["or and", "this or that"]),
        ("end.Next", ["the next end"]),
        ("zhang.wei@example.com", ["wei zhang, example com", "zhang"]),
    ],
)
def test_single_words_of_an_identifier_without_digits_are_found_too(
    query: str, others: list[str]
) -> None:
    words = Words(*others, f"see {query} here", *["其他"] * 9)
    assert set(words.found(query)) == set(range(len(others) + 1))
    words.database.close()


@pytest.mark.parametrize("filter", [None, {"kind": "long"}])
def test_a_long_text_with_the_mail_address_is_before_short_ones_with_its_words(
    tmp_path: Path, filter: dict[str, str] | None
) -> None:
    others = [Document(each, each, None, {"kind": "long"}) for each in KINDS["mail"][1:]]
    asked = KINDS["mail"][0]
    long = Document("long", f"{asked} " + "其余部分按照规定执行。" * 50, None, {"kind": "long"})
    rest = [Document(f"{n}", f"其他文字{n}") for n in range(400)]
    documents = [*others, long, *rest]
    vectors = np.ones((len(documents), 8), dtype=np.float32)
    with closing(DataFolder(tmp_path)) as folder:
        collection = folder.create(Info("x", "f", 8))
        collection.add(documents, vectors)
        parsed = None if filter is None else parse(filter)
        modes: tuple[Mode, ...] = ("lexical", "hybrid")
        queries = [Query(mode, 50, vectors[0], asked, filter=parsed) for mode in modes]
        found = search(collection, queries)
        matches = collection.documents.words(
            asked, len(documents), within(collection.documents, parsed)
        )
    assert [hits[0].id for hits in found] == ["long", "long"]
    assert len(found[0]) == SIZE, "those with its words are found too"
    assert matches.scores[0] < matches.attainable
    assert matches.scores[1] < matches.scores[0]


def test_identifiers_with_digits_are_looked_for_before_those_without() -> None:
    query = " ".join(f"a{letter}.b.c" for letter in "abcdefghij") + " 192.168.10.1"
    phrases = ask(query).phrases
    assert [phrase.is_strict for phrase in phrases] == [True] + [False] * (MAX_PHRASES - 1)


def test_single_numbers_of_an_identifier_are_found_where_no_text_has_it_whole() -> None:
    words = Words("端口 8080", "地址 10.0.0.8", "其他")
    assert words.found("10.0.0.9:8080") != []
    assert words.found("10.0.0.8") == [1]
    assert words.found("8") == [1]
    words.database.close()


SAME: list[tuple[str, str]] = [
    ("45000", "45,000"),
    ("45,000", "４５０００"),
    ("1234567.89", "1,234,567.89"),
    ("45000", "预算45,000元"),
    ("13800138000", "138 0013 8000"),
    ("13800138000", "电话 138-0013-8000。"),
    ("138 0013 8000", "138-0013-8000"),
    ("+86 138 0013 8000", "13800138000"),
    ("１３８００１３８０００", "138 0013 8000"),
    ("6222020200012345678", "6222 0202 0001 2345 678"),
    ("GB/T 7714-2015", "GB/T7714-2015"),
    ("GB/T 7714-2015", "ＧＢ／Ｔ　７７１４—２０１５"),
    ("GB 18030-2022", "GB18030-2022"),
    ("AB-1234/5", "ab/1234-5"),
    ("劳动合同", "劳\u200b动合\u00ad同"),
    ("劳动合同", "劳\u200d动\ufeff合\ufe00同\U000e0100"),
    ("劳动合同", "劳动\n合同"),
    ("劳动合同", "劳 动　合\r\n  同"),
    ("劳动合同", "劳\u2028动合同"),
    ("information", "infor\u00admation"),
    ("information", "in\u200bforma\u2060tion"),
    ("information", "infor-\nmation"),
    ("information", "Infor-\r\n   mation systems"),
    ("人工见长", "\u2f08\u2f2f\u2ec5\u2ed3"),
    ("第3条", "第 3 条"),
    ("使用GPU训练", "使用 GPU 训练"),
]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_thing_written_differently_is_found(one: str, other: str, turned: bool) -> None:
    query, text = (other, one) if turned else (one, other)
    # What has the parts in another order, or only some of them, does not come first.
    words = Words("0005 4 民 8000 0013", text, "无关 irrelevant 0", *["其他"] * 9)
    assert words.found(query)[:1] == [1]
    words.database.close()


def test_nothing_that_was_found_before_is_hidden_by_a_number_in_groups() -> None:
    words = Words("房间 101,102,103", "共12，300人", "infor-\nmation", "其他", "其他")
    assert words.found("102") == [0]
    assert words.found("300人") == [1]
    assert words.found("mation") == [2]
    words.database.close()


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("主机 192.168.10.1 与 10.1", "192.168.10.1", ["192.168.10.1", "10.1"]),
        ("主机 1 与 192.168.10.1", "192.168.10.1", ["192.168.10.1"]),
        ("主机 10 与 1", "192.168.10.1", ["10", "1"]),
        ("预算 45,000 元", "45000", ["45,000"]),
        ("预算 45,000.50 元", "45000", ["45,000"]),
        ("电话 138 0013 8000。", "13800138000", ["138 0013 8000"]),
        ("温度 -5 度", "-5", ["-5"]),
        ("邮箱 zhang.wei@example.com。", "zhang.wei@example.com", ["zhang.wei@example.com"]),
        ("wei 与 zhang.li", "zhang.wei@example.com", ["wei", "zhang"]),
        ("见 GB/T 7714-2015 附录", "GB/T7714-2015", ["GB/T 7714-2015"]),
        ("ＧＢ／Ｔ　７７１４－２０１５", "gb/t 7714-2015", ["ＧＢ／Ｔ　７７１４－２０１５"]),
        ("劳\u200b动合\u00ad同法", "劳动合同", ["劳\u200b动合\u00ad同"]),
        ("订立劳动\n　合同。", "劳动合同", ["劳动\n　合同"]),
        ("the infor-\nmation age", "information", ["infor-\nmation"]),
        ("a\u00adb 劳动 infor\u00admation", "information", ["infor\u00admation"]),
        ("（2020）京01民终1234号判决", "(2020)京01民终1234号", ["2020）京01民终1234号"]),
    ],
)
def test_highlights_stand_at_their_places_in_the_original(
    text: str, query: str, expected: list[str]
) -> None:
    assert marked(text, query) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "1." * n,
        lambda n: "a." * n,
        lambda n: "a-b/" * n,
        lambda n: ("a" * 64 + "@") * n,
        lambda n: " -5" * n,
        lambda n: "1,000" * n,
        lambda n: "123 " * n,
        lambda n: "a-\n" * n,
        lambda n: "a-" + "\n" * n,
        lambda n: "法" + " " * n,
        lambda n: "(2020)" * n,
        lambda n: "(2020)" + "京1" * n,
        lambda n: "a" * n + "-1",
        lambda n: "gb " * n + "/1",
        lambda n: "\u200b" * n,
        lambda n: "\u2ed3" * n,
        lambda n: "1 - " * n,
    ],
)
def test_odd_texts_take_linear_time(make: Callable[[int], str]) -> None:
    text = make(5_000)
    assert isinstance(indexed(text), str)
    highlight(text, "192.168.10.1 45,000")
    assert len(terms(text)) < 1_000


def test_no_text_reaches_the_attainable_score_but_one_with_every_term_comes_near() -> None:
    words = Words("192.168.10.1 " * 30, "主机 192.168.10.1 的说明", *["其他文字"] * 30)
    ranking = words.ranking("192.168.10.1 说明")
    assert ranking is not None
    query = f"{ranking.sql} ORDER BY score"
    scores = [-score for _, score in words.database.execute(query, ranking.parameters)]
    assert 0.2 * ranking.attainable < scores[0] < ranking.attainable
    assert words.ranking("没有") is None
    assert frequencies([])[1] == []
    words.database.close()
