"""How many cores, machines, gigabytes and days do these documents and queries need?

    python -m benchmarks.sizing --documents 1000000 --queries 20 --new 5000
    python -m benchmarks.sizing --documents 1000000 --model bge-base-zh-v1.5 --results mine.jsonl

Computes from stored lines and measures nothing: `make bench >> mine.jsonl` gives those of your machine.
docs/en/how-to/size-machines.md explains the formula.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.system.output import until_reader_leaves

Line = dict[str, Any]
RESULTS = Path(__file__).with_name("results")
SHIPPED = "bge-small-zh-v1.5"
# Tokens of the texts of the workload of law articles, on average (`benchmarks.workloads`).
LAW_TOKENS = 124
# Of a core's time, so that a burst finds room: at twice this share, requests queue without end.
BUSY = 0.5
# Bytes of a vector in memory: two a number, and the compressed copy that finds candidates, which has one
# size. The line of `index search` with 1,000,000 vectors of 512 numbers has 1,130 bytes each.
INDEX_BYTES_A_NUMBER = 2
CODE_BYTES = 1130 - 2 * 512
# On the disk also the vector itself, in 16 bits: what a longer vector adds to the measured 512 numbers.
DISK_BYTES_A_NUMBER = INDEX_BYTES_A_NUMBER + 2
# `server/doctor/checks/memory.py` explains both. The weights count twice: for the lanes and the wide session.
BASE_MB, LANE_MB = 131 + 48, 17
# Above the estimate: a long request, an index that is being rebuilt beside the one that is used.
MEMORY_ROOM = 1.5
SECONDS_A_DAY = 86_400


class NotMeasured(Exception):
    """Raised when no stored line has what the computation needs."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the machines. queries, new: in the busiest hour, a second and a day."""

    documents: int
    queries_s: float
    new_a_day: float
    document_tokens: int = LAW_TOKENS
    query_tokens: int = 18
    cores: int = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on one machine. search_core_s: core seconds of a search beside its embedding."""

    model: str
    machine: str
    tokens_core_s: float
    dimension: int
    file_mb: float
    search_core_s: float
    search_core_s_a_million: float
    disk_bytes_a_law: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the load needs. first_index_h: hours to index all documents on one machine."""

    cores: float
    machines: int
    memory_gb: float
    disk_gb: float
    first_index_h: float


def plan(load: Load, measured: Measured) -> Plan:
    """Return what the load needs; a document longer than the model reads counts by its tokens."""
    parts = load.documents * max(1.0, load.document_tokens / 512)
    embedding = (
        load.queries_s * load.query_tokens + load.new_a_day / SECONDS_A_DAY * load.document_tokens
    ) / measured.tokens_core_s
    one_search = measured.search_core_s + measured.search_core_s_a_million * parts / 1e6
    cores = (embedding + load.queries_s * one_search) / BUSY
    index_mb = parts * (measured.dimension * INDEX_BYTES_A_NUMBER + CODE_BYTES) / 1e6
    process_mb = BASE_MB + LANE_MB * load.cores + 2 * measured.file_mb
    # Text and index of words grow with the tokens; the measured documents are laws of 124.
    law_bytes = measured.disk_bytes_a_law + (measured.dimension - 512) * DISK_BYTES_A_NUMBER
    disk = load.documents * law_bytes * max(1.0, load.document_tokens / LAW_TOKENS)
    return Plan(
        cores=cores,
        machines=max(1, math.ceil(cores / load.cores)),
        memory_gb=(process_mb + index_mb) * MEMORY_ROOM / 1000,
        # A backup, or an index that is rebuilt, needs the same again.
        disk_gb=disk * 2 / 1e9,
        first_index_h=load.documents
        * load.document_tokens
        / (measured.tokens_core_s * load.cores)
        / 3600,
    )


# --- stored lines ---------------------------------------------------------------------------------


