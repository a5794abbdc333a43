"""Every number in the READMEs' result rows is the stored line's.

ROWS names, for each result row in order, the figures it shows. benchmarks/results/README.md says which
file holds the current lines of a case. After a new measurement change that table; this test then says
what the READMEs must show.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
READMES = ("README.md", "README.zh-CN.md")
DIRTY, MARK, RULE = "-dirty", "†", "|---"
# Lines of another machine than the one above the first table, and how their rows are marked.
OTHER_MACHINE, OTHER_MARK = "Xeon", "‡"
# Runs that only the int8 contenders took part in, with STS-B.
INT8_RUN = "2026-11-29.jsonl"
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
# Names and units with a digit in them, in both languages.
NAMES = re.compile(
    r"nDCG@10|recall@10|CMRC2018|bfloat16|float32|int8|base64|\b12x768\b|× 100|kill -9|\bp99\b"
    r"|\b512(?= tokens alone|\s*个 token)"
)
WORKLOADS = ("queries", "laws", "mixed")
# The quality of a `compare best` line whose contender's vectors are as near to float32 as the server's.
NEAR = "as near or nearer"
# The int8 contenders that score like float32 on STS-B, each where it is the faster one.
FASTER_INT8 = {"queries": "onnx", "laws": "openvino", "mixed": "openvino"}
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: the line it is taken from and how it is shown.

    fields: summed; a dot leads into an object. where: what the line has, which only one may. file: the
    stored file, if it is not the current one of the case.
    """

    case: str
    fields: tuple[str, ...]
    digits: int
    scale: float
    where: Mapping[str, Any]
    file: str | None = None

    def line(self) -> Line:
        file = self.file or current()[self.case]
        found = self.lines(file)
        assert len(found) == 1, f"{self}: {len(found)} lines in {file}"
        return found[0]

    def lines(self, file: str) -> list[Line]:
        return [
            line
            for line in stored(file)
            if line["case"] == self.case and self.where.items() <= line.items()
        ]

    def shown(self) -> str:
        line = self.line()
        total = sum(value_of(line, field) for field in self.fields)
        return f"{total * self.scale:,.{self.digits}f}"


def figure(case: str, fields: str, digits: int = 0, scale: float = 1, **where: Any) -> Figure:
    return Figure(case, tuple(fields.split()), digits, scale, where)


def value_of(line: Line, field: str) -> float:
    value: Any = line
    for key in field.split("."):
        value = value[key]
    return float(value)


def each_workload(case: str, field: str, digits: int, **where: Any) -> list[Figure]:
    return [figure(case, field, digits, workload=name, **where) for name in WORKLOADS]


def served(field: str, digits: int, workload: str, clients: int) -> Figure:
    return figure("serve", field, digits, workload=workload, clients=clients)


def in_int8_run(found: Figure) -> Figure:
    return replace(found, file=INT8_RUN)


def lead(workload: str, contender: str) -> Figure:
    where = {"workload": workload, "contender": contender, "clients": 16}
    return Figure("compare", ("ours_to_it",), 1, 1, where, INT8_RUN)


def spearman(contender: str) -> Figure:
    return Figure("compare quality", ("sts_spearman",), 2, 1, {"contender": contender}, INT8_RUN)


def best(workload: str, quality: str, contender: str) -> Figure:
    """The server's least lead, over `contender`; no figure once another one comes nearest."""
    where = {"workload": workload, "quality": quality, "contender": contender}
    return Figure("compare best", ("ours_to_it",), 1, 1, where)


def cosine(contender: str) -> Figure:
    return figure("compare quality", "cosine_mean", 3, contender=contender)


def shape_cosine(contender: str) -> Figure:
    return figure("shapes quality", "cosine_mean", 3, model="12x768", contender=contender)


def alone_ms(contender: str) -> Figure:
    return figure("shapes latency", "ms", model="12x768", shape="1x512", contender=contender)


def ndcg(mode: str) -> Figure:
    return figure("retrieval", "ndcg_at_10", 1, data="cmrc2018_dev", mode=mode)


def indexed(field: str, digits: int, rows: int, scale: float = 1) -> Figure:
    return figure("index search", field, digits, scale, rows=rows)


def at_frontier(field: str, digits: int, contender: str, effort: float) -> Figure:
    return figure("index frontier", field, digits, contender=contender, effort=effort)


