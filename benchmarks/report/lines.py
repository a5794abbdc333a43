"""Result lines as runs of questions: the latest result of each, and how far others are from it.

A question is measured again and again. All its lines stay in the stored files, the latest counts, and
the lines before it are superseded: they show the spread. A line from a tree with uncommitted changes is
a draft. It counts only where a question has no other line, and is marked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import DIRTY, Line

# Numbers that are part of a question, not of its answer.
ASKED = ("clients", "load", "threads", "lanes", "texts", "rows", "share", "documents")
# Words that are not: what it ran with, and how it went.
SAID = ("setting", "versions", "reason", "generator", "peak_by", "no_peak")
# Facts that make a machine another one; newer software supersedes older.
MACHINE = ("cpu", "cores", "int8")


@dataclass(frozen=True, slots=True)
class Result:
    """The latest line of a question, and all its runs, the latest included, from old to new."""

    line: Line
    runs: Sequence[Line]

    @property
    def draft(self) -> bool:
        return is_draft(self.line)


def read(files: Sequence[Path]) -> list[Line]:
    """Return the lines of all files, each once; files are given from old to new."""
    texts = [text for file in files for text in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(text) for text in dict.fromkeys(texts) if text.startswith("{")]


def results(lines: Sequence[Line]) -> list[Result]:
    """Return a result for each question, in the order in which questions first come up."""
    questions: dict[str, list[Line]] = {}
    for line in lines:
        questions.setdefault(question(line), []).append(line)
    found = []
    for asked in questions.values():
        runs = [line for line in asked if not is_draft(line)] or asked
        found.append(Result(runs[-1], runs))
    return found


def is_draft(line: Line) -> bool:
    """Return whether the line comes from a tree with uncommitted changes."""
    return str(line["machine"].get("commit", "")).endswith(DIRTY)


def question(line: Line) -> str:
    """Return what the line answers: equal for two runs of the same question on the same machine."""
    asked = {
        key: value
        for key, value in line.items()
        if key in ASKED or (isinstance(value, str) and key not in SAID)
    }
    if line["case"] == "compare best":
        del asked["contender"]  # This is the answer.
    inputs = {key: value for key, value in line.get("inputs", {}).items() if key != "recipe"}
    machine = {key: line["machine"].get(key) for key in MACHINE}
    return json.dumps([asked, inputs, machine], sort_keys=True, ensure_ascii=False)
