"""Documents that follow a source: only what an earlier run of the same source stored is ever removed."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from server.cli import ingest
from server.cli.commands import index
from tests.support.commands import Commands
from tests.support.processes import serving


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with a text, a table and a nested file."""
    folder = tmp_path / "notes"
    (folder / "in").mkdir(parents=True)
    (folder / "a.md").write_text("# 甲\n墨池", encoding="utf-8")
    (folder / "in/b.txt").write_text("砚台", encoding="utf-8")
    (folder / "c.csv").write_text("id,text\n1,毛笔\n2,宣纸\n", encoding="utf-8")
    return folder


def stored(run: Commands, *flags: str) -> dict[str, str]:
    """Return the texts of all documents by id."""
    lines = run("documents", "list", "--limit", "1000", "--json", *flags).out.splitlines()
    return {each["id"]: each["text"] for each in map(json.loads, lines)}


def check_following(run: Commands, notes: Path, *flags: str) -> None:
    """Check how documents follow a folder, beside documents of other origin."""
    other = notes.parent / "other.txt"
    other.write_text("别处的文档\n", encoding="utf-8")
    run("index", other, *flags)
    (other_id,) = stored(run, *flags)
    sync: tuple[str, ...] = ("index", str(notes), "--sync", *flags)
    assert "would add: 4 (a.md, c.csv#1, c.csv#2, in/b.txt)" in run(*sync, "--dry-run").out
    assert len(stored(run, *flags)) == 1
    said = run(*sync).out
    assert "added 4, unchanged 0" in said and "removed 0" in said
    assert "added 0, unchanged 4" in run(*sync).out

    (notes / "in/b.txt").unlink()
    (notes / "a.md").write_text("墨池新文", encoding="utf-8")
    (notes / "c.csv").write_text("id,text\n2,宣纸\n3,镇纸\n", encoding="utf-8")
    plan = run(*sync, "--dry-run").out.splitlines()
    assert plan == [
        "would add: 1 (c.csv#3)",
        "would replace: 1 (a.md)",
        "would remove: 2 (c.csv#1, in/b.txt)",
        "unchanged: 1",
    ]
    said = run(*sync).out
    assert "added 2, unchanged 1" in said and "removed 2" in said
    assert stored(run, *flags) == {
        other_id: "别处的文档",
        "a.md": "墨池新文",
        "c.csv#2": "宣纸",
        "c.csv#3": "镇纸",
    }


def test_documents_follow_a_folder(run: Commands, notes: Path) -> None:
    check_following(run, notes)


def test_documents_on_a_server_follow_a_folder(
    run: Commands, notes: Path, toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path) as server:
        check_following(run, notes, "--url", server.url)


def test_a_source_that_is_empty_or_missing_removes_nothing(
    run: Commands, notes: Path, tmp_path: Path
) -> None:
    sync = ("index", notes, "--sync")
    run(*sync)
    moved = notes.rename(tmp_path / "moved")
    assert "cannot be read" in run.refused(*sync, "--allow-empty")
    notes.mkdir()
    assert "no files that are read" in run.refused(*sync)
    (notes / "blank.md").write_text("\n", encoding="utf-8")
    assert "has no documents, so nothing that follows it was removed" in run.refused(*sync)
    assert "has no documents" in run.refused(*sync, "--dry-run")
    assert len(stored(run)) == 4
    assert "removed 4" in run(*sync, "--allow-empty").out
    shutil.rmtree(notes)
    moved.rename(notes)
    assert "added 4" in run(*sync).out


def test_a_file_that_was_not_read_whole_keeps_its_documents(run: Commands, notes: Path) -> None:
    sync = ("index", str(notes), "--sync")
    run(*sync)
    (notes / "a.md").unlink()
    (notes / "c.csv").write_text('id,text\n1,毛笔\n2"宣纸\n', encoding="utf-8")
    (notes / "in/b.txt").write_bytes(b"\xff")
    assert "line 3" in run.refused(*sync)
    assert len(stored(run)) == 4
    plan = run(*sync, "--keep-going", "--dry-run", status=3)
    assert "would remove: 1 (a.md)" in plan.out
    said = run(*sync, "--keep-going", status=index.SOME_WRONG)
    assert "removed 1" in said.out and "of 2 files with errors nothing is removed" in said.err
    assert set(stored(run)) == {"c.csv#1", "c.csv#2", "in/b.txt"}


def test_a_line_of_two_files_stays_while_one_of_them_has_it(run: Commands, tmp_path: Path) -> None:
    """They share a document, which follows the file that was read last."""
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    for file in (a, b):
        file.write_text(f"shared\nof {file.name}\n", encoding="utf-8")
    sync = ("index", a, b, "--sync")
    assert "added 3" in run(*sync).out
    b.write_text("of b.txt\n", encoding="utf-8")
    # What cannot be read may have it.
    a.write_bytes(b"\xff")
    said = run(*sync, "--keep-going", "--allow-empty", status=3)
    assert "removed 0" in said.out and len(stored(run)) == 3
    a.write_text("shared\n", encoding="utf-8")
    assert "removed 1" in run(*sync).out
    assert set(stored(run).values()) == {"shared", "of b.txt"}
    a.write_text("new\n", encoding="utf-8")
    run(*sync)
    assert set(stored(run).values()) == {"new", "of b.txt"}


