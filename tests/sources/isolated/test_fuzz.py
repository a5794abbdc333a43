"""Office files with bytes changed at random: each is read or refused with its name, and the next one is read."""

import random
from pathlib import Path

import pytest

pytest.importorskip("lxml", reason="needs the office extra")

from server.errors import BadSettings
from server.sources.isolated.limits import MB, Limits
from server.sources.isolated.read import read_apart
from server.sources.problems import Problems
from server.sources.source import Source
from tests.support import office_files as make

CASES = 400
LIMITS = Limits(wait_s=10.0, memory_bytes=512 * MB)
TABLE: list[list[object]] = [["id", "text", "n"], [1, "a", 2.5], [2, "b", "date:45296"]]
FILES = {
    "a.pdf": ("pdf", make.pdf([["深圳", "text"], None], "title")),
    "a.docx": ("docx", make.docx(make.paragraph("一", "Heading1") + make.paragraph("x"))),
    "a.xlsx": ("xlsx", make.xlsx({"S": TABLE})),
    "a.pptx": ("pptx", make.pptx([("a", "b", "c")])),
    "a.epub": ("epub", make.epub(["<h1>a</h1><p>b</p>"])),
    "a.html": ("html", b"<title>a</title><h1>b</h1><table><tr><td>c</table><p hidden>d"),
    "a.eml": ("eml", b"Subject: =?gbk?b?yrI=?=\nContent-Type: text/html; charset=gbk\n\n<p>a"),
}


def changed(dice: random.Random, data: bytes) -> bytes:
    """Return bytes with some of them replaced, removed, repeated or cut off."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        begin = dice.randrange(max(1, len(out)))
        end = begin + dice.choice((1, 1, 2, 4, 50))
        match dice.randrange(4):
            case 0:
                out[begin:end] = dice.randbytes(dice.choice((1, 4)))
            case 1:
                del out[begin:end]
            case 2:
                out[begin:begin] = out[begin:end] * dice.choice((1, 3, 200))
            case _:
                out[begin:end] = dice.choice((b"\0" * 4, b"\xff" * 4, b"<", b"&a;", b"99999999"))
    return bytes(out[: dice.choice((len(out), len(out), dice.randrange(len(out) + 1)))])


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("name", FILES)
def test_changed_file_is_read_or_refused_by_its_name(name: str) -> None:
    dice, (format, data) = random.Random(name), FILES[name]
    for _ in range(CASES):
        source = Source(name, (Path(name),), Path(), 0, problems=Problems(keep_going=True))
        try:
            for document, _ in read_apart(changed(dice, data), name, format, source, LIMITS):
                assert document.text.strip()
        except BadSettings as error:
            assert name in error.english
