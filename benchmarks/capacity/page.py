"""The tables and the plot of docs/*/how-to/size-machines.md, and what the command answers on other pages.

    python -m benchmarks.capacity.page           # print them
    python -m benchmarks.capacity.page --write   # put them into the pages of both languages

A table of the page stands behind a comment that names it, `<!-- table: NAME -->`. Its head belongs to the
language, its rows are written here, so that both pages have the same. What the command answers stands in
the block behind each block that calls it.
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import benchmarks.capacity.__main__ as command
from benchmarks.arguments import parser
from benchmarks.capacity.databases import DATABASES
from benchmarks.capacity.measured import SHIPPED, Measured, last, measured, stored
from benchmarks.capacity.plan import (
    Load,
    Site,
    database_size,
    memory,
    one_machine,
    plan,
)
from benchmarks.capacity.plot import Curve, drawn
from benchmarks.capacity.quantity import shown_bytes
from benchmarks.capacity.queueing import balance, percentile_ms, times
from benchmarks.capacity.service import lengths_of, servers
from benchmarks.capacity.simulation import simulate
from benchmarks.capacity.validation import Machine, modelled
from server.system.output import until_reader_leaves

DOCS = Path(__file__).parents[2] / "docs"
PAGES = tuple(DOCS / language / "how-to/size-machines.md" for language in ("en", "zh"))
# They show answers of the command, and none of the tables.
CITING = tuple(DOCS / language / "how-to/beyond-one-machine.md" for language in ("en", "zh"))
PLOT = DOCS / "images/capacity-memory.svg"
# A call of the command, and the block behind it.
CALL = re.compile(r"(benchmarks\.capacity (.*)\n```\n```\n)(?:.*\n)*?```")
BASE = "bge-base-zh-v1.5"
DAY = 86_400
# Documents, searches a second, new documents a day, model.
LOADS = (
    (100_000, 10, 0, SHIPPED),
    (1_000_000, 20, 5_000, SHIPPED),
    (1_000_000, 200, 50_000, SHIPPED),
    (1_000_000, 1_000, 50_000, SHIPPED),
    (10_000_000, 50, 50_000, SHIPPED),
    (1_000_000, 20, 5_000, BASE),
    (1_000_000, 200, 50_000, BASE),
)
# Cores, memory and disk in GB.
MACHINES = ((4, 16, 250), (8, 32, 500), (16, 128, 2_000))
LARGE = (50_000_000, 200_000_000, 1_000_000_000)
LARGE_QUERIES_S = 500
P99_S = 0.1
# Of the comparison with the server's policy.
TEXTS, SEED = 20_000, 7


def tables() -> Mapping[str, list[str]]:
    """Return the rows of every table, by its name."""
    lines = stored()
    known = {model: measured(lines, model) for model in (SHIPPED, BASE)}
    made: Mapping[str, Callable[[Mapping[str, Measured]], Iterator[Sequence[str]]]] = {
        "loads": _loads,
        "ends": _ends,
        "beyond": _beyond,
        "error": _error,
        "stored": _stored,
    }
    return {name: [f"| {' | '.join(row)} |" for row in rows(known)] for name, rows in made.items()}


def _loads(known: Mapping[str, Measured]) -> Iterator[Sequence[str]]:
    for documents, queries_s, new, model in LOADS:
        load = Load(documents, queries_s, P99_S, writes_s=new / DAY)
        made = plan(load, Site(), known[model])
        yield (
            f"{documents:,}",
            f"{queries_s:,}",
            f"{new:,}",
            model,
            f"{made.nodes}",
            f"{made.latency.p50_s * 1e3:.0f} ms",
            f"{made.latency.p99_s * 1e3:.0f} ms",
            shown_bytes(made.memory_bytes),
            shown_bytes(made.disk_bytes),
            f"{made.first_index_s / 3600:.2f} h",
        )


def _ends(known: Mapping[str, Measured]) -> Iterator[Sequence[str]]:
    for cores, memory_gb, disk_gb in MACHINES:
        site = Site(cores=cores, memory_bytes=memory_gb * 1e9, disk_bytes=disk_gb * 1e9)
        for p99_s in (0.1, 0.5):
            ends = [
                one_machine(Load(1, 10, p99_s), site, known[model]) for model in (SHIPPED, BASE)
            ]
            yield (
                f"{cores}",
                f"{memory_gb} GB",
                f"{disk_gb:,} GB",
                f"{p99_s * 1e3:.0f} ms",
                *(f"{most / 1e6:.1f} M, {limit}" for most, limit in ends),
            )


def _beyond(known: Mapping[str, Measured]) -> Iterator[Sequence[str]]:
    for documents in LARGE:
        for model in (SHIPPED, BASE):
            load = Load(documents, LARGE_QUERIES_S, P99_S)
            made = plan(load, Site(store="qdrant"), known[model])
            sizes = [database_size(load, Site(store=store), known[model])[0] for store in DATABASES]
            yield (
                f"{documents:,}",
                f"{known[model].dimension}",
                f"{made.nodes}",
                *map(shown_bytes, sizes),
                f"{made.first_index_s * made.nodes / 3600:,.0f} h",
            )


def _error(known: Mapping[str, Measured]) -> Iterator[Sequence[str]]:
    """Yield the model beside the server's own policy in simulated time."""
    service = known[SHIPPED].service
    for workload in ("queries", "laws", "mixed"):
        lengths = lengths_of(workload)
        alone_s = service.of_each(lengths)
        for lanes in (2, 8):
            made = servers(service, lengths, lanes)
            for part in (0.5, 0.8):
                rate = part * made.most_per_s
                expected = times(balance(rate, made), alone_s)
                random = np.random.default_rng(SEED)
                found = simulate(
                    np.cumsum(random.exponential(1 / rate, TEXTS)),
                    random.choice(lengths, TEXTS).tolist(),
                    lambda batch, _: service.of(batch),
                    lanes,
                ).latency_s
                pairs = [(percentile_ms(found, q), percentile_ms(expected, q)) for q in (50, 99)]
                yield (
                    workload,
                    f"{lanes}",
                    f"{part:.0%}",
                    *(f"{here:.1f} ms | {there:.1f} ms" for here, there in pairs),
                    f"{(pairs[1][1] / pairs[1][0] - 1) * 100:+.0f} %",
                )


