"""Outlines of laws, Markdown, tables and code; noise; and how long both take at worst."""

import base64
import random
import time
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from server.store.documents import Documents
from server.store.passages.noise import noise, noise_length
from server.store.passages.outline import MAX_PATH, MAX_ROW, OUTLINE, Outline
from server.store.passages.reading import read_as, unwrapped
from server.store.records import ChunkRules, Document, Info, Span
from server.store.schema import words_of_all

LAW = """第一章 总则
第一条 为了保护测试者，制定本法。依照本法
第九条规定执行。
第二章 订立
第一节 一般规定
第二条 有下列情形之一的，应当测试：
（一）甲；
（二）乙。
第三条 其他。第四条 另有规定的除外。"""
IMAGE = base64.b64encode(random.Random(1).randbytes(900)).decode()


def context(text: str, at: str, title: str | None = None) -> str:
    return Outline.of(text).context(text.index(at), title)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("第一章", ""),
        ("第一条", "第一章 总则\n"),
        ("第九条", "第一章 总则 > 第一条\n"),
        ("第二章", ""),
        ("第二条", "第二章 订立 > 第一节 一般规定\n"),
        ("（一）", "第二章 订立 > 第一节 一般规定 > 第二条\n"),
        ("甲", "第二章 订立 > 第一节 一般规定 > 第二条 > （一）\n"),
        ("其他", "第二章 订立 > 第一节 一般规定 > 第三条\n"),
        ("第四条", "第二章 订立 > 第一节 一般规定\n"),
        ("除外", "第二章 订立 > 第一节 一般规定 > 第四条\n"),
    ],
)
def test_a_place_in_a_law_has_chapter_article_and_item_above_it(at: str, expected: str) -> None:
    assert context(LAW, at) == expected


def test_headings_of_markdown_are_above_a_place_but_not_comments_in_code() -> None:
    text = "# 手册\n\n## A\n\n```sh\n# no heading\nrun\n```\n\n### B\n\nx\n\n## C\n\ny"
    assert context(text, "run") == "手册 > A\n"
    assert context(text, "x") == "手册 > A > B\n"
    assert context(text, "y") == "手册 > C\n"
    assert context(text, "y", "手册") == "C\n"


def test_rows_of_a_table_have_its_header_above_them() -> None:
    text = "## Prices\n\n| name | price |\n|---|---|\n| a | 1 |\n| b | 2 |\n\nEnd."
    assert context(text, "| b") == "Prices\n| name | price |\n"
    assert context(text, "| name") == context(text, "End") == "Prices\n"
    assert context("姓名 | 年龄\n甲 | 3\n乙 | 4", "乙") == "姓名 | 年龄\n"


def test_lines_of_code_have_class_and_function_above_them() -> None:
    text = (
        "import os\n\n\nclass One:\n    # Note.\n    def two(self):\n        a = 1\n"
        "        return a\n\n\ndef three():\n    return 3\n"
    )
    assert context(text, "return a") == "class One: > def two(self):\n"
    assert context(text, "return 3") == "def three():\n"
    assert Outline.of(text).strength(text.index("# Note")) > 0


def test_sections_of_contracts_and_reports_are_found() -> None:
    text = "Article 3\nTerm.\n\n3.1 The Supplier shall deliver.\n\n3.2 The Customer shall pay."
    assert "3.2" in context(text, "pay")
    # Mentioned within a sentence.
    assert context("He cites\nArticle 5 of it. More.", "More") == ""


def test_what_is_repeated_is_bounded() -> None:
    text = "".join(f"{'#' * level} {'题' * 900}{level}\n" for level in range(1, 7)) + "x"
    assert len(context(text, "x")) <= MAX_PATH + 1
    table = f"{'a' * 999} | b\nc | d\ne | f"
    assert len(context(table, "e |")) <= MAX_ROW + 1


def test_images_and_certificates_are_noise_and_hashes_are_not() -> None:
    text = f"前 ![图](data:image/png;base64,{IMAGE}) 后"
    ((begin, end),) = noise(text)
    assert text[:begin] + text[end:] == "前  后"
    lines = "\n".join(IMAGE[at : at + 64] for at in range(0, len(IMAGE), 64))
    pem = f"a\n-----BEGIN KEY-----\n{lines}\n-----END KEY-----\nb"
    ((begin, end),) = noise(pem)
    assert pem[:begin] + pem[end:] == "a\n\nb"
    digest = "0123456789abcdef" * 8
    assert not noise_length(
        f"{digest} https://example.com/{'very-long-name-' * 20} {'a' * 500} {'ACGT' * 99}"
    )
    assert noise_length(f"a {digest * 2}") == 256
    # What is nothing else is kept.
    assert noise_length(digest * 2) == 0


def test_chinese_lines_that_were_full_are_joined() -> None:
    line = "用人单位自用工之日起即与劳动者建立劳动关系并"
    assert unwrapped(f"{line}\n应当{line}\n订立。\n另") == f"{line}应当{line}订立。\n另"
    assert unwrapped("甲\n乙") == "甲\n乙"
    assert read_as("题", "章\n", "甲") == "题\n章\n甲"


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        "# a\n",
        "\n",
        " ",
        "| a | b |\n",
        "```\n",
        "第一条 ",
        "（一）；",
        "a" * 199 + " ",
        "{\n",
        "\u3000第",
        "> ",
    ],
)
def test_outline_and_noise_take_linear_time(unit: str) -> None:
    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        begun = time.thread_time()
        Outline.of(text)
        noise_length(text)
        return time.thread_time() - begun

    # The least of several: other processes take caches away, and a quadratic one would take 64 times as long.
    small, large = (min(seconds(number) for _ in range(3)) for number in (8_000, 64_000))
    assert large < 24 * small + 0.1


def test_the_outline_that_the_index_of_words_depends_on_has_a_version() -> None:
    """A change of these lines needs another OUTLINE: stored words could not be removed otherwise."""
    text = f"{LAW}\n# A\n```\n# x\n```\n1.2 B\n\na | b\nc | d\ne | f\n## C\nArticle 3 D.\nx"
    outline = Outline.of(text)
    found = "".join(outline.context(place) for place in range(len(text)))
    assert (OUTLINE, zlib.crc32(found.encode())) == ("outline-1", 3095740569)


def test_words_of_chunks_have_the_headings_above_and_can_be_removed(tmp_path: Path) -> None:
    info = Info("main", "model", 4, ChunkRules(10, 2))
    document = Document("a", LAW, "法")
    spans = [Span(0, LAW.index("第二章")), Span(LAW.index("甲"), len(LAW))]
    with closing(Documents(tmp_path / "documents.sqlite3", info)) as documents:
        with documents.transaction():
            documents.add([document], np.ones((2, 4), dtype=np.float32), [spans])
        found = documents.words("一般规定", 2)
        assert found.labels.tolist()[0] == 2
        assert "一般" in dict(words_of_all(documents.database.writer))[2].split()
        with documents.transaction():
            documents.delete(["a"])
        ((left,),) = documents.database.rows("SELECT count(*) FROM terms")
        assert left == 0
