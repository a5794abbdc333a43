"""Texts as the database keeps them: the same text comes back, in less room, and damage is noticed."""

import zlib

import pytest

from server.store.sqlite.stored_text import LEAST, MOST, RAW, stored, unpacked

LAW = "用人单位自用工之日起即与劳动者建立劳动关系，应当订立书面劳动合同。" * 4
ENGLISH = "The employer shall conclude a written labour contract with the worker. " * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "短",
        LAW,
        ENGLISH,
        "\0" * 40,
        "𠮷野家" * 30,
        "a" * MOST,
        "é" * MOST,
        "𠮷" * MOST,
        LAW * 90,
    ],
)
def test_a_text_comes_back(text: str) -> None:
    kept = stored(text)
    assert unpacked(kept) == text
    size = len(kept) if isinstance(kept, bytes) else len(text.encode())
    assert size <= len(text.encode())


def test_texts_of_usual_lengths_are_packed_and_others_are_not() -> None:
    assert len(stored(LAW)) < len(LAW.encode()) / 2
    assert len(stored(ENGLISH)) < len(ENGLISH) / 2
    for text in (LAW[: LEAST - 1], "a" * (MOST + 1), "乙丙" * 2):
        assert stored(text) is text


def test_what_was_never_stored_is_no_text() -> None:
    kept = stored(LAW)
    assert isinstance(kept, bytes)
    bomb = b"\1" + zlib.compress(b"a" * (1 << 24), wbits=RAW)
    halves = b"\2" + zlib.compress("\ud800".encode("utf-16-le", "surrogatepass"), wbits=RAW)
    other = b"\0" + kept[1:]
    for damaged in (b"", kept[:1], kept[:-1], kept + b"x", other, bomb, halves, 3.0, None):
        with pytest.raises(ValueError):
            unpacked(damaged)  # type: ignore[arg-type]
