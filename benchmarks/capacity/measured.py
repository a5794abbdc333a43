"""What the stored lines say of a model and a machine: every number of the capacity model that was measured.

Nothing here is assumed: a number that no line has raises NotMeasured, which names the case to run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.capacity.service import (
    MAX_TOKENS,
    ServiceTime,
    Tokens,
    fitted,
    lengths_of,
    saturated,
)
from benchmarks.encode import SHAPES
from benchmarks.machine import Line
from benchmarks.models.published import BY_NAME
from benchmarks.report.lines import read
from export.known.recognition import HIDDEN

RESULTS = Path(__file__).parents[1] / "results"
SHIPPED = "bge-small-zh-v1.5"
# Tokens of a law article, on average, in the lines of `serve` and `disk` (`benchmarks.workloads`).
LAW_TOKENS = 124
# Characters that make each request of a benchmark unique (`workloads.unique`).
MARK_TOKENS = 3
# Loads of `serve` whose lanes always find work, so that its rate is what they can do.
FULL = (("queries", 64), ("laws", 16), ("mixed", 16))
# Standard deviations between the median and the 99th percentile of a normal distribution.
DEVIATIONS = 2.3263


class NotMeasured(Exception):
    """Raised when no stored line has what the computation needs."""


@dataclass(frozen=True, slots=True)
class Searching:
    """What a search costs beside its embedding, on the thread that reads. Seconds of one core.

    base_s: without the index. index_s: of the index by its rows, ascending. rows: of the index that the
    base was measured beside. joined: the part of a lone search's index time that each of 16 together takes.
    spread: standard deviation of the logarithm of the index time. filtered: how many times as long the
    index takes with the dearest filter.
    """

    base_s: float
    index_s: Sequence[tuple[int, float]]
    joined: float
    spread: float
    filtered: float

    def of_index(self, rows: float, filtered: float = 0.0) -> float:
        """Return the seconds of the index among so many vectors; past the largest the last slope goes on.

        filtered: the part of searches that have a filter.
        """
        (x0, y0), (x1, y1) = self._around(rows)
        plain = max(0.0, y0 + (rows - x0) * (y1 - y0) / (x1 - x0))
        return plain * (1 + filtered * (self.filtered - 1))

    def _around(self, rows: float) -> tuple[tuple[int, float], tuple[int, float]]:
        above = next((i for i, (x, _) in enumerate(self.index_s) if x >= rows), len(self.index_s))
        place = min(max(above, 1), len(self.index_s) - 1)
        return self.index_s[place - 1], self.index_s[place]


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on one machine.

    cores: of that machine. service: of a lane, while the others rest. wide: how many times as fast two
    threads compute a lone text. crowding: how many times as long a batch takes while all lanes compute.
    request_s: core seconds of a request without tokens. http_s: of a lone request's time outside queue and
    model. hand_over_s: that this is longer where a request meets others.
    tokens_core_s: of large requests over HTTP, a core. writing: how many times as long a search takes while
    documents are added. code_bytes: of a vector in memory beside
    two bytes a number. document_bytes: of a law on the disk, with its vector of the shipped model.
    """

    model: str
    machine: str
    cores: int
    service: ServiceTime
    wide: float
    crowding: float
    request_s: float
    http_s: float
    hand_over_s: float
    tokens_core_s: float
    dimension: int
    file_bytes: float
    searching: Searching
    writing: float
    code_bytes: float
    document_bytes: float


def stored() -> list[Line]:
    """Return all lines of benchmarks/results, from old to new."""
    return read(sorted(RESULTS.glob("*.jsonl")))


def measured(lines: Sequence[Line], model: str = SHIPPED) -> Measured:
    """Return what the lines, from old to new, say of a model; raises NotMeasured."""
    laws = last(lines, "serve", workload="laws", clients=16)
    cores = int(laws["machine"]["cores"])
    narrow = encoded(lines, 1)
    share, file_mb = _beside_shipped(lines, model)
    request_s = last(lines, "loop", clients=16)["core_us"] / 1e6
    lone_ms = last(lines, "serve", workload="queries", clients=1)["stage_ms"]
    http_s = (lone_ms["tokenize"] + lone_ms["queue"] + lone_ms["other"]) / 1e3
    disk = last(lines, "disk")
    index = _index(lines)
    adding = last(lines, "search while adding")
    return Measured(
        model=model,
        machine=f"{cores} cores, {laws['machine']['cpu']}",
        cores=cores,
        service=narrow.slowed(1 / share),
        wide=_wide(lines, narrow),
        crowding=crowding(lines, narrow, cores, request_s),
        request_s=request_s,
        http_s=http_s,
        hand_over_s=max(0.0, _at_half_load_s(lines) - http_s),
        tokens_core_s=laws["served_per_s"] * LAW_TOKENS / cores * share,
        dimension=dimension(model),
        file_bytes=file_mb * 1e6,
        searching=_searching(lines, index, cores),
        writing=max(1.0, adding["adding_p50_ms"] / adding["idle_p50_ms"]),
        code_bytes=index[-1]["index"]["bytes_per_vector"] - 2 * SHIPPED_DIMENSION,
        document_bytes=disk["bytes_per_document"],
    )


