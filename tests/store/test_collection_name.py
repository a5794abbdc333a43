"""Names of collections in any script."""

import json
import re
import unicodedata
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from server.errors import InvalidRequest
from server.store.collection_name import MAX_BYTES, MAX_CHARACTERS, PATTERN, check_name, is_name
from server.store.folder import DataFolder
from server.store.folder_layout import FolderLayout
from tests.store.test_folder import INFO
from tests.support.commands import Commands, write_lines
from tests.support.processes import serving

LONGEST = "法" * MAX_CHARACTERS
POSSIBLE = ["default", "a.b", "_", "-", "9", "法律", "2024年报", "Straße", "हिन्दी", "ผู้ใช้", LONGEST]
IMPOSSIBLE = [
    *(
        "",
        ".",
        "..",
        ".a",
        ".法律",
        "a/b",
        "a b",
        "法律\u3000",
        "法，律",
        "（甲）",
        "a\n",
        "a\x00b",
    ),
    # Invisible, or reversing what follows; half of a character; a mark without a letter; not composed.
    *("a\u200b", "a\u202eb", "\udce5", "\u0301a", "e\u0301", "😀", "½", LONGEST + "律", "𠀀" * 49),
]


@pytest.mark.parametrize("name", POSSIBLE)
def test_names_that_users_write_are_possible(name: str) -> None:
    check_name(name)
    assert re.fullmatch(PATTERN, name)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_names_that_would_mislead_or_leave_the_folder_are_not(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a collection"):
        check_name(name)


def test_ascii_names_are_those_of_before() -> None:
    before = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
    for first in map(chr, range(128)):
        for name in (first, f"a{first}", f"{first}a"):
            assert (
                is_name(name) == bool(before.fullmatch(name)) == bool(re.fullmatch(PATTERN, name))
            )


def test_longest_name_is_possible_for_every_folder_of_a_collection(tmp_path: Path) -> None:
    longest = "𠀀" * (MAX_BYTES // 4)
    with closing(DataFolder(tmp_path)) as folder:
        folder.create(replace(INFO, name=longest))
    layout = FolderLayout(tmp_path)
    successor = layout.successor(longest, "0" * 32)
    successor.mkdir()
    assert layout.successors(longest) == [successor]


def test_folder_of_another_form_is_left_alone(tmp_path: Path) -> None:
    DataFolder(tmp_path).close()
    for name in ("e\u0301", "a b", b"\xff".decode("utf-8", "surrogateescape")):
        (tmp_path / "collections" / name).mkdir()
    with closing(DataFolder(tmp_path)) as folder:
        assert not folder.collections and not folder.damaged
    assert len(list((tmp_path / "collections").iterdir())) == 3


def test_chinese_name_goes_through_every_command(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "texts.txt", ["墨池", "砚台"])
    flags = ("--collection", "法律法规")
    run("index", path, *flags)
    assert "法律法规  2 documents" in run("collections").out
    run("backup", "法律法规", tmp_path / "backup")
    run("restore", tmp_path / "backup", "--collection", "副本")
    assert "副本: sound" in run("check").out
    run("reindex", *flags)
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        run("index", path, "--data", tmp_path / "data", *flags)
        found = json.loads(run("search", "墨", "--json", "--data", tmp_path / "data", *flags).out)[
            "hits"
        ]
        assert found[0]["text"] == "墨池"
        assert client.get(f"/collections/{quote('法律法规')}/stats").json()["documents"] == 2
        assert server.metric("parts", collection="法律法规") == 2
        said = client.post("/collections", json={"name": "法 律"}).json()["error"]
        assert "'法 律' cannot name a collection" in said["message"]


def test_name_typed_in_another_form_is_the_same_collection(run: Commands, tmp_path: Path) -> None:
    composed = "Übersicht"
    apart = unicodedata.normalize("NFD", composed)
    assert composed != apart
    path = write_lines(tmp_path / "texts.txt", ["墨池"])
    run("index", path, "--collection", apart)
    assert "unchanged 1" in run("index", path, "--collection", composed).out
    assert run("collections").out.startswith(f"{composed}  1 documents")
