"""Chunks of all kinds of texts, counted in several ways and by the shipped tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from server.collections.chunking import cut
from server.collections.cutting.counting import UNCOUNTED_CHARACTERS, Count
from server.collections.cutting.splitting import MAX_MARKS, split
from server.store.records import ChunkRules, Span

MIXED = "甲乙丙丁龘。，！？；：、…”’」）“（abcXYZ019 .,!?;:\"')(#-/\n\r\t\x0b\u2028\u3000\0é\u0301\u200d👍🏽中文"
SENTENCES = (
    "第1.2条 用人单位自用工之日起即与劳动者建立劳动关系。",
    "他说：“走吧！”然后就走了……",
    "Dr. Smith paid 3.14 dollars, e.g. at https://example.com/a.html?b=1; then he left. ",
    "劳动合同期限三个月以上不满一年的，试用期不得超过一个月；一年以上的，不得超过二个月。",
    "word " * 40,
    "internationalisation" * 12,
    "人工智能正在改变世界" * 30,
    "\n",
    "\r\n\r\n",
    "# 标题\n",
    "   ",
)
texts = st.one_of(
    st.text(MIXED, max_size=300),
    st.text(max_size=100).filter(lambda text: text.isprintable() or text.isspace()),
    st.lists(st.sampled_from(SENTENCES), max_size=12).map("".join),
)


def chunk(text: str, rules: ChunkRules, count: Count) -> list[Span]:
    return cut(text, rules, count).spans


def characters(texts: Sequence[str]) -> list[int]:
    return list(map(len, texts))


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def more_when_joined(texts: Sequence[str]) -> list[int]:
    return [int(len(text) ** 1.3) for text in texts]


def one_when_long(texts: Sequence[str]) -> list[int]:
    """Count as a tokenizer that has no words of this length."""
    return [len(text) if len(text) <= 9 else 1 for text in texts]


def nothing(texts: Sequence[str]) -> list[int]:
    return [0] * len(texts)


@pytest.fixture(scope="module")
def shipped(shipped_checkpoint: Path) -> Count:
    tokenizer = tokenizers.Tokenizer.from_file(str(shipped_checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]

    return count


COUNTS = (characters, words, more_when_joined, one_when_long, nothing)


def check(text: str, rules: ChunkRules, count: Count) -> list[Span]:
    """Check what holds for every text, rules and count; return the spans."""
    spans = chunk(text, rules, count)
    if not text.strip():
        assert spans == [(0, len(text))]
        return spans
    found = [text[begin:end] for begin, end in spans]
    assert all(part and part == part.strip() for part in found)
    for part, n in zip(found, count(found), strict=True):
        assert n <= rules.size or len(part) == 1
    for before, after in zip(spans, spans[1:], strict=False):
        assert before.begin < after.begin and before.end < after.end
        assert not text[before.end : after.begin].strip()
    assert not text[: spans[0].begin].strip() and not text[spans[-1].end :].strip()
    if count([text.strip()])[0] <= rules.size:
        assert len(spans) == 1
    assert chunk(text, rules, count) == spans
    return spans


def parts(text: str, size: int, overlap: int = 0, count: Count = characters) -> list[str]:
    return [text[begin:end] for begin, end in check(text, ChunkRules(size, overlap), count)]


@pytest.mark.parametrize("count", COUNTS)
@settings(deadline=None)
@given(text=texts, size=st.integers(1, 60), share=st.floats(0, 0.99))
def test_chunks_cover_a_text_and_never_exceed_their_size(
    count: Count, text: str, size: int, share: float
) -> None:
    check(text, ChunkRules(size, int(share * size)), count)


@settings(deadline=None)
@given(text=texts, size=st.integers(1, 60), share=st.floats(0, 0.99))
def test_the_same_holds_for_a_real_tokenizer(
    shipped: Count, text: str, size: int, share: float
) -> None:
    check(text, ChunkRules(size, int(share * size)), shipped)


@settings(deadline=None)
@given(text=texts, size=st.integers(4, 60), share=st.floats(0, 0.99))
def test_the_overlap_is_at_most_what_was_asked(text: str, size: int, share: float) -> None:
    overlap = int(share * size)
    spans = chunk(text, ChunkRules(size, overlap), characters)
    for before, after in zip(spans, spans[1:], strict=False):
        assert before.end - after.begin <= overlap


def test_a_text_within_the_size_is_one_chunk() -> None:
    assert chunk(" \n甲。乙。\n ", ChunkRules(4, 0), characters) == [(2, 6)]
    assert chunk("a" * UNCOUNTED_CHARACTERS, ChunkRules(1, 0), one_when_long) == [(0, 1 << 16)]


@pytest.mark.parametrize("text", ["", " ", "\r\n\u3000\t"])
def test_white_space_alone_is_one_chunk(text: str) -> None:
    assert chunk(text, ChunkRules(1, 0), characters) == [Span(0, len(text))]


def test_chunks_are_filled_with_whole_sentences() -> None:
    assert parts("甲甲甲。乙乙！丙丙丙丙？丁丁。", 9) == ["甲甲甲。乙乙！", "丙丙丙丙？丁丁。"]
    assert parts("One two. Three four! Five?", 20) == ["One two. Three four!", "Five?"]


def test_a_chunk_ends_with_a_paragraph_if_that_fills_half_of_it() -> None:
    assert parts("甲甲甲甲。\n乙乙。丙丙。丁丁。", 10) == ["甲甲甲甲。", "乙乙。丙丙。丁丁。"]
    assert parts("甲甲。\n乙乙。丙丙。丁丁。", 10) == ["甲甲。\n乙乙。丙丙。", "丁丁。"]
    assert parts("甲甲。\r\n\r\n乙乙。丙丙。丁丁。", 6) == ["甲甲。", "乙乙。丙丙。", "丁丁。"]


def test_a_heading_stays_with_what_follows_it() -> None:
    assert parts("甲甲甲甲甲。\n# 乙\n丙丙。丙丙。", 12) == ["甲甲甲甲甲。", "# 乙\n丙丙。丙丙。"]


def test_what_is_left_stays_together_if_it_fits() -> None:
    assert parts("甲甲甲甲甲甲甲甲甲。\n乙乙乙乙乙。\n# 丙", 10)[1:] == ["乙乙乙乙乙。\n# 丙"]


def test_the_overlap_is_of_whole_sentences() -> None:
    text = "甲甲。乙乙。丙丙。丁丁。戊戊。"
    assert parts(text, 9, 5) == ["甲甲。乙乙。丙丙。", "丙丙。丁丁。戊戊。"]
    assert parts(text, 9, 3) == ["甲甲。乙乙。丙丙。", "丙丙。丁丁。戊戊。"]
    assert parts(text, 9, 2) == ["甲甲。乙乙。丙丙。", "丁丁。戊戊。"]


def test_an_overlap_that_leaves_no_room_is_left_out() -> None:
    assert parts("甲甲。乙乙。丙丙丙丙丙丙。", 7, 6) == ["甲甲。乙乙。", "丙丙丙丙丙丙。"]


@pytest.mark.parametrize(
    "text",
    [
        "甲。|乙！|丙？|丁；|戊……|己",
        "他走了。”|“好！”|（完。）|「是？」|【注！】|完",
        "真的？！|真的。",
        "It is 3.14.| Dr. Wu paid, e.g. No. 5, at a.com/b.html?c=d.| See Fig. 2!| J. K. Lu?| No.| Yes",
        "第1.2条和v1.0。|甲",
        '"Why?" he said.| "So!"| (Done.)| Yes',
        "wait... what... |Then",
        "他走了.|我也走.|完",
        "甲!|乙?|完",
        "1. First thing here.|\n2. Second thing.|\nThird",
        "One line\n|Another\r\n|A third\u2028|Fourth\r|Fifth\f|Sixth",
        "a wrapped\nline.| Next",
        "甲\n\n|b",
    ],
)
def test_sentences_end_where_a_reader_would_say(text: str) -> None:
    pieces, _ = split(text.replace("|", ""), len(text), characters)
    found = [text.replace("|", "")[piece.begin : piece.end] for piece in pieces]
    assert found == [sentence.strip() for sentence in text.split("|")]


def test_a_long_sentence_is_cut_after_weaker_marks() -> None:
    assert parts("甲甲甲，乙乙乙、丙丙丙。", 5) == ["甲甲甲，", "乙乙乙、", "丙丙丙。"]
    assert parts("at 12:30, or 1,000; so", 12) == ["at 12:30,", "or 1,000; so"]
    assert parts("all lower case. no capitals", 15) == ["all lower case.", "no capitals"]


def test_a_long_clause_is_cut_between_words() -> None:
    assert parts("one two three four five", 9) == ["one two", "three", "four five"]


def test_a_long_word_is_cut_but_no_character_from_its_marks() -> None:
    assert parts("甲" * 7, 3) == ["甲甲甲", "甲甲甲", "甲"]
    assert parts("e\u0301e\u0301e\u0301", 5) == ["e\u0301e\u0301", "e\u0301"]
    assert parts("👍🏽👩\u200d🔬👍🏽", 4) == ["👍🏽", "👩\u200d🔬", "👍🏽"]
    assert parts("e" + "\u0301" * 100, MAX_MARKS + 1)[0] == "e" + "\u0301" * MAX_MARKS


def test_a_character_of_more_tokens_than_a_chunk_is_a_chunk() -> None:
    def bytes_of(texts: Sequence[str]) -> list[int]:
        return [len(text.encode()) for text in texts]

    assert parts("a甲bc", 2, 1, bytes_of) == ["a", "甲", "bc"]


def test_white_space_between_sentences_counts_only_within_a_chunk() -> None:
    assert parts(f"甲甲。{' ' * 50}乙乙。丙丙。", 6) == ["甲甲。", "乙乙。丙丙。"]


def test_a_chunk_that_counts_more_than_its_pieces_gives_some_up() -> None:
    found = parts("甲甲甲甲。" * 12, 60, 0, more_when_joined)
    assert len(found) > 2 and all(more_when_joined([part])[0] <= 60 for part in found)


@pytest.mark.parametrize(
    "unit",
    [
        "龘",
        "word ",
        "甲甲甲，乙乙乙乙乙乙。",
        "One, two. Three!\r\n\r\n",
        ".",
        "a\n",
        "\u0301",
        " a",
    ],
)
def test_a_long_text_is_counted_a_few_times_in_few_calls(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    counted = calls = longest = most = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal counted, calls, longest, most
        counted += sum(map(len, texts))
        calls += 1
        longest, most = max(longest, sum(map(len, texts))), max(most, len(texts))
        return characters(texts)

    spans = chunk(text, ChunkRules(500, 0), count)
    assert counted < 3.5 * len(text)
    assert calls < 1.2 * len(spans) + 10 * len(text) / UNCOUNTED_CHARACTERS
    # What a tokenizer holds of one call.
    assert longest <= 1 << 18 and most <= 4096
    assert len(spans) < 1.3 * len(text) / 500


@pytest.mark.parametrize(("size", "overlap"), [(8, 8), (8, -1), (0, 0)])
def test_impossible_rules_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap of {overlap} "):
        ChunkRules(size, overlap)
