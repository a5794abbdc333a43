"""Runs uvicorn until a signal. The first lets accepted requests finish, a second one does not wait.

uvicorn itself would end by the signal that stopped it, and would ignore a second SIGTERM. The first
process of a server opens the address, tells its workers what a signal has told it, and shares new
connections with them; a worker only knows what it is told over its channel.
"""

import asyncio
import contextlib
import logging
import math
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Set
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from server.app import App
from server.clock import now
from server.config import Config
from server.errors import BadSettings, StartupError
from server.net.certificates import Tls
from server.net.handoff import Adopted, Dealt, Passing
from server.net.http_protocol import Limits, Protocol
from server.net.ipc import Channel, Kind, Message
from server.net.reload import Reload, take_over
from server.net.tls_protocol import Handshake
from server.net.unix_socket import Door
from server.net.worker_pool import Workers
from server.system.host import files_wanted
from server.system.systemd import Supervisor

# Seconds between two signs of life that a worker gives; `workers` says what their absence means.
BEAT_S = 1.0
# Seconds that a worker has at least to say that it passes nothing on any more, which takes it 0.1.
QUIET_S = 2.0
# Seconds that workers may end later than this process: they are told to a little later, and then have only
# to let go of what they hold. The unit of `deploy` kills all processes ten seconds after `shutdown_s`.
LATE_S = 5.0
# Seconds until the supervisor is told once more what it had no room for.
AGAIN_S = 0.5

log = logging.getLogger(__name__)


def listen(
    app: App,
    config: Config,
    workers: Workers,
    supervisor: Supervisor,
    reload: Reload,
    tls: Tls | None,
) -> None:
    """Serve until stopped; raises BadSettings where the address cannot be had."""
    limits = Limits.of(config)
    protocol = (
        partial(Dealt, workers.turn, limits=limits) if len(workers) else partial(Protocol, limits)
    )
    if tls is not None:
        app.access.metrics.certificate_expiry.set(tls.expires_s)
    _raise_limit_of_files(config.max_connections)
    door = None if config.unix_socket is None else Door(config.unix_socket, config.unix_socket_mode)
    server = _First(app, config, protocol, workers, supervisor, reload, door, tls)
    # uvicorn puts its own handlers in place while it runs, then raises what had stopped it again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    except SystemExit as end:
        if server.started or not end.code:
            raise
        raise BadSettings(
            "cannot listen on {host}:{port}, the line above says why; if another server is running"
            " there, stop it or choose another --port",
            host=config.host,
            port=config.port,
        ) from None


def work(
    app: App, config: Config, channel: Channel, served: Set[bytes], page: Callable[[], bytes]
) -> None:
    """Serve the connections that come over the channel until it says stop, or closes.

    served: paths that are answered here. page: the metrics of this process.
    """
    _Worker(app, config, channel, served, page).run()


def _settings(app: App, config: Config, protocol: Any) -> uvicorn.Config:
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
        timeout_keep_alive=config.keep_alive_s,
        timeout_graceful_shutdown=config.shutdown_s,
    )


def _raise_limit_of_files(connections: int) -> None:
    """Let the process have as many and its own files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_wanted(connections)
    if resource.RLIM_INFINITY not in (soft, hard):
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """One that also serves connections which others have accepted."""

    def __init__(self, app: App, config: Config, protocol: Any) -> None:
        super().__init__(_settings(app, config, protocol))
        self._app = app
        self._access = app.access
        self._shutdown_s = config.shutdown_s
        self._adopting: set[asyncio.Task[None]] = set()

    def adopt(self, message: Message, protocol: Callable[..., Protocol]) -> None:
        task = asyncio.create_task(self._adopt(message, protocol))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, message: Message, protocol: Callable[..., Protocol]) -> None:
        connection = message.connection
        if connection is None:
            return  # There were too many open files to receive it.
        # A client may have left on the way.
        with contextlib.suppress(OSError):
            make = self._maker(protocol)
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)

    def _maker(self, protocol: Callable[..., Protocol]) -> Callable[[], Protocol]:
        """What makes the protocol of a connection, as uvicorn's own servers do."""
        return partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def adopted(self) -> None:
        """Until those that have come are connections like any other."""
        if self._adopting:
            await asyncio.wait(self._adopting)

    async def finish(self, by: float) -> None:
        """Stop: connections, lanes and files together have until the moment `by`."""
        self._app.end_by = by
        # uvicorn takes whole seconds, and those only for connections.
        self.config.timeout_graceful_shutdown = math.ceil(max(0.0, by - now()))
        await super().shutdown()

    def leave(self) -> None:
        """End the process at once if a thread still computes, when everything has been let go of.

        Python would take the model's runtime apart under that thread, and the process would abort.
        """
        models = self.lifespan.state["models"]
        if not (models.sound and models.idle):
            os._exit(0)


