"""Runs uvicorn until a signal. The first lets accepted requests finish, a second one does not wait.

uvicorn itself would end by the signal that stopped it, and would ignore a second SIGTERM. The first
process of a server opens the address, tells its workers what a signal has told it, and shares new
connections with them; a worker only knows what it is told over its channel.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Set
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from server.channel import Channel, Kind, Message
from server.config import Config
from server.errors import BadSettings
from server.passing import Adopted, Dealt, Passing
from server.wire import Protocol
from server.workers import Workers


def listen(app: ASGIApp, config: Config, workers: Workers) -> None:
    """Serve until stopped; raises BadSettings where the address cannot be had."""
    protocol = partial(Dealt, workers.turn) if len(workers) else Protocol
    server = _First(_settings(app, config, protocol), workers)
    # uvicorn puts its own handlers in place while it runs, then raises what had stopped it again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    except SystemExit as end:
        if server.started or not end.code:
            raise
        raise BadSettings(
            f"cannot listen on {config.host}:{config.port}, the line above says why; if another"
            " server is running there, stop it or choose another --port",
            f"无法监听 {config.host}:{config.port}，原因见上一行；如该端口已被占用，"
            "请停止占用它的服务或用 --port 指定其他端口",
        ) from None


def work(
    app: ASGIApp, config: Config, channel: Channel, served: Set[bytes], page: Callable[[], bytes]
) -> None:
    """Serve the connections that come over the channel until it says stop, or closes.

    served: paths that are answered here. page: the metrics of this process.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # They are also sent to whole groups of processes; what they mean, the first process says.
        signal.signal(number, signal.SIG_IGN)
    _Worker(_settings(app, config, Protocol), channel, served, page).run()


def _settings(app: ASGIApp, config: Config, protocol: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        log_level=config.log_level,
        log_config=None,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=config.shutdown_s,
    )


class _Server(uvicorn.Server):
    """One that also serves connections which others have accepted."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._adopting: set[asyncio.Task[None]] = set()

    def adopt(self, message: Message, protocol: Callable[..., Protocol]) -> None:
        task = asyncio.create_task(self._adopt(message, protocol))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, message: Message, protocol: Callable[..., Protocol]) -> None:
        connection = message.connection
        if connection is None:
            return  # There were too many open files to receive it.
        make = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        # A client may have left on the way.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)

    async def adopted(self) -> None:
        """Until those that have come are connections like any other."""
        if self._adopting:
            await asyncio.wait(self._adopting)


class _First(_Server):
    def __init__(self, config: uvicorn.Config, workers: Workers) -> None:
        super().__init__(config)
        self._workers = workers

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and end at once if stopping already: nothing that was acknowledged can be lost."""
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)

    async def serve(self, sockets: Any = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            await self._workers.end()

    async def startup(self, sockets: Any = None) -> None:
        await self._workers.start(self._receive)
        await super().startup(sockets)

    def _receive(self, message: Message) -> None:
        self.adopt(message, partial(Adopted, message.content))

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        await self._workers.stop()
        await self.adopted()
        await super().shutdown(sockets)
        await self._workers.wait()


class _Worker(_Server):
    def __init__(
        self,
        config: uvicorn.Config,
        channel: Channel,
        served: Set[bytes],
        page: Callable[[], bytes],
    ) -> None:
        super().__init__(config)
        self._channel = channel
        self._protocol = partial(Passing, channel, served)
        self._page = page

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Nothing: see `work`."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup([])
        self._channel.listen(self._receive)
        await self._channel.deliver(Kind.READY)

    def _receive(self, message: Message | None) -> None:
        if message is None:
            # Without the first process nobody would start or stop this one.
            os._exit(1)
        if message.kind is Kind.CONNECTION:
            self.adopt(message, self._protocol)
        elif message.kind is Kind.PAGE:
            with contextlib.suppress(OSError):
                self._channel.send(Kind.PAGE, self._page())
        elif message.kind is Kind.STOP:
            self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:
        await self.adopted()
        # From here on connections are closed behind their reply, so that none is passed on.
        await self._channel.deliver(Kind.QUIET)
        await super().shutdown(sockets)
        self._channel.close()
