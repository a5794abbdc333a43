"""What does the server itself carry, and on more cores than this machine has? The encoder only pretends.

    python -m benchmarks.lanes [--texts FOLDER] [--seconds 4] [--turns 3]

The real server, but its encoder sleeps instead of computing: so long for each token, and without the
interpreter's lock, as native code runs. Sleeping takes no core, so any number of lanes sleep side by
side, and what is left is the server's own: its loop, its queue, the handing over. They share this
machine's cores with the generator. Single texts in a closed loop.

First an encoder that takes no time: requests/s that one process carries, and core_us, what all its
threads took of a core for one of them. Then SLEEP_US a token, by number of lanes: ideal_per_s is what
they would finish if nothing else took time, ratio is how near they came. One JSON line a result.
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
from server.net.worker_pool import Workers
from server.store.folder import DataFolder
from server.system.systemd import Supervisor
from server.types import Ids, Packing, Vectors

CLIENTS = (1, 16, 64)
# About twice what a core needs for the shipped model, so that 16 lanes stay below the most that the
# loop carries: beyond that it would be measured, not they.
SLEEP_US = 200
LANES = (1, 2, 4, 8, 16)
# So that a lane finds several texts whenever it is free.
CLIENTS_A_LANE = 16


class Asleep(Instant):
    """Takes a time for each token, and no core."""

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
    # Each request is made unique with three characters more.
    ids = model.tokenizer.encode(["天地人" + text for text in texts]).ids
    tokens = statistics.mean(map(len, ids))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        bodies = workloads.write_bodies(scratch / "queries.jsonl", map(workloads.single, texts))
        for clients in CLIENTS:
            found = _run(arguments, scratch, bodies, clients, lanes=0, us_a_token=0)
            machine.show({"case": "loop", "clients": clients, **found})
        for lanes in LANES:
            found = _run(arguments, scratch, bodies, CLIENTS_A_LANE * lanes, lanes, SLEEP_US)
            ideal = lanes * 1e6 / (SLEEP_US * tokens)
            ratio = {"ideal_per_s": round(ideal, 1), "ratio": round(found["per_s"] / ideal, 3)}
            machine.show({"case": "lanes", "lanes": lanes, **found, **ratio})


def _run(
    arguments: argparse.Namespace,
    scratch: Path,
    bodies: Path,
    clients: int,
    lanes: int,
    us_a_token: int,
) -> dict[str, float]:
    """Medians over the turns."""
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
    return {key: round(statistics.median(row[key] for row in rows), 3) for key in keys}


def _serve(arguments: argparse.Namespace) -> None:
    config = Config(
        port=arguments.port, data=arguments.data, lanes=arguments.lanes, log_level="warning"
    )
    model = Model(arguments.model)
    shape = model.manifest.packing, model.manifest.dimension
    model.encoder, model.wide = cast(Any, Asleep(*shape, arguments.us_a_token)), None
    app = create_app([model], config, DataFolder(config.data))
    reload = Reload(config, config, lambda: config, None)
    listen(app, config, Workers(config), Supervisor(), reload, None)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, texts="queries.json", seconds=4, turns=3)
    # How it starts the server whose encoder pretends.
    for name in ("--port", "--lanes", "--us-a-token"):
        options.add_argument(name, type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
