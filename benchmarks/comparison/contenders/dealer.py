"""One port for a process per core: the first process accepts connections and deals them out in turn.

Processes that all accept for themselves, as uvicorn's workers do, may leave every connection to one of
them. A worker ends when the first process does.
"""

import asyncio
import itertools
import os
import socket
import subprocess
from functools import partial

import uvicorn


class _Dealt(uvicorn.Server):
    """A uvicorn server for the connections that come over a socket instead of a port."""

    def __init__(self, config: uvicorn.Config, dealer: socket.socket) -> None:
        super().__init__(config)
        self._dealer = dealer
        # subtle: the loop does not keep its own tasks alive.
        self._opening: set[asyncio.Task] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        asyncio.get_running_loop().add_reader(self._dealer.fileno(), self._take)

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        _, dealt, _, _ = socket.recv_fds(self._dealer, 1, 1)
        if not dealt:
            loop.remove_reader(self._dealer.fileno())
            self.should_exit = True
        protocol = partial(
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for number in dealt:
            connection = socket.socket(fileno=number)
            task = loop.create_task(loop.connect_accepted_socket(protocol, connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)


def serve(app: object, dealer: int) -> None:
    """Serve the connections that come over the descriptor, until its other end is closed."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    _Dealt(config, socket.socket(fileno=dealer)).run()


def deal(command: list[str], port: int) -> None:
    """Start `command --dealer DESCRIPTOR` for every core, then deal out connections until killed."""
    dealers = []
    for _ in os.sched_getaffinity(0):
        ours, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        subprocess.Popen([*command, "--dealer", str(descriptor)], pass_fds=[descriptor])
        theirs.close()
        dealers.append(ours)
    with socket.create_server(("127.0.0.1", port)) as listener:
        for dealer in itertools.cycle(dealers):
            connection, _ = listener.accept()
            socket.send_fds(dealer, [b"."], [connection.fileno()])
            connection.close()