SIXTEEN = served("clients", 0, "queries", 16)
COMPARED = figure("compare", "clients", workload="queries", contender="inkwell")
LAWS, MILLION = 63_762, 1_000_000
REST = "stage_ms.tokenize stage_ms.queue stage_ms.other"
# In the order of the READMEs: the beginning of the English row, and its figures from left to right.
ROWS: list[tuple[str, list[Figure]]] = [
    (
        "STS-B test",
        [
            figure("sts", "spearman", 2, model="served"),
            figure("sts", "spearman", 2, model="float32"),
        ],
    ),
    (
        "queries, one client, median",
        [served("p50_ms", 1, "queries", 1), served("encoder_ms", 1, "queries", 1)],
    ),
    (
        "requests/s",
        [
            SIXTEEN,
            *each_workload("serve", "served_per_s", 0, clients=16),
            *each_workload("serve", "raw_per_s", 0, clients=16),
        ],
    ),
    (
        "times as fast as ONNX Runtime or OpenVINO",
        [
            COMPARED,
            *(lead(workload, contender) for workload, contender in FASTER_INT8.items()),
            *(spearman(name) for name in ("onnx", "openvino", "inkwell")),
            *(in_int8_run(cosine(name)) for name in ("onnx", "openvino", "inkwell")),
        ],
    ),
    (
        "resident memory",
        [
            figure("memory", "idle_mb"),
            figure("memory", "loaded_mb"),
            figure("memory", "seconds"),
            figure("soak", "last_mb"),
            figure("soak", "seconds", scale=1 / 60),
        ],
    ),
    ("share of its own encoder", [SIXTEEN, *each_workload("serve", "ratio", 2, clients=16)]),
    (
        "queries, 64 clients",
        [served(field, 0, "queries", 64) for field in ("clients", "served_per_s", "raw_per_s")],
    ),
    (
        "queries, one client: mean",
        [served("stage_ms.infer", 1, "queries", 1), served(REST, 1, "queries", 1)],
    ),
    (
        "times as fast as PyTorch",
        [
            COMPARED,
            *(best(workload, NEAR, "torch") for workload in WORKLOADS),
            cosine("torch"),
            cosine("inkwell"),
        ],
    ),
    (
        "times as fast as the fastest",
        [
            COMPARED,
            best("queries", "any", "fastembed"),
            best("laws", "any", "openvino"),
            best("mixed", "any", "openvino"),
            cosine("fastembed"),
            cosine("openvino"),
            cosine("inkwell"),
        ],
    ),
    (
        "12x768, random weights",
        [
            *each_workload(
                "shapes workload", "ours_to_it", 2, model="12x768", contender="openvino"
            ),
            shape_cosine("openvino"),
            shape_cosine("inkwell"),
        ],
    ),
    ("12x768, one text", [alone_ms("inkwell"), alone_ms("openvino")]),
    ("start to ready", [figure("start-up", "ready_s", 1, data="empty")]),
    (
        "single queries beside",
        [figure("priority", "p99_ratio", 1), figure("priority", "bulk_ratio", 3)],
    ),
    (
        "ten times the load",
        [
            figure("overload", "seconds"),
            figure("overload", "accepted_p50_ms", 1, 1e-3),
            figure("overload", "accepted_p99_ms", 1, 1e-3),
            figure("overload", "accepted_bound_ms", 1, 1e-3),
        ],
    ),
    (
        "the same: refused",
        [
            figure("overload", field, 1)
            for field in ("refused_p50_ms", "refused_p99_ms", "recovery_s")
        ],
    ),
    (
        "cosine to float32 of",
        [
            figure("agreement", "texts"),
            figure("agreement", "mean", 4),
            figure("agreement", "minimum", 3),
        ],
    ),
    (
        "cosine to sentence-transformers",
        [
            figure("compare quality", "texts", contender="inkwell"),
            cosine("inkwell"),
            figure("compare quality", "cosine_min", 3, contender="inkwell"),
        ],
    ),
    ("CMRC2018", [ndcg("lexical"), ndcg("dense"), ndcg("hybrid"), ndcg("float32, exact")]),
    (
        "index of 63,762",
        [
            indexed("rows", 0, LAWS),
            indexed("p50_ms", 2, LAWS),
            indexed("recall_at_10", 3, LAWS),
            figure("index writes", "add_cpu_us", rows=LAWS),
        ],
    ),
    (
        "index of 1,000,000",
        [
            indexed("rows", 0, MILLION),
            figure("index search calibrated", "p50_ms", 1, rows=MILLION),
            figure("index search calibrated", "recall_at_10", 3, rows=MILLION),
            figure("index start", "resident_gb", 1, rows=MILLION),
            figure("index start", "load_after_kill_s", 1, rows=MILLION),
        ],
    ),
    (
        "index of 300,000",
        [
            at_frontier("rows", 0, "inkwell", 0.5),
            at_frontier("cpu_p50_ms", 2, "inkwell", 0.5),
            at_frontier("recall_at_10", 2, "inkwell", 0.5),
            at_frontier("cpu_p50_ms", 1, "faiss-hnsw", 1024),
            at_frontier("cpu_p50_ms", 1, "hnswlib", 1024),
            at_frontier("cpu_p50_ms", 1, "usearch", 1024),
        ],
    ),
    (
        "searches",
        [
            figure("collection", "parts"),
            *(
                figure("search", field, clients=16)
                for field in ("clients", "search_per_s", "embed_per_s")
            ),
        ],
    ),
    (
        "OpenAI's form",
        [
            figure("dialect rate", "texts", texts=512),
            figure("dialect rate", "base64_requests_per_s", 1, texts=512),
            figure("dialect rate", "engine_requests_per_s", 1, texts=512),
        ],
    ),
    ("indexing laws", [figure("ingest", "indexed_per_s"), figure("ingest", "raw_per_s")]),
    ("kill -9", [figure("kill", field) for field in ("kills", "acknowledged_writes", "lost")]),
]


