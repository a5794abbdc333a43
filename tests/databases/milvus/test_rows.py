"""Rows of Milvus keep within its limits, and nothing is lost or cut where that needs several."""

import pytest

pytest.importorskip("pymilvus")

from server.databases.milvus import pieces, rows
from server.databases.milvus.words import MOST_BYTES, MOST_TERMS, asked, code, written
from server.databases.portions import batches
from server.errors import DatabaseRefused
from tests.support.databases import entry

TEXTS = ["", "a", "长" * 30_000, "𠮷" * 40_000, "a" + "é" * 100_000, "x" * 65_535, "x" * 65_536]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{len(text)}")
def test_pieces_fit_and_make_up_the_text(text: str) -> None:
    cut = pieces.cut(text)
    assert "".join(cut) == text
    assert all(len(piece.encode()) <= pieces.MOST_BYTES for piece in cut)
    others = dict(zip(pieces.keys(7, "chunk", len(cut)), cut[1:], strict=True))
    assert pieces.joined(cut[0], 7, "chunk", len(cut), others) == text


def test_packed_values_are_valid_text_without_nul() -> None:
    for value in ["\0", "\ud800", {"长": [1, 2.5, None]}]:
        assert "\0" not in pieces.packed(value)
        pieces.packed(value).encode()


def test_terms_stand_as_often_as_they_are_counted() -> None:
    text = written({"甲乙": 2, "b c": 1})
    assert sorted(text.split()) == sorted([code("甲乙"), code("甲乙"), code("b c")])
    assert asked(["甲乙"]) == code("甲乙")
    assert all(each.isascii() and each.isalnum() and len(each) == 6 for each in text.split())


def test_counts_shrink_before_a_term_is_lost() -> None:
    counts = {f"term {at}": 100 for at in range(1_000)} | {"rare": 1}
    text = written(counts)
    assert len(text.encode()) <= MOST_BYTES
    assert set(text.split()) == {code(term) for term in counts}


def test_a_text_with_too_many_words_is_refused() -> None:
    with pytest.raises(DatabaseRefused, match=rf"{MOST_TERMS + 1} different words.*{MOST_TERMS}"):
        written({f"term {at}": 1 for at in range(MOST_TERMS + 1)})


def test_metadata_beyond_the_limits_is_refused_by_name() -> None:
    with pytest.raises(DatabaseRefused, match="'a' has 20005 different values"):
        rows.written(entry(1, "a", "text", {"n": [*range(20_000)]}))
    with pytest.raises(DatabaseRefused, match="'a' takes .* bytes where filters compare"):
        rows.written(entry(1, "a", "text", {f"field {at}": "长" * 200 for at in range(200)}))


def test_requests_are_split_by_rows_and_by_bytes() -> None:
    stored = [{"text": "x" * 1_000} for _ in range(10)]
    assert [len(batch) for batch in batches(stored, rows.n_bytes, 4, 1 << 20)] == [4, 4, 2]
    assert [len(batch) for batch in batches(stored, rows.n_bytes, 100, 3_500)] == [3, 3, 3, 1]
    assert [len(batch) for batch in batches(stored, rows.n_bytes, 100, 10)] == [1] * 10
    assert list(batches([], rows.n_bytes, 4, 100)) == []
