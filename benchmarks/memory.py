"""How long does the server take to be ready, and how much memory does it hold under load?

    python -m benchmarks.memory [--model ARTIFACT] [--texts FOLDER] [--seconds 60]

Starts the server several times for the time from start to a successful /ready; then reads its
resident memory idle, and every second under a closed loop of 16 clients on the mixed workload.
Grown: the mean of the last fifth less that of the second fifth. One JSON line.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import closedloop, machine, workloads
from benchmarks.arguments import parser
from benchmarks.serve import server

STARTS = 5


def main() -> None:
    arguments = parser(__doc__, texts="mixed.json", seconds=60).parse_args()
    starts = []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(STARTS):
            began = time.perf_counter()
            with server(arguments.model, Path(scratch)):
                starts.append(time.perf_counter() - began)
        texts = workloads.load("mixed", 4000, arguments.texts)
        bodies = workloads.write_bodies(Path(scratch) / "mixed.jsonl", map(workloads.single, texts))
        with server(arguments.model, Path(scratch)) as (url, pid):
            time.sleep(1)
            idle = resident_mb(pid)
            samples: list[float] = []
            done = threading.Event()

            def watch() -> None:
                while not done.wait(1):
                    samples.append(resident_mb(pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            run = closedloop.run(f"{url}/embed", bodies, 16, arguments.seconds, 1)
            done.set()
            watcher.join()
    fifth = max(1, len(samples) // 5)
    line = {
        "case": "memory",
        "ready_s": round(statistics.median(starts), 2),
        "idle_mb": round(idle),
        "loaded_mb": round(max(samples)),
        "grown_mb": round(
            statistics.mean(samples[-fifth:]) - statistics.mean(samples[fifth : 2 * fifth]), 1
        ),
        "seconds": arguments.seconds,
        "requests": run["requests"],
    }
    machine.show(line)


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    sys.exit(f"process {pid} has ended")


if __name__ == "__main__":
    main()