def test_a_folder_that_cannot_be_listed_keeps_its_documents_and_the_rest_is_stored(
    run: Commands, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if path == notes / "in":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    sync = ("index", notes, "--sync")
    run(*sync)
    (notes / "a.md").unlink()
    (notes / "d.md").write_text("丁", encoding="utf-8")
    # Root may list every folder.
    monkeypatch.setattr(os, "scandir", refuse)
    assert f"{notes}/in cannot be read: Permission denied" in run.refused(*sync)
    plan = run(*sync, "--keep-going", "--dry-run", status=3)
    assert "would add: 1 (d.md)" in plan.out and "would remove: 1 (a.md)" in plan.out
    said = run(*sync, "--keep-going", status=3)
    assert "added 1, unchanged 2" in said.out and "removed 1" in said.out
    assert said.err.count("in cannot be read: Permission denied") == 1
    assert set(stored(run)) == {"c.csv#1", "c.csv#2", "d.md", "in/b.txt"}


def test_a_dry_run_counts_what_stays_of_documents_with_the_same_id(
    run: Commands, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("id,text\n1,甲\n2,乙\n1,丙\n", encoding="utf-8")
    sync = ("index", rows, "--sync")
    assert "would add: 2 (2, 1)" in run(*sync, "--dry-run").out
    run(*sync)
    assert stored(run) == {"1": "丙", "2": "乙"}
    said = run(*sync, "--dry-run").out
    assert "would replace: 0" in said and "unchanged: 2" in said


def test_documents_that_another_file_replaces_by_their_ids_are_counted(
    run: Commands, tmp_path: Path
) -> None:
    for name, texts in (("a.csv", "甲乙"), ("b.csv", "丙丁戊")):
        rows = "".join(f"{number},{text}\n" for number, text in enumerate(texts))
        (tmp_path / name).write_text(f"序号,正文\n{rows}", encoding="utf-8")
    assert "replaced" not in run("index", tmp_path / "a.csv").err
    said = run("index", tmp_path / "b.csv")
    assert "added 3" in said.out
    assert "2 of the added documents replaced a stored one of the same id" in said.err
    assert "replaced" not in run("index", tmp_path / "b.csv").err


def test_an_interrupted_run_removes_nothing(
    run: Commands, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run("index", notes, "--sync")
    (notes / "a.md").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "index_documents", interrupted)
        run("index", notes, "--sync", status=130)
    assert len(stored(run)) == 4
    assert "removed 1" in run("index", notes, "--sync").out


def test_a_source_removes_nothing_of_another_one(
    run: Commands, notes: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    shutil.copytree(notes / "in", others)
    run("index", notes, "--sync")
    run("index", others, "--sync")
    (others / "b.txt").unlink()
    (others / "d.txt").write_text("丁", encoding="utf-8")
    assert "removed 1" in run("index", others, "--sync").out
    assert set(stored(run)) == {"a.md", "c.csv#1", "c.csv#2", "in/b.txt", "d.txt"}
    # The same folder, written in another way, is the same source.
    (notes / "a.md").unlink()
    assert "removed 1" in run("index", f"{notes}/../notes/", "--sync").out
    # Under a name of its own it is another one: nothing of it is known yet.
    (notes / "c.csv").unlink()
    assert "removed 0" in run("index", notes, "--sync", "--sync-name", "甲").out
    assert {"c.csv#1", "c.csv#2"} <= set(stored(run))


def test_lines_without_an_id_and_patterns_are_followed(run: Commands, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("甲\n乙\n丙\n", encoding="utf-8")
    run("index", lines, "--sync")
    lines.write_text("甲\n丙\n丁\n", encoding="utf-8")
    said = run("index", lines, "--sync").out
    assert "added 1, unchanged 2" in said and "removed 1" in said
    assert sorted(stored(run).values()) == ["丁", "丙", "甲"]
    pattern = str(tmp_path / "*.md")
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    run("index", pattern, "--sync", "--collection", "other")
    (tmp_path / "a.md").unlink()
    assert "removed 1" in run("index", pattern, "--sync", "--collection", "other").out
    assert len(stored(run)) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-", "--sync"), "standard input is no source"),
        (("--sync", "--sync-name", " "), "--sync-name ' ' is not 1 to 128"),
        (("--sync-name", "a"), "--sync-name is for --sync"),
        (("--allow-empty",), "--allow-empty is for --sync"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    run: Commands, notes: Path, arguments: tuple[str, ...], words: str
) -> None:
    source = () if arguments[0] == "-" else (notes,)
    assert words in run.refused("index", *source, *arguments)
    if arguments[0] == "--sync":
        error = run.refused("index", notes, notes / "in", "--sync", "--sync-name", "a")
        assert "is for one source, and there are 2" in error


def test_a_dry_run_creates_nothing(run: Commands, notes: Path) -> None:
    assert "would add: 4" in run("index", notes, "--dry-run").out
    assert not run.data.exists()
    run("index", notes / "c.csv")
    plan = run("index", notes / "c.csv", notes, "--dry-run").out
    assert "would add: 4" in plan and "unchanged: 2" in plan
    assert (
        "would add: 2 (1, 2)"
        in run("index", notes / "c.csv", "--dry-run", "--collection", "none").out
    )
    assert "none" not in run("collections").out
