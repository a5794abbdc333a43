"""Encodings: given, detected, and refused where characters would be wrong."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import BadSettings
from server.sources import decoding
from server.sources.readers import find_source
from server.store.records import Document, text_id
from tests.support.sources import Write, noted, options, read, refusal, sentences, texts


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("民法典\n😀\r\n".encode(), "utf-8"),
        ("民法典\n😀\r\n".encode("utf-8-sig"), "UTF8"),
        ("民法典\n😀\r\n".encode("gb18030"), "gb18030"),
        ("民法典\n😀\r\n".encode("utf-16"), "utf-16"),
    ],
)
@pytest.mark.parametrize("read_bytes", [1, 3, 1 << 16])
def test_encodings_are_read_whatever_the_pieces(
    write: Write, monkeypatch: pytest.MonkeyPatch, content: bytes, encoding: str, read_bytes: int
) -> None:
    monkeypatch.setattr(decoding, "READ_BYTES", read_bytes)
    assert texts(write("a.txt", content), encoding=encoding) == ["民法典", "😀"]


@pytest.mark.parametrize(
    ("content", "encoding", "offset"),
    [
        ("民法典\n".encode() + b"\xff\n", "utf-8", 10),
        ("\ufeff民".encode() + b"\xe6\xb0", "utf-8", 6),
        ("民法典".encode("gb18030"), "utf-8", 0),
        ("民".encode("gb18030") + b"\x81", "gb18030", 2),
        (b"a\0b\0", "utf-16", 0),
    ],
)
@pytest.mark.parametrize("read_bytes", [2, 1 << 16])
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_wrong_bytes_are_reported_with_their_place(
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    encoding: str,
    offset: int,
    read_bytes: int,
    name: str,
) -> None:
    monkeypatch.setattr(decoding, "READ_BYTES", read_bytes)
    error = refusal(write(name, content), encoding=encoding)
    assert f"{name} is not {encoding}: wrong bytes at offset {offset};" in error.english
    assert f"偏移 {offset} " in error.chinese
    other = "utf-8" if encoding == "gb18030" else "gb18030"
    assert error.english.endswith(f"--encoding {other}")
    assert error.chinese.endswith(f"--encoding {other}")


@pytest.mark.parametrize("encoding", ["nonsense", "base64"])
def test_an_unknown_encoding_is_refused_before_anything_is_read(encoding: str) -> None:
    with pytest.raises(BadSettings, match=encoding):
        find_source("-", options(encoding=encoding))


def test_an_encoding_that_makes_half_characters_is_refused(write: Write) -> None:
    for name, content in (("a.txt", "a"), ("a.csv", "text\n"), ("a.md", "")):
        path = write(name, content + "\\ud800")
        assert "lone surrogate" in refusal(path, encoding="unicode_escape").english


# --- detected -----------------------------------------------------------------------------------------

TEXT = "人工智能正在改变世界。\n今天天气很好，适合出去郊游——"
MARKED = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "gb18030"]


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("read_bytes", [1, 1 << 16])
def test_a_byte_order_mark_is_no_part_of_the_first_value(
    write: Write, monkeypatch: pytest.MonkeyPatch, encoding: str, asked: bool, read_bytes: int
) -> None:
    monkeypatch.setattr(decoding, "READ_BYTES", read_bytes)
    given = {"encoding": encoding} if asked else {}
    content = {
        "a.csv": "id,text\n一,甲\n",
        "a.jsonl": '{"id": "一", "text": "甲"}\n',
        "a.txt": "甲\n",
        "a.md": "甲",
    }
    expected = {"a.txt": Document(text_id("甲"), "甲")}
    expected["a.md"] = Document("a.md", "甲", "a", {"file": "a.md"})
    for name, text in content.items():
        found = read(write(name, ("\ufeff" + text).encode(encoding)), **given)
        assert found == [expected.get(name, Document("一", "甲"))], name


def test_only_the_mark_at_the_beginning_is_left_out(write: Write) -> None:
    assert texts(write("a.txt", "\ufeff\ufeff甲\n\ufeff乙")) == ["\ufeff甲", "\ufeff乙"]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8", "utf-16-be", "latin-1"])
def test_a_mark_of_another_encoding_than_asked_for_is_refused(write: Write, encoding: str) -> None:
    error = refusal(write("a.txt", "\ufeff甲".encode("utf-16-le")), encoding=encoding)
    assert f"mark of utf-16-le, so it is not {encoding}; leave out --encoding" in error.english


def test_gb18030_is_detected_and_reported(write: Write) -> None:
    name = write("a.txt", TEXT.encode("gb18030"))
    assert texts(name) == TEXT.split("\n")
    (said,) = sentences(noted(name))
    assert said == f"read as gb18030, which was detected: {name}; if that is wrong, give --encoding"
    assert sentences(noted(name, encoding="gb18030")) == []
    assert sentences(noted(write("b.txt", TEXT))) == []


def test_each_file_of_a_folder_has_its_own_encoding(write: Write, tmp_path: Path) -> None:
    for place, encoding in enumerate(("gb18030", "utf-8", "gb18030", "utf-16")):
        write(f"f/{place}.txt", TEXT.encode(encoding))
    folder = str(tmp_path / "f")
    assert texts(folder) == [TEXT] * 4
    assert sentences(noted(folder)) == [
        f"read as gb18030, which was detected: {folder}/0.txt and 1 more; if that is wrong, give "
        "--encoding",
        f"read as utf-16-le, which was detected: {folder}/3.txt; if that is wrong, give --encoding",
    ]


@pytest.mark.parametrize("encoding", ["gb18030", "GBK", "latin-1", "big5", "cp1252"])
@pytest.mark.parametrize("text", [TEXT, "x" * 100_000 + "人工智能"])
def test_utf_8_is_not_stored_as_something_else(write: Write, encoding: str, text: str) -> None:
    for content in (text, "\ufeff" + text):
        error = refusal(write("a.txt", content), encoding=encoding)
        assert "UTF-8" in error.english or "mark of utf-8" in error.english
        assert error.english.endswith("leave out --encoding")


def test_a_file_without_characters_beyond_ascii_is_in_any_encoding(write: Write) -> None:
    assert texts(write("a.txt", "a\nb"), encoding="gb18030") == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "L'été à la plage, résumé".encode("latin-1"),
        "Искусственный интеллект".encode("cp1251"),
        "人工智慧正在改變世界，今天天氣很好".encode("big5"),
        "人工知能が世界を変えている。カタカナ".encode("shift_jis"),
        "人工知能が世界を変えている。カタカナ".encode("euc_jp"),
        (
            "대한민국은 민주공화국이다. 대한민국의 주권은 국민에게 있고, 모든 권력은 국민으로부터 나온다. 국가는 "
            "법률이 정하는 바에 의하여 재외국민(在外國民)을 보호할 의무를 진다."
        ).encode("euc_kr"),
        ("人工智能" * 9).encode()[1:],
        b"caf\xe9",
    ],
)
def test_what_is_neither_utf_8_nor_chinese_is_refused(write: Write, content: bytes) -> None:
    assert "is not utf-8: wrong bytes at offset" in refusal(write("a.txt", content)).english


def test_damaged_utf_8_is_never_taken_for_chinese(write: Write) -> None:
    content = TEXT.replace("\n", "").encode()
    for place in range(len(content) - 1):
        damaged = content[:place] + content[place + 1 :]
        with pytest.raises(UnicodeDecodeError):
            damaged.decode()
        assert "is not utf-8" in refusal(write("a.md", damaged)).english


# --- UTF-16 and UTF-32 without a mark -----------------------------------------------------------------

LATIN = "hello world\nsecond line\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [LATIN, "a,b\n" * 20_000])
@pytest.mark.parametrize("asked", [None, "utf-8", "gb18030", "latin-1"])
def test_letters_beside_nuls_are_not_stored(
    write: Write, encoding: str, text: str, asked: str | None
) -> None:
    for name in ("a.txt", "a.md", "a.csv"):
        error = refusal(write(name, text.encode(encoding)), encoding=asked)
        assert error.english.endswith(
            f"looks like {encoding} without a byte order mark; give --encoding {encoding}"
        )


@pytest.mark.parametrize("asked", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("found", ["utf-8", "gb18030", "utf-16-le", "utf-16-be", "utf-32-be"])
def test_what_is_no_utf_16_is_not_stored_as_such(write: Write, asked: str, found: str) -> None:
    if asked == found:
        return
    # Of an even length, so that every pair of bytes may be a character.
    for text in ("hello world!", TEXT.replace("\n", "")):
        if found.startswith("utf-16") and not text.isascii():
            continue
        name = write("a.txt", text.encode(found))
        error = refusal(name, encoding=asked).english
        assert "give --encoding utf-" in error or "its characters would be wrong" in error, error


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_utf_16_and_utf_32_that_were_asked_for_are_read(write: Write, encoding: str) -> None:
    for text in (LATIN, TEXT, "墨", ""):
        name = write("a.txt", text.encode(encoding))
        assert texts(name, encoding=encoding) == text.splitlines()


# --- pipes --------------------------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Callable[[bytes], str]:
    """Return a named pipe that gives these bytes."""

    def filled(content: bytes) -> str:
        path = tmp_path / f"pipe{len(list(tmp_path.iterdir()))}.txt"
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
        return str(path)

    return filled


def test_a_pipe_is_decided_by_its_first_bytes_beyond_ascii(
    pipe: Callable[[bytes], str], stdin: Callable[[bytes], None]
) -> None:
    long = "x" * 70_000 + "\r\n"
    for encoding in ("utf-8", "gb18030"):
        for before in ("", long):
            content = (before + TEXT).encode(encoding)
            for name in ("-", pipe(content)):
                stdin(content)
                expected = [before.strip(), *TEXT.split("\n")] if before else TEXT.split("\n")
                assert texts(name) == expected
    stdin("甲".encode("utf-16"))
    assert texts("-") == ["甲"]
    stdin(TEXT.encode("gb18030"))
    assert "read as gb18030, which was detected: <stdin>" in sentences(noted("-"))[0]


def test_letters_beside_nuls_in_a_pipe_are_not_stored(stdin: Callable[[bytes], None]) -> None:
    stdin(LATIN.encode("utf-16-le"))
    assert "looks like utf-16-le" in refusal("-").english
    stdin(LATIN.encode())
    assert "valid UTF-8" in refusal("-", encoding="utf-16-le").english
    stdin(LATIN.encode("utf-16-le"))
    assert texts("-", encoding="utf-16-le") == LATIN.splitlines()


def test_utf_8_in_a_pipe_is_not_stored_as_something_else(
    pipe: Callable[[bytes], str], stdin: Callable[[bytes], None]
) -> None:
    content = ("x" * 70_000 + TEXT).encode()
    stdin(content)
    for name in ("-", pipe(content)):
        assert "valid UTF-8" in refusal(name, encoding="gb18030").english
