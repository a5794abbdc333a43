"""How many machines, how much memory and disk, and what p99, for these documents and queries?

    python -m benchmarks.capacity --documents 50M --queries 200/s --p99 100ms
    python -m benchmarks.capacity --documents 1B --queries 500/s --p99 200ms --store qdrant --json
    python -m benchmarks.capacity --documents 1M --results mine.jsonl

Computes from stored lines and measures nothing: `make bench >> mine.jsonl` gives those of your machine.
docs/en/how-to/size-machines.md explains the model and how far it is from servers.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.arguments import parser
from benchmarks.capacity.answer import as_json, sentences
from benchmarks.capacity.databases import DATABASES
from benchmarks.capacity.measured import LAW_TOKENS, SHIPPED, NotMeasured, measured, stored
from benchmarks.capacity.plan import Impossible, Load, Site, plan
from benchmarks.capacity.quantity import BYTES, RATES, TIMES, BadQuantity, quantity, whole
from benchmarks.report.lines import read
from server.system.output import until_reader_leaves


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan for the load that the flags state; return the exit status."""
    given = _parser().parse_args(arguments)
    load = Load(
        documents=given.documents,
        queries_s=given.queries,
        p99_s=given.p99,
        document_tokens=given.tokens,
        query_tokens=given.query_tokens,
        writes_s=given.writes,
        filtered=given.filtered,
    )
    site = Site(
        store=given.store,
        cores=given.cores,
        memory_bytes=given.memory,
        disk_bytes=given.disk,
        replicas=given.replicas,
        database_bytes=given.database_memory,
        database_s=given.database_time,
        core_hour=given.cost_per_core_hour,
    )
    try:
        known = measured([*stored(), *read(given.results)], given.model)
        made = plan(load, site, known)
    except (NotMeasured, Impossible) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if given.json:
        print(json.dumps(as_json(load, site, known, made), indent=2))
    else:
        print("\n".join(sentences(load, site, known, made)))
    return 0


def _of(read_text: Callable[[str], float]) -> Callable[[str], float]:
    def typed(text: str) -> float:
        try:
            return read_text(text)
        except BadQuantity as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, model=False)
    add = options.add_argument
    count = _of(whole)
    rate = _of(lambda text: quantity(text, RATES, 0, 1e7))
    time = _of(lambda text: quantity(text, TIMES, 1e-4, 3600))
    size = _of(lambda text: quantity(text, BYTES, 1e6, 1e15))
    tokens, few = _of(lambda text: whole(text, 1e6)), _of(lambda text: whole(text, 1024))
    add("--documents", type=count, required=True, help="documents to keep: 50M")
    add("--queries", type=rate, default=10.0, help="searches at the peak: 200/s (default: 10/s)")
    add("--p99", type=time, default=0.1, help="of a search: 100ms (the default)")
    add("--tokens", type=tokens, default=LAW_TOKENS, help="of a document, on average (124)")
    add("--query-tokens", type=tokens, default=18, help="of a query, on average (18)")
    add("--writes", type=rate, default=0.0, help="new documents: 5k/day, 2/s (default: none)")
    part = _of(lambda text: quantity(text, {"%": 0.01}, 0, 1))
    add("--filtered", type=part, default=0.0, help="of the searches that have a filter: 30%%")
    add("--model", default=SHIPPED, help=f"a model of the case families (default: {SHIPPED})")
    add("--store", choices=("local", *DATABASES), default="local", help="of vectors (local)")
    add("--replicas", type=few, default=1, help="copies of everything (1)")
    add("--cores", type=few, default=8, help="of one machine (8)")
    add("--memory", type=size, default=32e9, help="of one machine (32GB)")
    add("--disk", type=size, default=1e12, help="of one machine (1TB)")
    add("--database-memory", type=size, default=64e9, help="of a database's machine (64GB)")
    add("--database-time", type=time, default=0.0, help="of a search there, if you measured it")
    add("--cost-per-core-hour", type=_of(lambda text: quantity(text, {"": 1}, 0, 1e6)), default=0.0)
    add("--results", type=Path, nargs="*", default=[], help="your own lines, newer than the stored")
    add("--json", action="store_true", help="print one JSON object")
    return options


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
