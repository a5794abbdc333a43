"""How much memory does the server hold, idle and under load, and does it grow?

    python -m benchmarks.memory [--model ARTIFACT] [--texts FOLDER] [--seconds 60]

Resident memory while idle, then every second during a closed loop of 16 clients on the mixed
workload. Grown: the mean of the last fifth minus that of the second fifth. One JSON line.
"""

import statistics
import sys
import threading
import time

from benchmarks import closedloop, machine, usage, workloads
from benchmarks.arguments import parser
from benchmarks.serve import server
from server.system.output import until_reader_leaves


def main() -> None:
    arguments = parser(__doc__, texts="mixed.json", seconds=60).parse_args()
    texts = workloads.load("mixed", 4000, arguments.texts)
    with server(arguments.model) as (url, pid, scratch):
        bodies = workloads.write_singles(scratch / "mixed", texts)
        time.sleep(1)
        idle = usage.resident_mb(pid)
        samples: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1):
                samples.append(usage.resident_mb(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        run = closedloop.run(f"{url}/embed", bodies, 16, arguments.seconds, 1)
        done.set()
        watcher.join()
    fifth = max(1, len(samples) // 5)
    line = {
        "case": "memory",
        "idle_mb": round(idle),
        "loaded_mb": round(max(samples)),
        "grown_mb": round(
            statistics.mean(samples[-fifth:]) - statistics.mean(samples[fifth : 2 * fifth]), 1
        ),
        "seconds": arguments.seconds,
        "requests": run["requests"],
    }
    machine.show(line, arguments)


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