class _First(_Server):
    def __init__(
        self,
        app: App,
        config: Config,
        protocol: Any,
        workers: Workers,
        supervisor: Supervisor,
        reload: Reload,
        door: Door | None,
        tls: Tls | None,
    ) -> None:
        self._limits = Limits.of(config)
        of_port = partial(Handshake, protocol, tls, self._limits) if tls else protocol
        super().__init__(app, config, of_port)
        self._tls = tls
        self._workers = workers
        self._supervisor = supervisor
        self._reload = reload
        self._door = door
        self._protocol = protocol
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and end at once if stopping already: nothing that was acknowledged can be lost."""
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)

    async def serve(self, sockets: Any = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._workers.end()

    async def startup(self, sockets: Any = None) -> None:
        await self._workers.start(self._receive)
        await super().startup(sockets)
        if self._door is not None:
            await self._open(self._door)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        self._tasks = [asyncio.create_task(self._reload_when_asked())]
        if self._supervisor.watchdog_s is not None:
            self._tasks.append(asyncio.create_task(self._assure(self._supervisor.watchdog_s)))
        self._ready()

    async def _open(self, door: Door) -> None:
        try:
            make = self._maker(self._protocol)
            self.servers.append(await door.open(make, self.config.backlog))
        except BadSettings:
            for server in self.servers:
                server.close()
            await self.lifespan.shutdown()
            raise

    def _log_started_message(self, listeners: Any) -> None:
        if self._tls is not None:
            # So that it says https; a connection's context is `Handshake`'s business.
            self.config.ssl = self._tls.context
        super()._log_started_message(listeners)

    def _ready(self) -> None:
        """Tell the supervisor, who waits for it, until it hears."""
        names = ", ".join(engine.model.name for engine in self.lifespan.state["models"].engines)
        told = self._supervisor.tell("READY=1", f"STATUS=serving 正在服务: {names}")
        if not told and not self.should_exit:
            asyncio.get_running_loop().call_later(AGAIN_S, self._ready)

    async def _reload_when_asked(self) -> None:
        """Asked several times meanwhile, it is done once more."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            # systemd compares it with its own CLOCK_MONOTONIC, which on Linux `now` is too.
            self._supervisor.tell("RELOADING=1", f"MONOTONIC_USEC={int(now() * 1e6)}")
            try:
                config = await self._reload.run(self.lifespan.state, self._access)
                await self._workers.reload(config)
                if config is not None:
                    log.info("settings read again 已重新读取设置")
            except Exception:
                # The server goes on, and may be told again.
                log.exception("settings were not read again 重新读取设置失败")
            self._ready()

    async def _assure(self, watchdog_s: float) -> None:
        """Tell the supervisor twice in its time that the loop turns and the lanes come back."""
        while True:
            if self.lifespan.state["models"].sound:
                self._supervisor.tell("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / 2)

    def _receive(self, message: Message) -> None:
        self.adopt(message, partial(Adopted, message.content, limits=self._limits))

    async def shutdown(self, sockets: Any = None) -> None:
        by = now() + self._shutdown_s
        self._supervisor.tell("STOPPING=1", "STATUS=stopping 正在停止")
        for server in self.servers:
            server.close()
        if self._door is not None:
            self._door.close()
        # Half of the time: what workers pass on until then has to be answered here.
        await self._workers.stop(max(QUIET_S, self._shutdown_s / 2))
        await self.adopted()
        await self.finish(by)
        await self._workers.wait(max(0.0, by - now()) + LATE_S)
        await self._workers.end()
        self.leave()


class _Worker(_Server):
    def __init__(
        self,
        app: App,
        config: Config,
        channel: Channel,
        served: Set[bytes],
        page: Callable[[], bytes],
    ) -> None:
        super().__init__(app, config, partial(Protocol, Limits.of(config)))
        self._channel = channel
        self._protocol = partial(Passing, channel, served, limits=Limits.of(config))
        self._page = page

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Nothing: see `work`."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup([])
        self._channel.listen(self._receive)
        await self._channel.deliver(Kind.READY)
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        """Tell the first process that the loop turns, for as long as there is a channel."""
        while True:
            await asyncio.sleep(BEAT_S)
            with contextlib.suppress(OSError):
                # Whoever finds no room will be heard the next time.
                self._channel.send(Kind.ALIVE)

    def _receive(self, message: Message | None) -> None:
        if message is None:
            # Without the first process nobody would start or stop this one.
            os._exit(1)
        if message.kind is Kind.CONNECTION:
            self.adopt(message, self._protocol)
        elif message.kind is Kind.PAGE:
            with contextlib.suppress(OSError):
                self._channel.send(Kind.PAGE, self._page())
        elif message.kind is Kind.RELOAD:
            self._reloading = asyncio.create_task(self._take_over(message.content))
        elif message.kind is Kind.ACCESS:
            self._reloading = asyncio.create_task(self._take_over(None))
        elif message.kind is Kind.STOP:
            self.should_exit = True

    async def _take_over(self, settings: bytes | None) -> None:
        """Serve by these settings, pickled; None for those that it has. The first process could, so a
        worker that cannot ends, and whoever takes its place begins with them.
        """
        try:
            config = None if settings is None else pickle.loads(settings)
            await take_over(config, self.lifespan.state, self._access)
        except StartupError as error:
            log.error("%s", error.english)
            self.should_exit = True
        except Exception:
            log.exception("settings were not read again 重新读取设置失败")
            self.should_exit = True
        finally:
            await self._channel.deliver(Kind.RELOAD)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; a process with a thread that hangs does, and is started again."""
        if not self.lifespan.state["models"].sound:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        by = now() + self._shutdown_s
        await self.adopted()
        # From here on connections are closed behind their reply, so that none is passed on.
        await self._channel.deliver(Kind.QUIET)
        await self.finish(by)
        self._channel.close()
        self.leave()
