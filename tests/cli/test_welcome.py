"""What a server says when it answers."""

import json
import re
from pathlib import Path

import pytest

from tests.support.commands import Commands, write_lines
from tests.support.fakes import eventually
from tests.support.processes import environment, serving
from tests.support.pseudo_terminal import at_a_terminal

SERVE = ("serve", "--port", "0", "--lanes", "1")


@pytest.mark.parametrize(
    ("locale", "answers", "documents", "stop"),
    [
        ("C.UTF-8", "Inkwell answers at", "2 (default 2)", "Ctrl-C stops it"),
        ("zh_CN.UTF-8", "墨池已就绪", "2 条（default 2）", "按 Ctrl-C 停止"),
    ],
)
def test_person_who_starts_a_server_sees_what_to_try(
    run: Commands,
    toy_artifact: Path,
    tmp_path: Path,
    locale: str,
    answers: str,
    documents: str,
    stop: str,
) -> None:
    run("index", write_lines(tmp_path / "texts.txt", ["墨池", "砚台"]))
    flags = (*SERVE, "--data", run.data, "--model", toy_artifact)
    with at_a_terminal(*flags, LC_ALL=locale, MAKELEVEL="1") as talk:
        shown = talk("", stop)
        assert answers in shown and documents in shown
        found = re.search(r"curl (http://127\.0\.0\.1:\d+)/search ", shown)
        assert found and f"{found[1]}/docs" in shown
        assert "toy" in shown and "32" in shown
        assert "make index FILE=docs.txt" in shown and "make search" in shown
        talk("\x03", "Finished server process")


def test_log_of_a_server_has_one_line_of_it(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, "--log-format", "json", environ=environment()) as server:
        eventually(lambda: "ready at" in server.log.read_text())
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (said,) = [line["message"] for line in lines if line["logger"] == "server.cli.welcome"]
    assert said == f"ready at {server.url}: models toy; documents 0, collections 0"
