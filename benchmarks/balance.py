"""How evenly does the kernel share new connections among processes with SO_REUSEPORT?

    python -m benchmarks.balance [--turns 50]

Each process has a listening socket of its own for one port, and the kernel picks one by a hash of the client's
address and port. Clients of a service keep their connections, so what they get is what they keep. Here all
sockets are in this process, which changes nothing about the hash.

busiest: the connections of the process that has most, over the mean; in a closed loop the others wait for it.
without: the share of processes that have none. `--workers` deals connections in turn, so busiest is 1 where
they are as many as the processes or a multiple, and without is 0. One JSON line per result.
"""

import argparse
import socket
import statistics
import sys
from contextlib import ExitStack

from benchmarks import machine
from server.system.output import until_reader_leaves

PROCESSES = (2, 4, 16)
CLIENTS = (16, 64, 256)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--turns", type=int, default=50, help="times that all clients connect")
    arguments = options.parse_args()
    for processes in PROCESSES:
        for clients in CLIENTS:
            rows = [shares(processes, clients) for _ in range(arguments.turns)]
            busiest = [max(row) * processes / clients for row in rows]
            without = [row.count(0) / processes for row in rows]
            found = {
                "busiest": round(statistics.mean(busiest), 2),
                "busiest_worst": round(max(busiest), 2),
                "without": round(statistics.mean(without), 3),
            }
            case = {"case": "balance", "processes": processes, "clients": clients}
            machine.show({**case, **found}, arguments)


def shares(processes: int, clients: int) -> list[int]:
    """Return how many of the clients' connections each process gets."""
    with ExitStack() as stack:
        first = stack.enter_context(_listening(0, clients))
        port: int = first.getsockname()[1]
        others = [stack.enter_context(_listening(port, clients)) for _ in range(processes - 1)]
        for _ in range(clients):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        return [_accepted(each, stack) for each in (first, *others)]


def _listening(port: int, backlog: int) -> socket.socket:
    made = socket.create_server(("127.0.0.1", port), backlog=backlog, reuse_port=True)
    made.setblocking(False)
    return made


def _accepted(listening: socket.socket, stack: ExitStack) -> int:
    number = 0
    while True:
        try:
            stack.enter_context(listening.accept()[0])
        except BlockingIOError:
            return number
        number += 1


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
