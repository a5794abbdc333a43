"""Text files as people have them, into a real collection; vectors come from a hash."""

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from server import indexing
from server.errors import BadSettings
from server.indexing import Indexed, index_texts, text_id
from server.manifest import Manifest
from server.store.collection import Collection
from server.types import Vectors

D = 8


class Embedder:
    """Remembers what it was asked; raises at a call if told so."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls: list[list[str]] = []
        self.fails_at = fails_at

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        seeds = [int(text_id(text)[:8], 16) for text in texts]
        return np.stack(
            [np.random.default_rng(seed).standard_normal(D, dtype=np.float32) for seed in seeds]
        )

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticking(step_s: float) -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) * step_s


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    manifest = cast(Manifest, SimpleNamespace(fingerprint="model-a", dimension=D))
    opened = Collection.open(tmp_path / "data", "main", manifest)
    yield opened
    opened.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], str]:
    def written(content: bytes | str) -> str:
        path = tmp_path / "texts.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return written


Write = Callable[[bytes | str], str]


def run(collection: Collection, source: str, embed: Embedder, **options: Any) -> Indexed:
    defaults: dict[str, Any] = {"clock": ticking(0), "progress": io.StringIO()}
    return index_texts(collection, embed, source, **defaults | options)


def test_each_line_becomes_a_document(collection: Collection, write: Write) -> None:
    embed = Embedder()
    done = run(collection, write("民法典\n\n  \t\n 刑法 \nlast"), embed)
    assert (done.added, done.unchanged) == (3, 0)
    assert embed.calls == [["民法典", "刑法", "last"]]
    assert collection.get([text_id("刑法")])[text_id("刑法")].text == "刑法"
    assert collection.search(embed(["last"])[0], 1)[0].text == "last"


def test_indexing_again_embeds_only_what_is_new(collection: Collection, write: Write) -> None:
    run(collection, write("a\nb\n"), Embedder())
    again, more = Embedder(), Embedder()
    assert run(collection, write("a\nb\n"), again) == Indexed(0, 2, 0)
    assert run(collection, write("c\nb\nd\na"), more) == Indexed(2, 2, 0)
    assert (again.texts, more.texts) == ([], ["c", "d"])
    assert collection.count == 4


def test_a_line_that_comes_twice_is_stored_once(collection: Collection, write: Write) -> None:
    embed = Embedder()
    assert run(collection, write("a\na\nb\na"), embed, batch_size=2) == Indexed(2, 2, 0)
    assert embed.texts == ["a", "b"]


def test_only_line_ends_end_a_line(collection: Collection, write: Write) -> None:
    embed = Embedder()
    run(collection, write("a\u2028b\r\nc\x0bd\x0ce\x85f\rg\0h\n"), embed)
    assert embed.texts == ["a\u2028b", "c\x0bd\x0ce\x85f", "g\0h"]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("民法典\n😀\r\n".encode(), "utf-8"),
        ("民法典\n😀\r\n".encode("utf-8-sig"), "UTF8"),
        ("民法典\n😀\r\n".encode("gb18030"), "gb18030"),
        ("民法典\n😀\r\n".encode("utf-16"), "utf-16"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 16])
def test_encodings_are_read_whatever_the_chunks(
    collection: Collection,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    encoding: str,
    chunk_bytes: int,
) -> None:
    monkeypatch.setattr(indexing, "CHUNK_BYTES", chunk_bytes)
    embed = Embedder()
    run(collection, write(content), embed, encoding=encoding)
    assert embed.texts == ["民法典", "😀"]


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
@pytest.mark.parametrize("chunk_bytes", [2, 1 << 16])
def test_wrong_bytes_are_reported_with_their_place(
    collection: Collection,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    encoding: str,
    offset: int,
    chunk_bytes: int,
) -> None:
    monkeypatch.setattr(indexing, "CHUNK_BYTES", chunk_bytes)
    with pytest.raises(BadSettings) as refusal:
        run(collection, write(content), Embedder(), encoding=encoding)
    assert f"offset {offset};" in refusal.value.english
    assert f"偏移 {offset} " in refusal.value.chinese
    assert "--encoding" in refusal.value.english and "--encoding" in refusal.value.chinese


@pytest.mark.parametrize("encoding", ["nonsense", "base64"])
def test_an_unknown_encoding_is_refused(
    collection: Collection, write: Write, encoding: str
) -> None:
    with pytest.raises(BadSettings, match=encoding):
        run(collection, write("a"), Embedder(), encoding=encoding)


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_source_that_cannot_be_read_is_reported(
    collection: Collection, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadSettings, match="cannot be read"):
        run(collection, str(tmp_path / name), Embedder())


def test_standard_input_is_read(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("甲\n乙".encode()), "ascii"))
    assert run(collection, "-", Embedder()).added == 2


def test_an_interruption_loses_at_most_one_batch(collection: Collection, write: Write) -> None:
    source = write("\n".join(str(n) for n in range(10)))
    progress = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(collection, source, Embedder(fails_at=2), batch_size=3, progress=progress)
    assert collection.count == 6
    assert "indexed 6" in progress.getvalue()
    resumed = Embedder()
    assert run(collection, source, resumed, batch_size=3) == Indexed(4, 6, 0)
    assert resumed.texts == ["6", "7", "8", "9"]


def test_an_empty_source_adds_nothing(collection: Collection, write: Write) -> None:
    progress = io.StringIO()
    assert run(collection, write(""), Embedder(), progress=progress) == Indexed(0, 0, 0)
    assert progress.getvalue() == ""


def test_a_terminal_sees_one_line_move(
    collection: Collection, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "CHUNK_BYTES", 2)
    terminal = Terminal()
    source = write("a\nb\nc\nd\n")
    done = run(collection, source, Embedder(), clock=ticking(2), batch_size=1, progress=terminal)
    states = terminal.getvalue().split("\r")
    assert "indexed 1 " in states[1] and "left 0:06" in states[1]
    assert re.search(r"indexed 2 .* 0/s|indexed 2 .* 1/s", states[2])
    assert "left 0:00" in states[4]
    assert terminal.getvalue().count("\n") == 1 and states[-1].endswith("\n")
    assert done.seconds == 12


def test_a_log_gets_a_plain_line_now_and_then(collection: Collection, write: Write) -> None:
    log = io.StringIO()
    source = write("\n".join("abcdef"))
    run(collection, source, Embedder(), clock=ticking(6), batch_size=1, progress=log)
    lines = log.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        "已索引 indexed 2",
        "已索引 indexed 4",
        "已索引 indexed 6",
        "已索引 indexed 6",
    ]
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert indexing._duration(seconds) == text
