"""A model that is not there yet: where it is looked for, and that nothing is fetched without consent."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from server.cli import parser
from server.config import DEFAULT_MODEL

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a model, and a data home without one; no terminal."""
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    for name in ("INKWELL_MODEL", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    return home / "inkwell" / DEFAULT_MODEL


def test_nothing_is_fetched_without_consent(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parser.main(["serve"]) == 1
    said = capsys.readouterr().err
    assert "BAAI/bge-small-zh-v1.5" in said and "give --fetch" in said
    assert not empty.parents[2].exists()


def test_missing_packages_are_named_before_a_question_is_asked(
    empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name)
    )
    assert parser.main(["serve", "--fetch"]) == 1
    said = capsys.readouterr().err
    assert "onnx" in said and "inkwell-embeddings[export]" in said


def test_failed_download_says_what_to_do(
    empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert parser.main(["serve", "--fetch"]) == 1
    assert "was not fetched" in capsys.readouterr().err
    assert not empty.exists()


def test_fetched_model_is_used_by_every_command(
    empty: Path, toy_artifact: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(toy_artifact, empty)
    assert parser.main(["config"]) == 0
    assert str(empty) in capsys.readouterr().out
    (tmp_path / "a.txt").write_text("你好\n", encoding="utf-8")
    assert parser.main(["index", "a.txt"]) == 0
    assert parser.main(["config", "--model", "elsewhere"]) == 0
    assert str(empty) not in capsys.readouterr().out


def test_model_of_the_working_directory_goes_before_a_fetched_one(
    empty: Path, toy_artifact: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for place in (empty, tmp_path / DEFAULT_MODEL):
        shutil.copytree(toy_artifact, place)
    assert parser.main(["config"]) == 0
    assert str(empty) not in capsys.readouterr().out
