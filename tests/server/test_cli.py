"""The commands, run in this process on the toy artifact."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from server import VERSION, cli, indexing
from server.config import ENV_PREFIX
from tests.toys import toy_texts, write_toy_texts

Run = Callable[..., int]
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture
def run(toy_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command with the toy artifact and a data folder of its own."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    common = ("--model", str(toy_artifact), "--data", str(tmp_path / "data"), "--lanes", "1")

    def called(*arguments: str) -> int:
        return cli.main([*arguments, *common])

    return called


def test_what_was_indexed_is_found(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = toy_texts(80)
    path = write_toy_texts(tmp_path / "texts.txt", 80)
    assert run("index", str(path)) == 0
    said = capsys.readouterr().out
    assert "added 80, unchanged 0" in said and "已入库 80 条" in said

    assert run("search", texts[30], "--json", "--top-k", "2") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["query"] == texts[30]
    assert len(found["hits"]) == 2
    assert run("search", texts[30]) == 0
    assert "相似度 similarity" in capsys.readouterr().out


def test_indexing_again_embeds_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_toy_texts(tmp_path / "texts.txt", 20))
    assert run("index", path) == run("index", path) == 0
    assert "added 0, unchanged 20" in capsys.readouterr().out


def test_collections_are_apart(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_toy_texts(tmp_path / "texts.txt", 5))
    assert run("index", path, "--collection", "other") == 0
    assert run("search", "墨", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["hits"] == []


def test_prompt_of_an_empty_collection_says_what_to_do(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("search") == 0
    said = capsys.readouterr().out
    assert "python -m server index" in said and HAN.search(said)


def check_said_twice(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    english, chinese = capsys.readouterr().err.splitlines()[-2:]
    assert english.startswith("error: ") and chinese.startswith("错误：")
    for word in words:
        assert word in english and word in chinese


def test_file_that_is_not_there_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("index", "no-such-file.txt") == 1
    check_said_twice(capsys, "no-such-file.txt")


def test_collection_of_another_model_is_refused(
    run: Run, tmp_path: Path, toy_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("index", str(write_toy_texts(tmp_path / "texts.txt", 5))) == 0
    database = tmp_path / "data" / "collections" / "default" / "documents.sqlite3"
    content = database.read_bytes()
    fingerprint = json.loads((toy_artifact / "manifest.json").read_bytes())["fingerprint"].encode()
    assert content.count(fingerprint) == 1
    database.write_bytes(content.replace(fingerprint, b"0" * len(fingerprint)))
    assert run("search", "墨") == 1
    check_said_twice(capsys, "0" * len(fingerprint), fingerprint.decode())


def test_query_that_is_no_text_is_the_callers_error(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("index", str(write_toy_texts(tmp_path / "texts.txt", 5))) == 0
    assert run("search", "\udcff") == 1
    assert "error 错误: a text is not valid Unicode" in capsys.readouterr().err


def test_interruption_ends_with_its_own_status(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(indexing, "index_texts", interrupted)
    assert run("index", "-") == 130
    assert capsys.readouterr().err.endswith("stopped 已停止\n")


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5", ""])
def test_number_of_hits_is_above_zero(
    run: Run, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run("search", "墨", f"--top-k={number}")
    assert end.value.code == 2
    assert repr(number) in capsys.readouterr().err


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{VERSION}\n"


def test_without_a_command_the_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
