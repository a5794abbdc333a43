"""Commands run in this process as typed at a terminal, with settings from variables."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from server.cli import parser
from server.config_sources import ENV_PREFIX


class Said(NamedTuple):
    out: str
    err: str


@dataclass(frozen=True)
class Commands:
    """Runs commands. data: the folder that they use."""

    data: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path, status: int = 0, locale: str = "C.UTF-8") -> Said:
        """Return what the command printed; it must end with `status`."""
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LC_ALL", locale)
            found = parser.main([str(argument) for argument in arguments])
        said = Said(*self.capsys.readouterr())
        assert found == status, said.err
        return said

    def refused(self, *arguments: str | Path) -> str:
        """Return the error in English and in Chinese, each of which is one line."""
        english = self(*arguments, status=1).err.splitlines()[-1]
        chinese = self(*arguments, status=1, locale="zh_CN.UTF-8").err.splitlines()[-1]
        assert english.startswith("error: ") and chinese.startswith("错误：")
        return f"{english}\n{chinese}"


def commands(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    """Commands with this artifact and this data folder, and no other setting."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in (("MODEL", model), ("DATA", data), ("LANES", 1)):
        monkeypatch.setenv(f"{ENV_PREFIX}{name}", str(value))
    return Commands(data, capsys)


def check_reranked(search: Callable[..., Said]) -> None:
    """Check what `search` prints with flags of reranking, with the toy scorer and 80 documents or more."""

    def hits(*flags: str) -> Any:
        return json.loads(search("--json", *flags).out)["hits"]

    plain = hits("--top-k", "80")
    assert "rerank_score" not in plain[0]
    best = hits("--top-k", "80", "--rerank-top-n", "80")
    scores = [hit["rerank_score"] for hit in best]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 10
    assert {hit["id"]: hit["score"] for hit in best} == {hit["id"]: hit["score"] for hit in plain}
    few = {hit["id"] for hit in plain[:5]}
    expected = [hit for hit in best if hit["id"] in few][:2]
    assert hits("--top-k", "2", "--rerank-top-n", "5") == expected
    assert hits("--top-k", "2", "--rerank-model", "toy-scorer") == hits("--top-k", "2", "--rerank")
    assert search("--rerank").out.startswith("1. relevance ")
    assert "outside 1 to 200" in search("--rerank-top-n", "201", status=1).err
    assert "top_k 9 is more than the 5" in search("--top-k=9", "--rerank-top-n=5", status=1).err


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
