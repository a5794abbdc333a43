"""The programs of examples/ that need no other package do what they say, with the shipped model."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fakes import PATIENCE_S
from tests.support.processes import ROOT, environment, serving

EXAMPLES = ROOT / "examples"
QUESTION = "AI 能做哪些事?"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(shipped_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a program of examples/ against one server."""
    with serving(shipped_artifact, tmp_path_factory.mktemp("server")) as server:

        def run(
            name: str, *arguments: str | Path, typed: str = ""
        ) -> "subprocess.CompletedProcess[str]":
            command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
            return subprocess.run(
                command,
                input=typed,
                env=environment(INKWELL_URL=server.url),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )

        yield run


def test_tutorial_finds_what_it_stored_and_stores_it_once(run: Run) -> None:
    first = run("tutorial.py", typed=f"{QUESTION}\n\n")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("5 documents, 5 of them new\n")
    best = first.stdout.splitlines()[1]
    assert best.endswith("人工智能正在改变世界。") and float(best.split()[1]) > 0.4
    assert run("tutorial.py").stdout.startswith("5 documents, 0 of them new\n")


def test_retriever_prints_a_prompt_with_its_sources(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ai.md").write_text("# AI\n\n人工智能正在改变世界。\n", "utf-8")
    (tmp_path / "weather.txt").write_text("今天天气很好，适合出去郊游。\n", "utf-8")
    (tmp_path / "empty.txt").write_text("\n", "utf-8")
    found = run("retriever.py", tmp_path, QUESTION)
    assert found.returncode == 0 and found.stderr == "2 files new or changed\n"
    assert found.stdout.index("[1] sub/ai.md") < found.stdout.index("[2] weather.txt")
    assert found.stdout.endswith(f"Question: {QUESTION}\n\n")
    assert run("retriever.py", tmp_path, QUESTION).stderr == "0 files new or changed\n"
    assert "is no folder" in run("retriever.py", tmp_path / "none", QUESTION).stderr


def test_programs_say_what_is_wrong(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "tutorial.py"],
        env=environment(INKWELL_URL="http://127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1 and "is `make serve` running?" in done.stderr
