"""How many requests does the server itself carry, also on more cores than this machine has?

    python -m benchmarks.lanes [--texts FOLDER] [--seconds 4] [--turns 3]

The real server, but its encoder sleeps instead of computing: a fixed time per token, and without the
interpreter's lock, like native code. Sleep takes no core, so any number of lanes sleep at the same
time, and what is left is the server's own work: its loop, its queue, the hand-over. It shares this
machine's cores with the generator. Single texts in a closed loop.

First an encoder that takes no time: requests per second of one process, and core_us, the time of a
core that all its threads took per request. Then SLEEP_US per token, by number of lanes: ideal_per_s
is the rate if nothing else took time, ratio is how near they came. One JSON line per result.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks import closedloop, machine, usage, workloads
from benchmarks.arguments import parser
from benchmarks.dialects import Instant
from benchmarks.serve import process
from server.app import create_app
from server.config import Config
from server.inference.model import Model
from server.net.reload import Reload
from server.net.server import listen
from server.net.worker_pool import WorkerPool
from server.store.folder import DataFolder
from server.system.output import until_reader_leaves
from server.system.systemd import Supervisor
from server.types import Ids, Packing, Vectors

CLIENTS = (1, 16, 64)
# About twice what a core needs for the shipped model, so that 16 lanes stay below the most that the
# loop carries. Beyond that the loop would be measured, not the lanes.
SLEEP_US = 200
LANES = (1, 2, 4, 8, 16)
# A free lane then always finds several texts.
CLIENTS_A_LANE = 16


class Asleep(Instant):
    """An encoder that takes time for each token, and no core."""

    def __init__(self, packing: Packing, dimension: int, us_a_token: float) -> None:
        super().__init__(packing, dimension)
        self._s_a_token = us_a_token / 1e6

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        if self._s_a_token:
            time.sleep(sum(map(len, texts)) * self._s_a_token)
        return super().encode(texts)


def main() -> None:
    arguments = _arguments()
    if arguments.port:
        _serve(arguments)
        return
    texts = workloads.load("queries", 2000, arguments.texts)
    model = Model(arguments.model)
    # Three more characters, as many as make each request unique.
    ids = model.tokenizer.encode(["天地人" + text for text in texts]).ids
    tokens = statistics.mean(map(len, ids))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        bodies = workloads.write_singles(scratch / "queries", texts)
        for clients in CLIENTS:
            found = _run(arguments, scratch, bodies, clients, lanes=0, us_a_token=0)
            machine.show({"case": "loop", "clients": clients, **found}, arguments)
        for lanes in LANES:
            found = _run(arguments, scratch, bodies, CLIENTS_A_LANE * lanes, lanes, SLEEP_US)
            ideal = lanes * 1e6 / (SLEEP_US * tokens)
            ratio = {"ideal_per_s": round(ideal, 1), "ratio": round(found["per_s"] / ideal, 3)}
            machine.show({"case": "lanes", "lanes": lanes, **found, **ratio}, arguments)


def _run(
    arguments: argparse.Namespace,
    scratch: Path,
    bodies: Path,
    clients: int,
    lanes: int,
    us_a_token: int,
) -> dict[str, float]:
    """Return medians over the turns."""
    command = [sys.executable, "-m", "benchmarks.lanes", "--model", str(arguments.model)]
    command += ["--lanes", str(lanes), "--us-a-token", str(us_a_token)]
    command += ["--data", str(scratch / f"data-{clients}-{lanes}")]
    rows = []
    with process(command, scratch / "server.log", "/ready") as (url, pid):
        for turn in range(arguments.turns):
            cpu = usage.cpu_s(pid)
            found = closedloop.run(f"{url}/embed", bodies, clients, arguments.seconds, turn)
            used = (usage.cpu_s(pid) - cpu) / found["requests"]
            rows.append({**found, "core_us": round(used * 1e6, 1)})
    keys = ("per_s", "p50_ms", "p99_ms", "core_us", "generator_cpu")
    return machine.medians(rows, keys, 3)


def _serve(arguments: argparse.Namespace) -> None:
    config = Config(
        port=arguments.port, data=arguments.data, lanes=arguments.lanes, log_level="warning"
    )
    model = Model(arguments.model)
    shape = model.manifest.packing, model.manifest.dimension
    model.encoder, model.wide = cast(Any, Asleep(*shape, arguments.us_a_token)), None
    app = create_app([model], config, DataFolder(config.data))
    reload = Reload(config, config, lambda: config, None)
    listen(app, config, WorkerPool(config), Supervisor(), reload, None, lambda url, state: None)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, texts="queries.json", seconds=4, turns=3)
    # The script starts itself with these as the server whose encoder sleeps.
    for name in ("--port", "--lanes", "--us-a-token"):
        options.add_argument(name, type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
