"""The points of the plots come from the lines, and the same lines give the same picture."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the development packages are older than the plots")

from benchmarks.report.__main__ import write
from benchmarks.report.lines import read
from benchmarks.report.plots import CLOSED, OPEN, drawn, frontier, quality_measure, throughput

MACHINE = {"cpu": "x", "cores": 2, "commit": "abc", "load_average": 1.0}


def line(case: str, **values: object) -> dict[str, Any]:
    return {"case": case, **values, "machine": MACHINE}


def served(clients: int, per_s: float, p50_ms: float) -> dict[str, Any]:
    row = line("serve", workload="queries", clients=clients, served_per_s=per_s, p50_ms=p50_ms)
    return {**row, "p99_ms": 2 * p50_ms}


def open_loop(load: float, per_s: float, p50_ms: float) -> dict[str, Any]:
    row = line("latency", workload="queries", load=load, per_s=per_s, p50_ms=p50_ms)
    return {**row, "p99_ms": 3 * p50_ms}


def compared(contender: str, per_s: float) -> dict[str, Any]:
    return line("compare", workload="queries", contender=contender, per_s=per_s)


LINES = [
    served(1, 400.0, 2.5),
    served(64, 1100.0, 60.0),
    served(16, 900.0, 17.0),
    open_loop(0.9, 990.0, 9.0),
    open_loop(0.5, 550.0, 3.0),
    line("compare quality", contender="inkwell", cosine_mean=0.998),
    line("compare quality", contender="tutorial", cosine_mean=1.0),
    line("compare absent", contender="infinity", reason="no such version"),
    compared("inkwell", 840.0),
    compared("tutorial", 49.0),
    compared("without quality", 100.0),
    line("memory", idle_mb=180),
]


def test_loads_stand_from_the_least_to_the_most_by_kind_of_loop() -> None:
    found = throughput(LINES)
    closed, opened = found["queries", CLOSED], found["queries", OPEN]
    assert [load.label for load in closed] == ["c1", "c16", "c64"]
    assert [(load.label, load.per_s) for load in opened] == [("50%", 550), ("90%", 990)]
    assert (closed[0].p50_ms, closed[0].p99_ms) == (2.5, 5)


def test_loads_of_several_commits_are_not_joined() -> None:
    other = {**LINES[0], "machine": {**MACHINE, "commit": "def"}}
    assert {name for name, _ in throughput([*LINES, other])} == {"queries (abc)", "queries (def)"}


def test_contenders_need_a_speed_and_a_quality() -> None:
    found = frontier(LINES)["queries"]
    assert [(each.name, each.per_s, each.quality) for each in found] == [
        ("inkwell", 840, 0.998),
        ("tutorial", 49, 1.0),
    ]


def test_quality_is_the_task_where_all_have_it_and_the_cosine_otherwise() -> None:
    assert quality_measure(LINES) == "cosine_mean"
    with_task = [
        {**each, "sts_spearman": 76.7} if each["case"] == "compare quality" else each
        for each in LINES
    ]
    assert {each.quality for each in frontier(with_task)["queries"]} == {76.7}
    assert any(b"Spearman x 100 on STS-B" in plot.svg for plot in drawn(with_task))
    assert any(b"mean cosine to float32" in plot.svg for plot in drawn(LINES))


def test_the_same_lines_make_the_same_picture_with_readable_text() -> None:
    once, again = list(drawn(LINES)), list(drawn(LINES))
    assert once == again
    assert [plot.name for plot in once] == ["throughput", "frontier"]
    for plot in once:
        root = ElementTree.fromstring(plot.svg)
        texts = {text for each in root.iter() if (text := (each.text or "").strip())}
        assert plot.title in texts
        assert texts >= ({"c1", "c64", "90%"} if plot.name == "throughput" else {"tutorial"})
        assert b"<dc:date>" not in plot.svg


def test_what_was_not_measured_is_not_drawn() -> None:
    assert list(drawn([line("memory", idle_mb=180)])) == []


def test_the_document_of_several_files_holds_each_line_once_and_its_plots(tmp_path: Path) -> None:
    first, second, out = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.md"))
    texts = [json.dumps(each) for each in LINES]
    first.write_text("\n".join(texts[:6]) + "\n", encoding="utf-8")
    second.write_text("\n".join(["make: a command", "", *texts[4:]]) + "\n", encoding="utf-8")
    lines = read([first, second])
    assert lines == LINES
    write(lines, out)
    shown = out.read_text(encoding="utf-8")
    for file in ("c-throughput.svg", "c-frontier.svg"):
        assert f"({file})" in shown and (tmp_path / file).exists()