def dimension(model: str) -> int:
    """Return the numbers of a vector of a model of the case `families`; raises NotMeasured for another."""
    if model not in BY_NAME:
        raise NotMeasured(f"no line of the case 'families', model {model}")
    config = BY_NAME[model].config
    return int(next(config[key] for key in HIDDEN if key in config))


SHIPPED_DIMENSION = dimension(SHIPPED)


def encoded(lines: Sequence[Line], threads: int) -> ServiceTime:
    """Return the service time of the shipped model by the lines of `encode`; raises NotMeasured."""
    return fitted(
        {
            tuple(lengths): sum(lengths)
            / last(lines, "encode", shape=shape, threads=threads)["here_ktok_s"]
            / 1e3
            for shape, lengths in SHAPES.items()
        }
    )


def crowding(lines: Sequence[Line], narrow: ServiceTime, cores: int, request_s: float) -> float:
    """Return how many times as long a batch takes while all lanes compute, by the lines of `serve`.

    They have the rate over HTTP of lanes that always find work. What the lanes would do, if each were as
    fast as one alone and the cores did nothing but this and `request_s` a request, follows from `encode`.
    """
    found = []
    for workload, clients in FULL:
        full = saturated(narrow, marked(workload))
        line = last(lines, "serve", workload=workload, clients=clients)
        a_text_s = cores / line["served_per_s"] - request_s
        found.append(a_text_s * full.texts / full.batch_s)
    return max(1.0, float(median(found)))


def marked(workload: str) -> Tokens:
    """Return token counts of a workload whose requests are all different: int64 (N,)."""
    return np.minimum(lengths_of(workload) + MARK_TOKENS, MAX_TOKENS)


def _wide(lines: Sequence[Line], narrow: ServiceTime) -> float:
    two = encoded(lines, 2)
    return max(1.0, median(narrow.of([n]) / two.of([n]) for n in (18, 64, 128)))


def _at_half_load_s(lines: Sequence[Line]) -> float:
    """Return the time of a request outside queue and model, at half load; `latency` has it as `rest`."""
    found = [
        last(lines, "latency", workload=name, load=0.5)["mean_ms"]
        for name in ("queries", "laws", "mixed")
    ]
    return float(median(mean["rest"] + mean["tokenize"] for mean in found)) / 1e3


def _searching(lines: Sequence[Line], index: Sequence[Line], cores: int) -> Searching:
    line, collection = last(lines, "search", clients=16), last(lines, "collection")
    whole_s = max(0.0, cores * (1 / line["search_per_s"] - 1 / line["embed_per_s"]))
    sizes = [(each["rows"], each["p50_ms"] / 1e3) for each in index]
    largest = index[-1]
    found = Searching(
        base_s=0.0,
        index_s=sizes,
        joined=min(1.0, largest["ms_a_query_of_16"] / largest["p50_ms"]),
        spread=math.log(largest["p99_ms"] / largest["p50_ms"]) / DEVIATIONS,
        filtered=_filtered(lines),
    )
    return replace(found, base_s=max(0.0, whole_s - found.of_index(collection["parts"])))


def _filtered(lines: Sequence[Line]) -> float:
    """Return how many times as long a search with the dearest filter takes, beside that run's without."""
    rows = last(lines, "index filter")["rows"]
    commit = _commit(last(lines, "index filter"))
    plain = [
        line["p50_ms"]
        for line in lines
        if (line["case"], line.get("rows"), _commit(line)) == ("index search", rows, commit)
    ]
    if not plain:
        raise NotMeasured(f"no line of `index search` with {rows} rows beside `index filter`")
    found = [
        line["p50_ms"]
        for line in lines
        if (line["case"], line.get("rows"), _commit(line)) == ("index filter", rows, commit)
    ]
    return max(1.0, float(max(found)) / float(plain[-1]))


def _index(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of compressed indexes that the last run measured, by their size; raises NotMeasured."""
    found = [
        line
        for line in lines
        if line["case"] == "index search" and line["index"]["kind"] != "exact"
    ]
    of_run = [line for line in found if _commit(line) == _commit(found[-1])]
    by_rows: Mapping[int, Line] = {line["rows"]: line for line in of_run}
    if len(by_rows) < 2:
        raise NotMeasured("no lines of `index search` with two sizes: run `make bench`")
    return [by_rows[rows] for rows in sorted(by_rows)]


def _beside_shipped(lines: Sequence[Line], model: str) -> tuple[float, float]:
    """Return a model's speed as a share of the shipped one's, and its file, MB.

    The cases `families` of one run, on a second of CPU time: the machine may have been busy.
    """
    shipped, other = (last(lines, "families", model=name) for name in (SHIPPED, model))
    return other["tokens_cpu_s_1x128"] / shipped["tokens_cpu_s_1x128"], other["file_mb"]


def _commit(line: Line) -> Any:
    return line["machine"].get("commit")


def last(lines: Sequence[Line], case: str, **where: Any) -> Line:
    """Return the newest line of a case with these values; raises NotMeasured."""
    for line in reversed(lines):
        if line["case"] == case and where.items() <= line.items():
            return line
    named = "".join(f", {key} {value}" for key, value in where.items())
    raise NotMeasured(f"no line of the case {case!r}{named}")