def _stored(known: Mapping[str, Measured]) -> Iterator[Sequence[str]]:
    """Yield the model beside the stored lines of `latency`, whose peak it takes as measured."""
    lines, shipped = stored(), known[SHIPPED]
    for workload in ("queries", "laws", "mixed"):
        for part in (0.5, 0.7):
            line = last(lines, "latency", workload=workload, load=part)
            found = Machine(
                cores=shipped.cores,
                service=shipped.service,
                wide=shipped.wide,
                peak_per_s=line["peak_per_s"],
                http_s=shipped.http_s,
                hand_over_s=shipped.hand_over_s,
            )
            expected = modelled(workload, line["per_s"], found)
            pairs = [(line[f"p{q}_ms"], percentile_ms(expected, q)) for q in (50, 99)]
            yield (
                workload,
                f"{part:.0%}",
                *(f"{here:.1f} ms | {there:.1f} ms" for here, there in pairs),
                *(f"{(there / here - 1) * 100:+.0f} %" for here, there in pairs),
            )


def plot() -> bytes:
    """Return the plot of memory by documents: SVG."""
    known = measured(stored())
    counts = [float(count) for count in np.logspace(5, 9, 41)]
    site, load = Site(), Load(1, 10, P99_S)
    most, _ = one_machine(load, replace(site, memory_bytes=1e15, disk_bytes=1e18), known)
    local = [count for count in counts if count <= most]
    curves = [Curve("this server, measured", local, _gb(local, "local", known))]
    curves += [
        Curve(f"{DATABASES[store].name}, by its documentation", counts, _gb(counts, store, known))
        for store in DATABASES
    ]
    return drawn(curves)


def _gb(counts: Sequence[float], store: str, known: Measured) -> list[float]:
    found = []
    for count in counts:
        load = Load(int(count), 10, P99_S)
        site = Site(store=store)
        one = memory(load, site, known) if store == "local" else database_size(load, site, known)[0]
        found.append(one / 1e9)
    return found


def written(page: str, rows: Mapping[str, list[str]]) -> str:
    """Return the page with these rows in its tables; raises ValueError where a table is missing."""
    for name, lines in rows.items():
        found = re.compile(rf"(<!-- table: {name} -->\n\n\|.*\n\|[-:|]+\|\n)(?:\|.*\n)*")
        place = found.search(page)
        if place is None:
            raise ValueError(f"the page has no table {name!r}")
        page = page[: place.end(1)] + "".join(f"{line}\n" for line in lines) + page[place.end() :]
    return page


def answered(page: str) -> str:
    """Return the page with the command's answer behind every block that calls it."""
    return CALL.sub(lambda call: f"{call[1]}{answer(call[2])}```", page)


def answer(arguments: str) -> str:
    """Return what the command prints for these arguments, on either stream."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        command.main(arguments.split())
    return printed.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__, model=False)
    options.add_argument("--write", action="store_true", help="put them into docs/")
    given = options.parse_args(arguments)
    rows = tables()
    if not given.write:
        for name, lines in rows.items():
            print(f"{name}\n" + "\n".join(lines))
        return
    for page in PAGES:
        text = written(page.read_text(encoding="utf-8"), rows)
        page.write_text(answered(text), encoding="utf-8")
    for page in CITING:
        page.write_text(answered(page.read_text(encoding="utf-8")), encoding="utf-8")
    PLOT.write_bytes(plot())


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
