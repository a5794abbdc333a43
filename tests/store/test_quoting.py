"""Quoted phrases and exclusions: what they mean, and what is only text."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.store.folder import DataFolder
from server.store.lexical import ask, highlight
from server.store.records import Document, Info
from server.store.search import Fusion, Mode, Query, search
from server.store.words.asked import MAX_QUOTES
from server.store.words.explanation import explain_text
from server.store.words.quoting import divide
from server.store.words.vocabulary import vocabulary_of
from tests.support.words import Words


@pytest.mark.parametrize(
    ("query", "rest", "required", "excluded"),
    [
        ('"labour law" firm', "\0 firm", ["labour law"], []),
        ('查"劳动合同"规定', "查\0规定", ["劳动合同"], []),
        ("law -draft", "law \0", [], ["draft"]),
        ('law -"first draft"', "law \0", [], ["first draft"]),
        ("a -c# -state-of-the-art", "a \0 \0", [], ["c#", "state-of-the-art"]),
        ("温度 -5", "温度 -5", [], []),
        ('温度 -"5"', "温度 \0", [], ["5"]),
        ("state-of-the-art a - b --x", "state-of-the-art a - b --x", [], []),
        ('an unbalanced " mark', 'an unbalanced " mark', [], []),
        ('17" and 19" screens', '17" and 19" screens', [], []),
        ('"" "?!" x', '"" "?!" x', [], []),
        ("“劳动合同”与「合同」", "“劳动合同”与「合同」", [], []),
        ('- item\n-other "quoted text"', '- item\n-other "quoted text"', [], []),
    ],
)
def test_what_is_required_and_excluded(
    query: str, rest: str, required: list[str], excluded: list[str]
) -> None:
    divided = divide(query)
    assert divided.rest == rest
    assert list(divided.required) == required and list(divided.excluded) == excluded


TEXTS = [
    "machine learning of today",
    "learning by machine",
    "采用machine learning方法",
    "签订劳动合同书",
    "劳动者的合同",
    "规定，公司 应当",
    "规定公司",
    "a book on C# and others",
    "a book on C",
    "machines learn",
]


@pytest.fixture(scope="module")
def words() -> Iterator[Words]:
    found = Words(*TEXTS, *["其他文字"] * 10)
    yield found
    found.database.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"machine learning"', {0, 2}),
        ('"machine learning" today', {0, 2}),
        ('"learning"', {0, 1, 2}),
        ('"用machine learning方"', {2}),
        ('"劳动合同"', {3}),
        ('"规定，公司"', {5}),
        ('"公司"', {5, 6}),
        ('"合"', {3, 4}),
        ('"a book on c#"', {7}),
        ('"a book on"', {7, 8}),
        ('"a book on" -c#', {8}),
        ("book -c#", {8}),
        ("machine -today", {1, 2, 9}),
        ('machine -"machine learning"', {1, 9}),
        ("劳动 -合同书", {4}),
        ('"not there" machine', set()),
        ("machine “learning of”", {0, 1, 2, 9}),
    ],
)
def test_phrases_and_exclusions_find(words: Words, query: str, expected: set[int]) -> None:
    assert set(words.found(query)) == expected


def test_a_query_that_only_excludes_is_refused_and_so_are_too_many_phrases() -> None:
    with pytest.raises(InvalidRequest, match="only excludes"):
        ask("-draft").check()
    with pytest.raises(InvalidRequest, match=f"33 exclusions, at most {MAX_QUOTES}"):
        ask("law" + " -draft" * 33).check()
    with pytest.raises(InvalidRequest, match="33 quoted phrases"):
        ask('"law" ' * 33).check()
    ask('"law" ' * 32 + "-draft " * 32).check()


def test_a_query_that_is_not_read_to_its_end_is_text() -> None:
    """Else a hybrid search would leave out its last phrases and exclusions, and its hits would look right."""
    vocabulary = vocabulary_of('{"stop_words": ["the"]}')
    for query in (
        '"' + "字" * 5_000 + '"',
        "法 " * 3_000 + "-草案",
        '-草案 "法" ' + "the " * 2_000,
    ):
        for found in (ask(query), vocabulary.ask(query)):
            assert found.required == () and found.excluded == ()
    assert ask('-草案 "法" ' + "the " * 1_000).required != ()


@given(st.text(st.sampled_from('"- \n\0a文C#.0à'), max_size=30))
@example("0.2à")
def test_any_quotes_run_and_mark(words: Words, query: str) -> None:
    words.found(query)
    highlight("a文C# a 文", query)


def test_the_words_of_a_phrase_are_marked() -> None:
    text = "on machine learning"
    assert [text[a:b] for a, b in highlight(text, '"machine learning" -on')] == [
        "machine",
        "learning",
    ]


@pytest.mark.parametrize("fusion", ["blend", "rrf"])
def test_hybrid_search_keeps_phrases_exclusions_and_codes(tmp_path: Path, fusion: Fusion) -> None:
    texts = [
        "GB/T 7714-2005 信息与文献 参考文献著录规则",
        "GB/T 7714-2015 信息与文献 参考文献著录规则",
        "C# 语言的委托与事件",
        "C 语言的结构体与指针",
        *[f"其他文字{n}" for n in range(300)],
    ]
    vectors = np.ones((len(texts), 8), dtype=np.float32)
    vectors[1, 0] = 0.0  # the right one is the least near by meaning
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def found(query: str, mode: Mode = "hybrid") -> list[int]:
        asked = Query(mode, 400, vectors[0], query, fusion=fusion)
        (hits,) = search(collection, [asked])
        return [int(hit.id) for hit in hits]

    with closing(DataFolder(tmp_path)) as folder:
        collection = folder.create(Info("x", "f", 8))
        documents = [Document(f"{n}", text) for n, text in enumerate(texts)]
        collection.add(documents, vectors)
        if fusion == "blend":
            assert found("GB/T 7714-2015")[0] == 1 and found("请问GB/T 7714-2015是否有效")[0] == 1
            assert found("GB/T 7714-2005")[0] == 0
            assert found("C#")[0] == 2
        assert set(found('"信息与文献" 规则')) == {0, 1}
        assert set(found('"信息与文献" -"7714-2005"')) == {1}
        assert found('"从未出现"') == []
        without = found("文献 -文字299 -c#")
        assert len(without) == len(texts) - 2 and not {2, 303} & set(without)
        for mode in ("lexical", "hybrid"):
            with pytest.raises(InvalidRequest, match="only excludes"):
                found("-文字", mode)
        matches = collection.documents.words("7714 规则 文字299", len(texts))
        first = int(matches.labels[0])
        explained = explain_text(matches, first, texts[303])
    assert {term.term for term in explained.terms if term.is_matched} == {"文字", "字299", "299"}
    weights = [term.weight for term in explained.terms]
    assert weights == sorted(weights, reverse=True)
    assert 2.2 * sum(weights) < explained.attainable
    assert explained.share == pytest.approx(explained.bm25 / explained.attainable)
