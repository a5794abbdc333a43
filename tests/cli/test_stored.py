"""Commands on documents and collections: in this process, and on a server that uses the folder."""

import io
import json
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli import display
from server.messages.terminal import Terminal
from server.store.records import Document
from tests.support.commands import Commands, write_lines
from tests.support.processes import serving

ROWS = [
    {
        "id": "a/1",
        "text": "墨池\n第二行",
        "title": "文房",
        "metadata": {"year": 2024, "标签": ["甲"]},
    },
    {"id": "b", "text": "砚台", "metadata": {"year": 2020}},
    {"id": "c", "text": "毛笔", "metadata": {"year": 2020}},
]


@pytest.fixture(scope="module")
def served(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running server."""
    folder = tmp_path_factory.mktemp("served")
    with serving(toy_artifact, folder):
        yield folder / "data"


@pytest.fixture
def place(either: Commands, tmp_path: Path) -> Commands:
    """Commands on a folder with three documents in the collection `main`."""
    lines = [json.dumps(row) for row in ROWS]
    either("index", write_lines(tmp_path / "rows.jsonl", lines), "--collection", "main")
    return either


OF_MAIN = ("--collection", "main")


def ids(place: Commands, *flags: str) -> list[str]:
    said = place("documents", "list", "--json", *OF_MAIN, *flags).out
    return [json.loads(line)["id"] for line in said.splitlines()]


def test_documents_are_listed_and_shown(place: Commands) -> None:
    assert place("documents", "list", *OF_MAIN).out.splitlines() == [
        "a/1\t文房\t墨池",
        "b\t\t砚台",
        "c\t\t毛笔",
    ]
    first = place("documents", "list", "--limit", "2", *OF_MAIN)
    assert len(first.out.splitlines()) == 2
    after = first.err.splitlines()[-1].removeprefix("there are more: --after ")
    assert ids(place, "--after", after) == ["c"]
    assert ids(place, "--filter", '{"year": 2020}') == ["b", "c"]
    assert place("documents", "get", "a/1", *OF_MAIN).out.splitlines() == [
        *("id: a/1", "title: 文房", "year: 2024", '标签: ["甲"]', "", "墨池", "第二行")
    ]
    (line,) = place("documents", "get", "b", "--json", *OF_MAIN).out.splitlines()
    assert json.loads(line) == {**ROWS[1], "title": None}
    assert "'none'" in place("documents", "get", "none", *OF_MAIN, status=1).err
    unlike = place("documents", "list", "--filter", '{"year": "2020"}', *OF_MAIN)
    assert unlike.out == "" and "warning: no value of 'year' can match" in unlike.err


def test_documents_are_deleted_by_ids_and_by_filter(place: Commands, tmp_path: Path) -> None:
    said = place("delete", "b", "none", *OF_MAIN)
    assert said.out == "deleted 1\n" and "not stored: 1" in said.err
    asked = ("delete", "--filter", '{"year": 2020}', *OF_MAIN)
    assert place.refused(*asked).count("--yes") == 2
    assert ids(place) == ["a/1", "c"], "nothing was removed without an answer"
    assert place(*asked, "--yes").out == "deleted 1\n"
    assert place(*asked, "--yes").out == "deleted 0\n"
    assert "keeps every document" in place("delete", "--filter={}", "--yes", *OF_MAIN, status=1).err
    file = write_lines(tmp_path / "ids", ["a/1", "", "b"])
    assert place("delete", "--ids-file", file, *OF_MAIN).out == "deleted 1\n"
    assert ids(place) == []


@pytest.mark.parametrize("flags", [(), ("b", "--filter", '{"a": 1}')])
def test_deletion_needs_ids_or_a_filter(run: Commands, flags: tuple[str, ...]) -> None:
    assert run.refused("delete", *flags).count("--ids-file") == 2
    assert not run.data.exists()


def test_collections_are_created_and_removed(place: Commands) -> None:
    flags = ("--chunk-tokens", "20")
    assert place("collections", "create", "short", *flags).out == "created short\n"
    assert "exists already" in place("collections", "create", "short", status=1).err
    assert "short  0 documents" in place("collections", "list").out
    assert place("collections").out == place("collections", "list").out
    assert place.refused("collections", "remove", "short").count("--yes") == 2
    assert place("collections", "remove", "short", "--yes").out == "removed short\n"
    assert "short" not in place("collections").out
    assert "short" in place("collections", "remove", "short", "--yes", status=1).err


def test_collections_are_renamed_and_have_aliases(place: Commands) -> None:
    place("collections", "create", "blue")
    assert place("collections", "aliases").out == "no aliases\n"
    assert place("collections", "alias", "live", "blue").out == "live leads to blue now\n"
    renamed = place("collections", "rename", "blue", "sky", "--keep-alias")
    assert renamed.out == "renamed blue: it is sky now\n"
    assert place("collections", "aliases").out == "blue  sky\nlive  sky\n"
    # An alias is a name for other commands, too, and for none that would make or remove a collection.
    assert place("documents", "list", "--collection", "live").out == ""
    assert "alias" in place("collections", "create", "live", status=1).err
    assert "alias" in place("collections", "remove", "live", "--yes", status=1).err
    assert "live" in place("collections", "remove", "sky", "--yes", status=1).err
    for alias in ("live", "blue"):
        assert place("collections", "unalias", alias).out == f"deleted the alias {alias}\n"
    assert "no alias" in place("collections", "unalias", "live", status=1).err
    place("collections", "remove", "sky", "--yes")


def test_flags_before_an_action_of_collections_are_kept(run: Commands, tmp_path: Path) -> None:
    run("collections", "--data", tmp_path / "other", "create", "a")
    assert (tmp_path / "other" / "collections" / "a").is_dir() and not run.data.exists()


@pytest.mark.parametrize(
    ("answer", "left"), [("y\n", []), ("是\n", []), ("n\n", ["b"]), ("\n", ["b"])]
)
def test_a_terminal_is_asked(
    run: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, left: list[str]
) -> None:
    run("index", write_lines(tmp_path / "rows.jsonl", [json.dumps(ROWS[1])]), *OF_MAIN)
    theirs, ours = pty.openpty()
    os.write(theirs, answer.encode())
    with open(ours, encoding="utf-8") as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        status = 1 if left else 0
        said = run("delete", "--filter", '{"year": 2020}', *OF_MAIN, status=status)
    os.close(theirs)
    assert said.err.startswith("delete 1 documents of collection main? [y/N] ")
    assert ids(run) == left


READING = (
    ("search", "墨"),
    ("search",),
    ("export", "-"),
    ("reindex",),
    ("check",),
    ("backup", "a", "file"),
    ("collections",),
    ("collections", "list"),
    ("collections", "remove", "a", "--yes"),
    ("documents", "list"),
    ("documents", "get", "a"),
    ("words", "get"),
    ("delete", "a"),
    ("doctor", "--port", "0"),
    ("config",),
)


@pytest.mark.parametrize("command", READING, ids=lambda command: " ".join(command))
def test_a_mistyped_folder_is_not_created_by_a_command_that_reads(
    run: Commands, command: tuple[str, ...]
) -> None:
    status = {"doctor": 0, "config": 0}.get(command[0], 2)
    run(*command, status=status)
    assert not run.data.exists()


class Window(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_fit_a_terminal_also_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal("en", Window(), io.StringIO())
    long = Document("一二三四五六七八九十", "墨池" * 40, "文房\x1b[2J四宝")
    line = display.listed(long, terminal)
    assert 39 <= display.width(line) <= 40 and line.endswith("…") and "\x1b" not in line
    short = display.listed(Document("b", "砚台"), terminal)
    assert line.index("文") - line.index("…") == 3
    assert display.width(short[: short.index("砚")]) == display.width(line[: line.index("文")])


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("墨池", 4), ("é", 1), ("e\u0301", 1), ("😀", 2), ("", 0)]
)
def test_width_is_that_of_a_terminal(text: str, columns: int) -> None:
    assert display.width(text) == columns
    assert display.width(display.padded(text, 6)) == 6
    assert display.width(display.fitted(text * 10, 5)) <= 5


def test_place_is_that_of_a_file() -> None:
    terminal = Terminal("zh", io.StringIO(), io.StringIO())
    place = {"file": "a/b.pdf", "page": 3, "heading": "总则 > 第一章", "year": 2024}
    assert display.place_of(place, terminal) == "a/b.pdf · 第 3 页 · 总则 > 第一章"
    sheet = {"file": "c.xlsx", "sheet": "价格", "row": 7}
    assert display.place_of(sheet, terminal) == "c.xlsx · 工作表 价格 · 第 7 行"
    assert display.place_of({"page": 3}, terminal) == ""