@pytest.mark.parametrize("workload", FASTER_INT8)
def test_lead_over_int8_is_that_over_the_faster_contender(workload: str) -> None:
    leads = {name: lead(workload, name).line()["ours_to_it"] for name in ("onnx", "openvino")}
    assert FASTER_INT8[workload] == min(leads, key=lambda name: float(leads[name]))


# --- the stored lines -----------------------------------------------------------------------------


def tables(path: Path) -> Iterator[list[str]]:
    """Cells of every row of the document's tables, without headings and the marks of code."""
    rows = path.read_text(encoding="utf-8").splitlines()
    for row, below in zip(rows, [*rows[1:], ""], strict=True):
        if row.startswith("|") and not row.startswith(RULE) and not below.startswith(RULE):
            yield [cell.strip().replace("`", "") for cell in row[1:-1].split("|")]


@cache
def listed() -> dict[str, list[str]]:
    """By case: the current file, its commit, the recipe, the superseded files."""
    return {row[0]: row[1:] for row in tables(RESULTS / "README.md")}


def current() -> dict[str, str]:
    return {case: row[0] for case, row in listed().items()}


@cache
def stored(file: str) -> list[Line]:
    text = (RESULTS / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


FILES = sorted(path.name for path in RESULTS.glob("*.jsonl"))


def test_every_stored_case_is_listed_with_its_files() -> None:
    found: dict[str, set[str]] = {}
    for file in FILES:
        for line in stored(file):
            found.setdefault(line["case"], set()).add(file)
    named = {
        case: {name for name in [row[0], *row[3].split(", ")] if name}
        for case, row in listed().items()
    }
    assert named == found


@pytest.mark.parametrize("case", [case for case, file in current().items() if file])
def test_current_lines_are_of_the_commit_that_is_listed(case: str) -> None:
    file, commit, recipe, _ = listed()[case]
    lines = [line for line in stored(file) if line["case"] == case]
    assert {line["machine"]["commit"] for line in lines} == {commit}
    assert recipe


# --- the READMEs ----------------------------------------------------------------------------------


def result_rows(name: str) -> list[list[str]]:
    return list(tables(ROOT / name))


def numbers_in(cells: list[str]) -> list[str]:
    return NUMBER.findall(NAMES.sub(" ", " | ".join(cells)))


def test_numbers_of_a_row_are_found_and_names_passed_over() -> None:
    row = ["int8, 12x768, p99, 16 clients", "queries 1,001, laws 168", "nDCG@10 98.75；3.0倍"]
    assert numbers_in(row) == ["16", "1,001", "168", "98.75", "3.0"]


@pytest.mark.parametrize("name", READMES)
def test_every_result_row_has_its_figures_named(name: str) -> None:
    assert len(result_rows(name)) == len(ROWS)


@pytest.mark.parametrize("name", READMES)
@pytest.mark.parametrize("number", range(len(ROWS)), ids=[label for label, _ in ROWS])
def test_figures_are_those_of_the_stored_lines(name: str, number: int) -> None:
    label, figures = ROWS[number]
    cells = result_rows(name)[number]
    if name == READMES[0]:
        assert cells[0].startswith(label)
    assert numbers_in(cells) == [each.shown() for each in figures]


@pytest.mark.parametrize("name", READMES)
def test_rows_measured_with_uncommitted_changes_are_marked(name: str) -> None:
    marked = [MARK in cells[0] for cells in result_rows(name)]
    dirty = [any(is_dirty(each.line()) for each in figures) for _, figures in ROWS]
    assert marked == dirty


@pytest.mark.parametrize("name", READMES)
def test_rows_measured_on_another_machine_are_marked(name: str) -> None:
    marked = [OTHER_MARK in cells[0] for cells in result_rows(name)]
    other = [
        any(OTHER_MACHINE in each.line()["machine"]["cpu"] for each in figures)
        for _, figures in ROWS
    ]
    assert marked == other


def test_no_figure_rests_on_uncommitted_changes_where_a_later_clean_line_exists() -> None:
    for _, figures in ROWS:
        for each in figures:
            if is_dirty(each.line()):
                later = [file for file in FILES if file > current()[each.case]]
                assert all(is_dirty(line) for file in later for line in each.lines(file)), each


def is_dirty(line: Line) -> bool:
    return str(line["machine"]["commit"]).endswith(DIRTY)
