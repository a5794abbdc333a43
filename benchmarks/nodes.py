"""What do a proxy, several nodes and several processes cost, and what do they bring, on one machine?

    python -m benchmarks.nodes [--texts FOLDER] [--seconds 4] [--turns 5]

Queries in a closed loop, in turn within one run, over these ways:

    direct           one node with a lane for every core
    nginx, haproxy   the same node behind a proxy, with the example of deploy/nodes
    workers          one server of two processes (--workers 2), which share the lanes
    nginx, 2 nodes   two nodes behind nginx, which share the lanes

The proxies and the generator have no cores of their own. core_us is the time of a core that all processes of a
way took for a request, and front_us that of the proxy among them: other work on the machine changes them
little. rate_percent and p50_percent compare a way with
`direct`, turn by turn. Every text is unique. One JSON line per result. Needs nginx and haproxy.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import closedloop, machine, usage, workloads
from benchmarks.arguments import parser
from benchmarks.proxies import NoProxy, Proxy, haproxy, nginx
from benchmarks.serve import process
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves

CLIENTS = (1, 16, 64)
DIRECT = "direct"
KEYS = ("per_s", "p50_ms", "p99_ms", "core_us", "front_us", "generator_cpu")


class Way(NamedTuple):
    """Where requests go, and the processes that serve them. front: the proxy's, None without one."""

    url: str
    servers: tuple[int, ...]
    front: int | None = None

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU seconds of the servers, and of the proxy."""
        front = 0.0 if self.front is None else usage.cpu_s(self.front)
        return sum(map(usage.family_cpu_s, self.servers)), front


def main() -> None:
    arguments = parser(__doc__, texts="queries.json", seconds=4, turns=5).parse_args()
    texts = workloads.load("queries", 2000, arguments.texts)
    try:
        with tempfile.TemporaryDirectory() as name, ways(arguments.model, Path(name)) as found_ways:
            bodies = workloads.write_singles(Path(name) / "queries", texts)
            for clients in CLIENTS:
                turns = [
                    _turn(found_ways, bodies, clients, arguments.seconds, turn)
                    for turn in range(arguments.turns)
                ]
                for way in found_ways:
                    found = {"case": "nodes", "way": way, "clients": clients, **line(turns, way)}
                    machine.show(found, arguments)
    except NoProxy as missing:
        sys.exit(str(missing))


def _turn(
    ways: Mapping[str, Way], bodies: Path, clients: int, seconds: float, turn: int
) -> dict[str, dict[str, float]]:
    """Return the figures of each way."""
    figures = {}
    for place, (name, way) in enumerate(ways.items()):
        before = way.cpu_s()
        salt = turn * len(ways) + place
        found = closedloop.run(f"{way.url}/embed", bodies, clients, seconds, salt)
        servers, front = (
            1e6 * (after - first) / found["requests"]
            for after, first in zip(way.cpu_s(), before, strict=True)
        )
        figures[name] = {**found, "core_us": servers + front, "front_us": front}
    return figures


def line(turns: Sequence[Mapping[str, Mapping[str, float]]], way: str) -> dict[str, Any]:
    """Return medians over the turns, and of the differences to `direct` within each turn."""
    rows = []
    for turn in turns:
        direct, found = turn[DIRECT], turn[way]
        row = {key: found[key] for key in KEYS}
        row["rate_percent"] = 100 * (found["per_s"] / direct["per_s"] - 1)
        row["p50_percent"] = 100 * (found["p50_ms"] / direct["p50_ms"] - 1)
        rows.append(row)
    return {**machine.medians(rows, list(rows[0]), 3), "generator": closedloop.generator()}


@contextlib.contextmanager
def ways(model: Path, scratch: Path) -> Iterator[dict[str, Way]]:
    """Run every server and every proxy; yields the ways by name. One that is not asked takes no core."""
    cores = cpu_budget()
    half = max(1, cores // 2)

    def start(name: str, *flags: str) -> Way:
        command = [sys.executable, "-m", "server", "serve", "--model", str(model)]
        command += ["--collections", "off", *flags]
        url, pid = stack.enter_context(process(command, scratch / f"{name}.log", "/ready"))
        return Way(url, (pid,))

    def behind(proxy: Proxy, name: str, *nodes: Way) -> Way:
        folder = scratch / name
        folder.mkdir()
        ports = [int(each.url.rpartition(":")[2]) for each in nodes]
        front = stack.enter_context(proxy(ports, folder, ""))
        pids = tuple(pid for each in nodes for pid in each.servers)
        return Way(f"http://127.0.0.1:{front.port}", pids, front.pid)

    with ExitStack() as stack:
        direct = start(DIRECT, "--lanes", str(cores))
        two = [start(name, "--lanes", str(half)) for name in ("one", "other")]
        yield {
            DIRECT: direct,
            "nginx": behind(nginx, "nginx", direct),
            "haproxy": behind(haproxy, "haproxy", direct),
            "workers": start("workers", "--workers", "2", "--lanes", str(half)),
            "nginx, 2 nodes": behind(nginx, "nginx-2", *two),
        }


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
