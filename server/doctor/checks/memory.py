"""Check of memory: an estimate of what a server with these settings needs, and what is available."""

from collections.abc import Iterator

from server.doctor.facts import Facts
from server.doctor.findings import MB, Finding, Level
from server.messages.message import Message
from server.store.hit_cache import MAX_BYTES as HITS_BYTES

# A server with bge-small-zh-v1.5 (24.9 MB of weights, held once for the lanes and once for the wide
# session) has 181 MB idle and 214 MB after a minute of load on two lanes (2026-11-24, AVX512-VNNI).
BASE_BYTES, LANE_BYTES = 131 * MB, 17 * MB
# Each further process of --workers has 180 MB, of which 145 are its own: the rest, mostly code of
# libraries, is counted once.
SHARED_BYTES = 35 * MB
# Below this many times the need, a long request or a compaction may reach the limit.
ROOM = 1.5


def memory_needed(facts: Facts) -> int:
    """Estimate the bytes of all processes of a server with these settings under load.

    Each process holds all models and has its lanes; the first also holds collections and two caches.
    """
    copies = 2 if facts.wide_threads > 1 else 1
    models = sum(artifact.bytes for artifact in facts.artifacts) * copies
    each = BASE_BYTES + LANE_BYTES * facts.lanes + models
    indexes = sum(held.index_bytes for held in facts.collections)
    others = (facts.config.workers - 1) * (each - SHARED_BYTES)
    return each + others + indexes + facts.config.query_cache_bytes + HITS_BYTES


def of_memory(facts: Facts) -> Iterator[Finding]:
    need, limit = memory_needed(facts), facts.machine.memory_limit
    # Memory of a running server is no longer available, and counts within its own limit.
    available = None if facts.holder else facts.machine.memory_available
    bounds = [bound for bound in (limit, available) if bound is not None]
    least = min(bounds, default=None)
    found = Message(
        "about {need} MB needed; cgroup limit {limit}, available {available}",
        need=need // MB,
        limit=_mb(limit, Message("none")),
        available=_mb(facts.machine.memory_available, Message("unknown")),
    )
    level: Level = "ok"
    if least is not None and least < need * ROOM:
        level = "error" if least < need else "warning"
    advice = Message(
        "allow {need} MB, or serve fewer models with fewer --lanes or --workers",
        need=int(need * ROOM) // MB,
    )
    yield Finding(level, "memory", found, None if level == "ok" else advice)


def _mb(bytes: int | None, otherwise: Message) -> str | Message:
    return otherwise if bytes is None else f"{bytes // MB} MB"
