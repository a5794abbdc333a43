"""A plan in sentences, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks.capacity.databases import DATABASES
from benchmarks.capacity.measured import Measured
from benchmarks.capacity.plan import Load, Plan, Site
from benchmarks.capacity.quantity import shown_bytes, shown_count, shown_rate, shown_time


def sentences(load: Load, site: Site, known: Measured, made: Plan) -> Iterator[str]:
    """Yield the lines of the answer."""
    machines = f"{made.nodes:,} machine{'s' if made.nodes > 1 else ''} of {site.cores} cores"
    found = made.latency
    yield (
        f"{shown_count(load.documents)} document{'s' if load.documents > 1 else ''}"
        f" and {shown_rate(load.queries_s)} searches/s need {machines}"
        f" and {shown_bytes(made.memory_bytes)} of memory each:"
        f" p50 {shown_time(found.p50_s)}, p99 {shown_time(found.p99_s)},"
        f" {found.busy:.0%} of what the cores can do."
    )
    if site.store == "local":
        yield f"Disk of each: {shown_bytes(made.disk_bytes)}, with room for a backup or a rebuild."
    else:
        yield from _of_database(load, site, known, made)
    yield f"First indexing: {shown_time(made.first_index_s)}."
    yield (
        f"One machine with a local store ends at {shown_count(made.most_documents)} documents,"
        f" by its {made.limit}."
    )
    if site.core_hour:
        yield f"Cost of the cores: {made.cost_a_month:,.2f} a month{_database_apart(site)}."
    yield (
        f"From measured lines of {known.model} on {known.machine}:"
        f" {known.tokens_core_s:,.0f} tokens/s a core."
    )


def _of_database(load: Load, site: Site, known: Measured, made: Plan) -> Iterator[str]:
    database = DATABASES[site.store]
    yield (
        f"{database.name}: {shown_bytes(made.database_bytes)} of memory on {made.database_nodes:,}"
        f" machines of {shown_bytes(site.database_bytes)}, by its documentation, not measured:"
        f" {database.formula} ({database.source})."
    )
    if not site.database_s:
        yield (
            "The p99 is without the database's own search; --database-time adds what you measured."
        )


def _database_apart(site: Site) -> str:
    return "" if site.store == "local" else ", without the database's"


def as_json(load: Load, site: Site, known: Measured, made: Plan) -> dict[str, Any]:
    """Return the same as one object; times are in seconds, sizes in bytes."""
    source = {"model": known.model, "machine": known.machine}
    if site.store != "local":
        database = DATABASES[site.store]
        source |= {"database_formula": database.formula, "database_source": database.source}
    return {"load": asdict(load), "site": asdict(site), "plan": asdict(made), "source": source}
