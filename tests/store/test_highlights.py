"""Highlights against the index of words: what a text is found by is marked in it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.store.lexical import ask, highlight, indexed
from server.store.words.folding import fold, joined
from server.store.words.units import STRETCH, is_single, row, row_places
from server.store.words.vocabulary import vocabulary_of
from tests.support.words import marked

PIECES = (
    *(
        "run",
        "running",
        "Résumés",
        "cafe",
        "cafés",
        "Łódź",
        "Straße",
        "well-known",
        "in-\nformation",
    ),
    *(
        "劳动",
        "勞動",
        "合同",
        "契約",
        "税",
        "稅",
        "第3条",
        "ＡＩ",
        "的",
        "がくせい",
        "데이터",
        "ภาษาไทย",
    ),
    *(
        "iso9001",
        "ISO 9001",
        "45,000",
        "45000",
        "GB/T 7714-2015",
        "C#",
        "C++",
        "192.168.1.1",
        "１２",
    ),
    *(" ", " ", " ", "，", "\n"),
)
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
QUERY = st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join)


def has(words: str, term: str) -> bool:
    """Return whether a row of the index has a term, a phrase, or what a character begins."""
    begun = f" {term}" if is_single(term.rpartition(" ")[2]) else f" {term} "
    return begun in f" {words} "


@settings(max_examples=300, deadline=None)
@given(TEXT, QUERY, st.booleans())
def test_a_text_that_is_found_has_a_mark(text: str, query: str, is_quoted: bool) -> None:
    words = indexed(text)
    asked = ask(f'"{query}"' if is_quoted else query)
    counts = {term: int(has(words, term)) for term in asked.lookups}
    if any(has(words, term) for term in (*asked.chosen(counts), *asked.rows)):
        assert highlight(text, asked)


@given(TEXT)
def test_rows_with_places_are_the_rows_of_the_index(text: str) -> None:
    for stretch in STRETCH.findall(joined(fold(text))):
        found = list(row_places(stretch))
        assert [term for term, _, _ in found] == row(stretch, whole=True)
        assert all(stretch[begin:end] == term for term, begin, end in found)


VOCABULARY = vocabulary_of(
    '{"synonyms": [["劳动合同", "雇佣契约"], ["running shoes", "sneakers"]], "stop_words": ["的"]}'
)


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("劳动合同", "签订僱傭契約，雇佣。", ["僱傭契約"]),
        ("雇佣契约的", "勞動的合同，勞動合同", ["勞動合同"]),
        ("sneakers", "new Running Shoes and shoes", ["Running", "Shoes"]),
        ("sneakers", "shoes for running", []),
        ('"running shoes"', "shoes, running shoes, running", ["running", "shoes"]),
        ('"劳动合同"', "劳动与合同，劳动合同", ["劳动合同"]),
        ('"劳动合"', "劳动合同", ["劳动合"]),
        ('"C#"', "by C#", ["C#"]),
        ('"iso 9001"', "by ISO9001", ["ISO9001"]),
    ],
)
def test_synonyms_and_phrases_are_marked_in_a_row(
    query: str, text: str, expected: list[str]
) -> None:
    assert marked(text, VOCABULARY.ask(query)) == expected
