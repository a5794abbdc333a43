"""The same word in other forms: simplified, with another ending or accent, in scripts without blanks."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.store.lexical import indexed, terms
from server.store.words.bases import base
from server.store.words.folding import fold, fold_with_places
from server.store.words.traditional import SIMPLIFIED, TRADITIONAL
from tests.support.words import Words, marked

FORMS = [
    ("簡體中文", "简体中文"),
    ("劳动合同", "勞動合同之訂立"),
    ("为什么征税", "為什麼徵稅"),
    ("policies", "the policy of a house"),
    ("running shoes", "a shoe, and she runs"),
    ("resume", "his Résumé is here"),
    ("Ångström", "an angstrom is short"),
    ("naïve", "naive bayes"),
    ("Łódź", "from Lodz to Warsaw"),
    ("Αθήνα", "αθηνα και πειραιας"),
    ("ёлка", "зеленая елка"),
    ("ประเทศ", "เขาเดินทางไปต่างประเทศบ่อย"),
    ("ข้าว", "ฉันกินข้าวเช้า"),
    ("ລາວ", "ພາສາລາວເປັນພາສາ"),
    ("ភាសា", "ខ្ញុំរៀនភាសាខ្មែរ"),
    ("မြန်မာ", "သူမြန်မာစကားပြော"),
    ("हिन्दी", "यह हिन्दी है"),
    ("தமிழ்", "இது தமிழ் மொழி"),
]


@pytest.mark.parametrize(("query", "text"), FORMS)
def test_a_word_is_found_in_another_form_and_marked(query: str, text: str) -> None:
    words = Words(text, "无关 irrelevant 0")
    assert words.found(query) == [0]
    shown = marked(text, query)
    assert shown and "".join(shown) in text.replace(" ", "") or len(shown) > 1
    words.database.close()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("май", "маи"),
        ("がく", "かく"),
        ("มา", "ม้า"),
        ("universe", "unicorn"),
        ("是", "昰"),
    ],
)
def test_another_letter_is_another_word(query: str, text: str) -> None:
    words = Words(text)
    assert words.found(query) == []
    words.database.close()


@pytest.mark.parametrize(
    ("query", "best", "other"),
    [
        ("jobs", "jobs " + "and something else " * 9, "job job job"),
        ("resumé", "a resumé with many other words in it", "resume resume"),
        ("contracts", "the contracts that we signed last year", "contract contract"),
    ],
)
def test_the_very_word_comes_first(query: str, best: str, other: str) -> None:
    words = Words(other, best, *["nothing of this"] * 8)
    assert words.found(query) == [1, 0]
    words.database.close()


def test_highlights_of_folded_text_stand_in_the_original() -> None:
    text = "勞動合同，Les Résumés"
    assert marked(text, "劳动合同 resume") == ["勞動合同", "Résumés"]


def test_the_table_maps_each_character_to_one_that_stays() -> None:
    assert len(TRADITIONAL) == len(SIMPLIFIED) == len(set(TRADITIONAL)) == 2966
    assert fold(SIMPLIFIED) == SIMPLIFIED and fold(TRADITIONAL) == SIMPLIFIED
    assert unicodedata.normalize("NFKC", TRADITIONAL) == TRADITIONAL
    assert fold_with_places(TRADITIONAL).text == SIMPLIFIED


def test_question_words_in_traditional_characters_are_left_out() -> None:
    assert terms("鑼鼓經是什麼？") == terms("锣鼓经是什么？") == ["锣鼓", "鼓经", "经是"]


def test_base_forms_are_the_same_from_many_threads() -> None:
    words = [f"{stem}{end}" for stem in ("organiz", "runn", "argu") for end in ("ing", "ed", "s")]
    alone = [base.__wrapped__(word) for word in words]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(base.__wrapped__, words * 200)) == alone * 200


def test_a_very_long_word_with_marks_stays_below_what_the_index_takes() -> None:
    longest = max(len(term.encode()) for term in indexed("กา" * 9 + "हि" * 100_000).split())
    assert longest < 32_000