def measured(lines: Iterable[Line], model: str = SHIPPED) -> Measured:
    """Return what the lines, from old to new, say of a model; raises NotMeasured."""
    stored = list(lines)
    laws = _last(stored, "serve", workload="laws", clients=16)
    cores = int(laws["machine"]["cores"])
    embed_s, search_s = _rates(_last(stored, "search", clients=16))
    small, large = _ends(stored)
    slope = (large["p50_ms"] - small["p50_ms"]) / (large["rows"] - small["rows"]) * 1e3
    rate = laws["served_per_s"] * LAW_TOKENS / cores
    share, dimension, file_mb = _beside_shipped(stored, model)
    return Measured(
        model=model,
        machine=f"{cores} cores, {laws['machine']['cpu']}",
        tokens_core_s=rate * share,
        dimension=dimension,
        file_mb=file_mb,
        search_core_s=max(0.0, cores * (1 / search_s - 1 / embed_s)),
        search_core_s_a_million=slope,
        disk_bytes_a_law=_last(stored, "disk")["bytes_per_document"],
    )


def _beside_shipped(lines: Sequence[Line], model: str) -> tuple[float, int, float]:
    """Return a model's speed as a share of the shipped one's, its numbers a vector and its file, MB.

    The cases `families` of one run, on a second of CPU time: the machine may have been busy.
    """
    both = [_last(lines, "families", model=name) for name in (SHIPPED, model)]
    shipped, other = (line["tokens_cpu_s_1x128"] for line in both)
    return other / shipped, DIMENSIONS.get(model, 768), both[1]["file_mb"]


# Numbers a vector; those that are not named here have 768.
DIMENSIONS = {SHIPPED: 512, "all-MiniLM-L6-v2": 384, "multilingual-e5-small": 384}


def _rates(line: Line) -> tuple[float, float]:
    return line["embed_per_s"], line["search_per_s"]


def _ends(lines: Sequence[Line]) -> tuple[Line, Line]:
    """Return the lines of the smallest and the largest compressed index that the last run measured."""
    found = [
        line
        for line in lines
        if line["case"] == "index search" and line["index"]["kind"] == "fastscan"
    ]
    of_run = [line for line in found if _commit(line) == _commit(found[-1])]
    if len({line["rows"] for line in of_run}) < 2:
        raise NotMeasured("no lines of `index search` with two sizes: run `make bench`")
    ordered = sorted(of_run, key=lambda line: line["rows"])
    return ordered[0], ordered[-1]


def _commit(line: Line) -> Any:
    return line["machine"].get("commit")


def _last(lines: Sequence[Line], case: str, **where: Any) -> Line:
    found = [line for line in lines if line["case"] == case and where.items() <= line.items()]
    if not found:
        named = "".join(f", {key} {value}" for key, value in where.items())
        raise NotMeasured(f"no line of the case {case!r}{named}")
    return found[-1]


def read(files: Iterable[Path]) -> Iterator[Line]:
    """Yield the lines of files, given from old to new."""
    for file in files:
        for text in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(text)


# --- command line ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan for the load that the flags state; return the exit status."""
    given = _parser().parse_args(arguments)
    load = Load(
        documents=given.documents,
        queries_s=given.queries,
        new_a_day=given.new,
        document_tokens=given.document_tokens,
        query_tokens=given.query_tokens,
        cores=given.cores,
    )
    try:
        found = measured(read([*sorted(RESULTS.glob("*.jsonl")), *given.results]), given.model)
    except NotMeasured as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print("\n".join(shown(load, found, plan(load, found))))
    return 0


def shown(load: Load, found: Measured, made: Plan) -> Iterator[str]:
    """Yield the lines of the answer."""
    yield f"{found.model} on {found.machine}: {found.tokens_core_s:,.0f} tokens/s a core"
    yield f"cores at the peak   {made.cores:.1f}, busy for {BUSY:.0%} of the time"
    yield f"machines            {made.machines} of {load.cores} cores"
    yield f"memory of each      {made.memory_gb:.1f} GB"
    yield f"disk of each        {made.disk_gb:.1f} GB, with room for one backup or rebuild"
    yield f"first indexing      {made.first_index_h:.1f} hours on one machine with all its cores"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--documents", type=_positive, required=True, help="documents to keep")
    add("--queries", type=float, default=10, help="searches a second at the peak (default: 10)")
    add("--new", type=float, default=0, help="new or changed documents a day (default: 0)")
    add("--document-tokens", type=_positive, default=LAW_TOKENS, help="on average (default: 124)")
    add("--query-tokens", type=_positive, default=18, help="on average (default: 18)")
    add("--cores", type=_positive, default=8, help="of one machine (default: 8)")
    add("--model", default=SHIPPED, help=f"a model of the case families (default: {SHIPPED})")
    add("--results", type=Path, nargs="*", default=[], help="your own lines, newer than the stored")
    return parser


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
