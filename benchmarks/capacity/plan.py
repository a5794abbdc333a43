"""What a load needs: machines, their memory and disk, their p99, and what that costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.capacity.databases import DATABASES
from benchmarks.capacity.measured import LAW_TOKENS, SHIPPED_DIMENSION, Measured
from benchmarks.capacity.quantity import shown_rate
from benchmarks.capacity.queueing import (
    Overloaded,
    Seconds,
    Servers,
    balance,
    percentile_ms,
    spread,
    times,
)
from benchmarks.capacity.service import MAX_TOKENS, lengths_of, servers
from server.collections.read_queue import JOINED_S, LIGHT_S, MAX_JOINED
from server.collections.read_threads import MIN_THREADS
from server.config import Config
from server.doctor.checks.memory import BASE_BYTES, LANE_BYTES, ROOM
from server.inference.capacity import MAX_WIDE_THREADS
from server.store.hit_cache import MAX_BYTES as HITS_BYTES

# Above this part of the cores the model is not compared with servers, and every burst waits.
MOST_BUSY = 0.8
MOST_NODES = 10_000
# Bytes of memory a number of a vector, and on the disk, where the vector stands a second time.
MEMORY_A_NUMBER, DISK_A_NUMBER = 2, 4
# A backup, or an index that is rebuilt, needs the disk again.
DISK_ROOM = 2
HOURS_A_MONTH = 730
# The rate at which requests never meet.
LONELY = 1e-3


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the machines. Tokens are averages; the rates are of the busiest minute.

    p99_s: the time within which 99 of 100 searches are answered. filtered: the part that has a filter.
    """

    documents: int
    queries_s: float
    p99_s: float
    document_tokens: int = LAW_TOKENS
    query_tokens: int = 18
    writes_s: float = 0.0
    filtered: float = 0.0

    @property
    def parts(self) -> float:
        """Vectors: a document longer than the model reads has several."""
        return self.documents * max(1.0, self.document_tokens / MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Site:
    """What machines there are. store: local or a database. Bytes are of one machine.

    replicas: copies of everything. database_bytes: memory of a database's machine. database_s: time of
    one search there, as measured by the reader; 0 where it is not known.
    """

    store: str = "local"
    cores: int = 8
    memory_bytes: float = 32e9
    disk_bytes: float = 1e12
    replicas: int = 1
    database_bytes: float = 64e9
    database_s: float = 0.0
    core_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of searches on one machine: seconds. busy: part of what its cores can do."""

    p50_s: float
    p99_s: float
    busy: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. Bytes are of one machine, those of the database of all of its machines.

    most_documents: that one machine with a local store can hold, and which of its limits that is.
    """

    nodes: int
    latency: Latency
    memory_bytes: float
    disk_bytes: float
    first_index_s: float
    most_documents: float
    limit: str
    database_bytes: float = 0.0
    database_nodes: int = 0
    cost_a_month: float = 0.0


class Impossible(Exception):
    """Raised where no number of machines of this kind is enough; says why."""


def plan(load: Load, site: Site, measured: Measured) -> Plan:
    """Return what the load needs; raises Impossible."""
    if site.store == "local" and site.database_s:
        raise Impossible(
            "--database-time is of a database, and documents in a local store have none: name it with --store"
        )
    least = lonely(replace(load, documents=1), site, measured)
    if least > load.p99_s:
        raise Impossible(
            f"a p99 of {load.p99_s * 1e3:.1f} ms cannot be kept: a query of {load.query_tokens} tokens"
            f" with no other request and nothing to search among already takes {least * 1e3:.1f} ms,"
            f" {measured.http_s * 1e3:.1f} ms of it outside the model"
            f"{f', {site.database_s * 1e3:,.1f} ms in the database' if site.database_s else ''}"
        )
    most_documents, limit = one_machine(load, site, measured)
    if site.store == "local" and load.documents > most_documents:
        raise Impossible(
            f"one machine ends at {most_documents:,.0f} documents, by its {limit}:"
            f" {'allow a longer p99' if limit == 'p99' else 'take a larger one'}, or keep the vectors in a"
            " database (--store qdrant, milvus or postgres)"
        )
    if (needed := memory(load, site, measured)) > site.memory_bytes:
        raise Impossible(
            f"the model alone needs {needed / 1e9:.1f} GB of memory on a machine of {site.cores} cores,"
            f" which has {site.memory_bytes / 1e9:.1f} GB"
        )
    nodes, found = _enough(load, site, measured)
    database_bytes, database_nodes = database_size(load, site, measured)
    return Plan(
        nodes=nodes,
        latency=found,
        memory_bytes=memory(load, site, measured),
        disk_bytes=disk(load, site, measured),
        first_index_s=load.documents
        * load.document_tokens
        / (measured.tokens_core_s * site.cores * (1 if site.store == "local" else nodes)),
        most_documents=most_documents,
        limit=limit,
        database_bytes=database_bytes,
        database_nodes=database_nodes,
        cost_a_month=nodes * site.cores * site.core_hour * HOURS_A_MONTH,
    )


def lonely(load: Load, site: Site, measured: Measured) -> float:
    """Return the p99 of searches that never meet, in seconds: no number of machines has a lower one."""
    return latency(replace(load, queries_s=LONELY, writes_s=0.0), site, measured).p99_s


def _enough(load: Load, site: Site, measured: Measured) -> tuple[int, Latency]:
    """Return the least number of machines that keeps the p99, and what they do; raises Impossible."""

    def kept(nodes: int) -> Latency | None:
        try:
            found = latency(share(load, site, nodes), site, measured)
        except Overloaded:
            return None
        return found if found.p99_s <= load.p99_s and found.busy <= MOST_BUSY else None

    high = max(1, site.replicas)
    while kept(high) is None:
        high *= 2
        if high > MOST_NODES:
            raise Impossible(
                f"more than {MOST_NODES:,} machines of {site.cores} cores would be needed for"
                f" {shown_rate(load.queries_s)} searches and {shown_rate(load.writes_s)} new documents a second"
                f"{', which are written to each of them' if site.store == 'local' else ''}"
            )
    low = max(site.replicas, high // 2 + 1) if high > site.replicas else high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if kept(middle) else (middle + 1, high)
    found = kept(low)
    assert found is not None
    return low, found


def share(load: Load, site: Site, nodes: int) -> Load:
    """Return the load of one of several machines; a local store is written on each of them."""
    writes_s = load.writes_s if site.store == "local" else load.writes_s / nodes
    return replace(load, queries_s=load.queries_s / nodes, writes_s=writes_s)


def latency(load: Load, site: Site, measured: Measured) -> Latency:
    """Return the times of searches on one machine; raises Overloaded."""
    local = site.store == "local"
    read_s = _read_s(load, measured) if local else 0.0
    writing = load.writes_s * load.document_tokens / measured.tokens_core_s / site.cores
    beside = load.queries_s * (measured.request_s + read_s) / site.cores
    if writing + beside >= 1:
        raise Overloaded(load.queries_s, load.queries_s / (writing + beside))
    # Bulk work gives way, but a batch of it that runs shares the cores with the lane that does not wait.
    slow = (1 + writing / site.cores) / (1 - beside)
    lengths = lengths_of("queries", load.query_tokens)
    service = measured.service.slowed(slow * measured.crowding)
    lanes = servers(
        service,
        lengths,
        site.cores,
        lone=measured.crowding * wide(measured.wide, site.cores),
        hand_over_s=measured.hand_over_s,
    )
    total = (
        times(balance(load.queries_s, lanes), service.of_each(lengths))
        + measured.http_s
        + site.database_s
    )
    if local:
        total = total + _reading(
            load, measured, site.cores, slow * (1 + (measured.writing - 1) * writing)
        )
    embedding = load.queries_s / lanes.most_per_s * (1 - beside)
    busy = embedding + beside + writing
    return Latency(percentile_ms(total, 50) / 1e3, percentile_ms(total, 99) / 1e3, busy)


def wide(two: float, cores: int) -> float:
    """Return how many times as fast so many cores compute a lone text, by Amdahl's law from two."""
    threads = min(cores, MAX_WIDE_THREADS)
    serial = max(0.0, 2 / two - 1)
    return 1 / (serial + (1 - serial) / threads)


def _read_s(load: Load, measured: Measured) -> float:
    """Return the core seconds of a search beside its embedding."""
    return measured.searching.base_s + measured.searching.of_index(load.parts, load.filtered)


def _reading(load: Load, measured: Measured, cores: int, slow: float) -> Seconds:
    """Return the times of searches from vector to hits: those that wait run together, on any thread."""
    searching = measured.searching
    read_s = _read_s(load, measured) * slow
    index_s = read_s - searching.base_s * slow
    # Searches that are too long to join run each for itself, and leave a thread to the others.
    light = _read_s(load, measured) <= LIGHT_S
    joined = max(1.0, min(MAX_JOINED, JOINED_S / read_s)) if light else 1.0
    threads = max(MIN_THREADS, cores) - (not light)
    each_s = searching.base_s * slow + index_s * searching.joined
    variation = math.expm1(searching.spread**2)
    normal = np.sort(np.random.default_rng(0).standard_normal(len(spread(0))))
    alone_s = searching.base_s * slow + index_s * np.exp(searching.spread * normal)
    reader = Servers(
        threads, read_s, read_s, joined, read_s + (joined - 1) * each_s, variation, variation
    )
    return times(balance(load.queries_s, reader), alone_s, salt=10)


# --- memory and disk ------------------------------------------------------------------------------


def memory(load: Load, site: Site, measured: Measured) -> float:
    """Return the bytes that one machine should have, with room for a rebuild or a long request."""
    caches = Config().query_cache_bytes + HITS_BYTES
    lanes = LANE_BYTES * site.cores
    # The weights count twice: for the lanes and the wide session.
    process = BASE_BYTES + caches + lanes + 2 * measured.file_bytes
    vectors = load.parts * vector_bytes(measured) if site.store == "local" else 0.0
    return ROOM * (process + vectors)


def vector_bytes(measured: Measured) -> float:
    """Return the bytes of memory that a vector takes in the local index."""
    return measured.dimension * MEMORY_A_NUMBER + measured.code_bytes


def disk(load: Load, site: Site, measured: Measured) -> float:
    """Return the bytes of disk that one machine should have."""
    if site.store != "local":
        return 0.0
    # Text and index of words grow with the tokens; the measured documents are laws.
    longer = (measured.dimension - SHIPPED_DIMENSION) * DISK_A_NUMBER
    each = (measured.document_bytes + longer) * max(1.0, load.document_tokens / LAW_TOKENS)
    return DISK_ROOM * load.documents * each


def database_size(load: Load, site: Site, measured: Measured) -> tuple[float, int]:
    """Return the bytes of memory and the machines of the database, with its replicas."""
    if site.store == "local":
        return 0.0, 0
    database = DATABASES[site.store]
    room = 1.0 if database.roomy else ROOM
    one = load.parts * database.bytes_of(measured.dimension) * room
    return one * site.replicas, site.replicas * math.ceil(one / site.database_bytes)


def one_machine(load: Load, site: Site, measured: Measured) -> tuple[float, str]:
    """Return the documents at which one machine with a local store ends, and by which limit."""
    local = replace(site, store="local")

    def fits(limit: str, documents: int) -> bool:
        some = replace(load, documents=documents)
        if limit == "memory":
            return memory(some, local, measured) <= site.memory_bytes
        if limit == "disk":
            return disk(some, local, measured) <= site.disk_bytes
        try:
            return lonely(some, local, measured) <= load.p99_s
        except Overloaded:
            # Even one search in a quarter of an hour would not end before the next.
            return False

    ends = {limit: _last_that(partial(fits, limit)) for limit in LIMITS}
    least = min(ends, key=ends.__getitem__)
    return ends[least], least


LIMITS = ("memory", "disk", "p99")


def _last_that(holds: Callable[[int], bool], most: int = 10**11) -> int:
    """Return the largest number for which it holds, to three digits; 0 if it does not hold for 1."""
    low, high = 0, most
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2 if low == 0 else int(math.sqrt(low * high))
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
