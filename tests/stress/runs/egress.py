"""Does anything leave the machine while the server answers all kinds of requests?

    python -m tests.stress.runs.egress [--model ARTIFACT] [--hours 0.1]

Asks every operation of the server, with the examples of its own OpenAPI document, in rounds, while
strace notes each address that any of its threads gives to the kernel. An hour is PER_HOUR requests:
ten per second. Allowed are the loopback, on which it listens here, and sockets without a network. Any
other address ends the script with status 1, and so does a reply of 500 or more. One JSON line.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.serve import process
from server.api.description.names import COLLECTION
from server.api.openapi import EXAMPLES, PARAMETERS
from server.app import every_operation
from server.config import Config
from server.telemetry.metrics import Metrics

PER_HOUR = 36_000
CALLS = ("connect", "bind", "sendto", "sendmsg", "sendmmsg")
ADDRESS = re.compile(r"sa_family=AF_\w+[^}]*")
STAYS = re.compile(
    r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"|sa_family=AF_(?:UNIX|NETLINK|UNSPEC)\b'
)
# Addresses that a dependency might follow.
TEMPTING = {"texts": ["see http://192.0.2.1/x and https://example.com", "a@b.example"]}
NAME = "laws"
REPORT = "# 报告\n\n人工智能正在改变世界。".encode()


class Ask(NamedTuple):
    """One request of a round; body: what is sent as JSON; bytes: as a file; None: nothing."""

    method: str
    path: str
    body: Any = None


def main() -> None:
    arguments = _arguments()
    strace = shutil.which("strace")
    if strace is None:
        sys.exit(
            "strace is not installed; install it from Debian 未安装 strace，请从 Debian 软件源安装"
        )
    wanted = max(1, round(arguments.hours * PER_HOUR))
    statuses: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace"
        command = [*tracing(strace, trace), sys.executable, "-m", "server", "serve"]
        command += ["--model", str(arguments.model), "--data", str(Path(scratch) / "data")]
        with process(command, Path(scratch) / "server.log", "/ready") as (url, pid):
            try:
                while statuses.total() < wanted:
                    statuses.update(answers(url))
            finally:
                _stop_traced(pid)
        found = Counter(addresses(trace))
    machine.show(
        {
            "case": "egress",
            "requests": statuses.total(),
            "operations": len({(ask.method, ask.path) for ask in round_of_requests()}),
            "statuses": {str(status): count for status, count in sorted(statuses.items())},
            "addresses": dict(found),
        },
        arguments,
    )
    outside = [address for address in found if not STAYS.search(address)]
    if outside or not found or max(statuses) >= 500:
        sys.exit(f"addresses beyond this machine: {outside}; statuses: {dict(statuses)}")


def tracing(strace: str, trace: Path, calls: tuple[str, ...] = CALLS) -> list[str]:
    """Return the command to put before another, so that its `calls` are written to `trace`."""
    return [strace, "-f", "-qq", "-s", "4096", "-e", f"trace={','.join(calls)}", "-o", str(trace)]


def addresses(trace: Path) -> list[str]:
    """Return every socket address that was given to the kernel, in the order of the calls."""
    with trace.open(encoding="utf-8", errors="replace") as lines:
        return [
            address
            for line in lines
            if line.split(None, 1)[1].partition("(")[0] in CALLS
            for address in ADDRESS.findall(line)
        ]


def round_of_requests() -> Iterator[Ask]:
    """Yield requests for every operation, in an order in which each finds what it needs.

    The last ones remove everything again.
    """
    operations = every_operation(Config(), Metrics())
    posts = {each.path for each in operations if each.method == "POST"}
    yield Ask("POST", "/embed", TEMPTING)
    for prefix, inside in (("", ""), (COLLECTION, COLLECTION.format(collection=NAME))):
        for place, examples in EXAMPLES.items():
            if prefix + place in posts:
                yield from (Ask("POST", inside + place, body) for body in examples.values())
    for each in operations:
        if each.is_file:
            yield Ask("POST", f"{_filled(each.path)}?name=report.md", REPORT)
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        for each in operations:
            if each.method == method:
                yield Ask(method, _filled(each.path))


def _filled(path: str) -> str:
    values = {"collection": NAME, "id": PARAMETERS["id"]["example"]}
    return re.sub(r"{(\w+)(?::path)?}", lambda found: str(values.get(found[1], "ink")), path)


def answers(url: str) -> Iterator[int]:
    """Yield the status of each request of a round, sent over one connection."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    with contextlib.closing(connection):
        for ask in round_of_requests():
            body, headers = ask.body, {}
            if isinstance(body, bytes):
                headers["content-type"] = "application/octet-stream"
            elif body is not None:
                body, headers["content-type"] = json.dumps(body), "application/json"
            connection.request(ask.method, ask.path, body, headers)
            reply = connection.getresponse()
            reply.read()
            yield reply.status


def _stop_traced(pid: int) -> None:
    """Stop the program that strace runs; strace then ends. A signal to strace would leave it running."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        os.kill(int(child), signal.SIGTERM)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--hours", type=float, default=0.1, help="times PER_HOUR requests")
    return options.parse_args()


if __name__ == "__main__":
    main()
