"""uvicorn's server, in the first process and in workers, from its start to its end.

The first signal lets accepted requests finish, a second one ends the process at once. uvicorn itself would
end by the signal that stopped it, and would ignore a second SIGTERM. The first process opens the address,
passes what signals ask for to its workers, and shares new connections with them. A worker acts on messages
over its channel only.
"""

import asyncio
import contextlib
import logging
import math
import os
import pickle
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
from server.net.backlog import Backlog
from server.net.certificates import Tls
from server.net.handoff import AdoptedProtocol, DealingProtocol, WorkerProtocol
from server.net.http_protocol import HttpProtocol
from server.net.ipc import Channel, Kind, Message
from server.net.limits import Limits
from server.net.reload import Reload, take_over
from server.net.tls_protocol import TlsProtocol
from server.net.unix_socket import UnixSocket
from server.net.worker_pool import WorkerPool
from server.system.systemd import Supervisor

# Seconds between two signs of life of a worker; `worker_handle` says what happens without them.
BEAT_S = 1.0
# Seconds that a worker has at least to confirm that it hands no more connections back; it needs 0.1.
QUIET_S = 2.0
# Seconds that workers may end later than this process: they are stopped a little later, and then only free
# what they hold. The unit of `deploy` kills all processes ten seconds after `shutdown_s`.
LATE_S = 5.0
# Seconds after the last connection of a draining server, in which its handshake ends and its request comes.
LAST_REQUEST_S = 1.0
# Seconds until a message that the supervisor had no room for is sent again.
RETRY_NOTIFY_S = 0.5

# Addresses of this machine by those that stand for all of them.
OF_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}

# Is called with the address of the port and the app's state.
Ready = Callable[[str, Any], None]

log = logging.getLogger(__name__)


def listen(
    app: App,
    config: Config,
    workers: WorkerPool,
    supervisor: Supervisor,
    reload: Reload,
    tls: Tls | None,
    ready: Ready,
) -> None:
    """Serve until stopped; raise BadSettings where the address cannot be used.

    ready: called with the address of the port, as a URL, and the app's state once clients can connect.
    """
    limits = Limits.of(config)
    protocol = (
        partial(DealingProtocol, workers.turn, limits=limits)
        if len(workers)
        else partial(HttpProtocol, limits)
    )
    if tls is not None:
        app.access.metrics.certificate_expiry.set(tls.expires_s)
    unix_socket = (
        None
        if config.unix_socket is None
        else UnixSocket(config.unix_socket, config.unix_socket_mode)
    )
    server = _FirstServer(
        app, config, protocol, workers, supervisor, reload, unix_socket, tls, ready
    )
    # uvicorn sets its own handlers while it runs, and afterwards raises the signal that stopped it again.
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
    """Serve the connections that come over the channel, until a message says stop or it closes.

    served: paths that are answered here. page: renders the metrics of this process.
    """
    _WorkerServer(app, config, channel, served, page).run()


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


class _Server(uvicorn.Server):
    """A server that also serves connections which other processes have accepted."""

    def __init__(self, app: App, config: Config, protocol: Any) -> None:
        super().__init__(_settings(app, config, protocol))
        self._app = app
        self._access = app.access
        self._shutdown_s = config.shutdown_s
        self._adopting: set[asyncio.Task[None]] = set()

    def adopt(self, message: Message, protocol: Callable[..., HttpProtocol]) -> None:
        task = asyncio.create_task(self._adopt(message, protocol))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, message: Message, protocol: Callable[..., HttpProtocol]) -> None:
        connection = message.connection
        if connection is None:
            return  # It was lost: this process had too many open files to receive it.
        # A client may have left on the way.
        with contextlib.suppress(OSError):
            make = self._maker(protocol)
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)

    def _maker(self, protocol: Callable[..., HttpProtocol]) -> Callable[[], HttpProtocol]:
        """Return the factory of a connection's protocol, with the arguments that uvicorn gives."""
        return partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def adopted(self) -> None:
        """Wait until the connections that have come are set up."""
        if self._adopting:
            await asyncio.wait(self._adopting)

    async def finish(self, by: float) -> None:
        """Stop; connections, lanes and files together have until the moment `by`."""
        self._app.end_by = by
        # uvicorn takes whole seconds, and those only for connections.
        self.config.timeout_graceful_shutdown = math.ceil(max(0.0, by - now()))
        await super().shutdown()

    def leave(self) -> None:
        """End the process at once if a thread still computes; called when everything else has ended.

        Python would unload the model's runtime under that thread, and the process would abort.
        """
        models = self.lifespan.state["models"]
        if not (models.sound and models.idle):
            os._exit(0)


class _FirstServer(_Server):
    def __init__(
        self,
        app: App,
        config: Config,
        protocol: Any,
        workers: WorkerPool,
        supervisor: Supervisor,
        reload: Reload,
        unix_socket: UnixSocket | None,
        tls: Tls | None,
        ready: Ready,
    ) -> None:
        self._limits = Limits.of(config)
        of_port = partial(TlsProtocol, protocol, tls, self._limits) if tls else protocol
        super().__init__(app, config, of_port)
        self._of_port = of_port
        self._tls = tls
        self._on_ready = ready
        self._workers = workers
        self._supervisor = supervisor
        self._reload = reload
        self._unix_socket = unix_socket
        self._drain_s = config.drain_s
        self._protocol = protocol
        self._reload_asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, or end at once if it is stopping already: no acknowledged write can be lost."""
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
        if self._unix_socket is not None:
            await self._open(self._unix_socket)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_asked.set)
        self._tasks = [asyncio.create_task(self._reload_when_asked())]
        if self._supervisor.watchdog_s is not None:
            self._tasks.append(
                asyncio.create_task(self._notify_watchdog(self._supervisor.watchdog_s))
            )
        self._on_ready(self._url(), self.lifespan.state)
        self._ready()

    def _url(self) -> str:
        """Return where a process on this machine reaches the port, also one that the kernel chose."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        host = OF_ANY.get(host, host)
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def _open(self, unix_socket: UnixSocket) -> None:
        try:
            make = self._maker(self._protocol)
            self.servers.append(await unix_socket.open(make, self.config.backlog))
        except BadSettings:
            for server in self.servers:
                server.close()
            await self.lifespan.shutdown()
            raise

    def _log_started_message(self, listeners: Any) -> None:
        if self._tls is not None:
            # Makes the line say https. `TlsProtocol` gives each connection its context.
            self.config.ssl = self._tls.context
        super()._log_started_message(listeners)

    def _ready(self) -> None:
        """Report READY to the supervisor, again and again until it is received."""
        names = ", ".join(engine.model.name for engine in self.lifespan.state["models"].engines)
        received = self._supervisor.notify("READY=1", f"STATUS=serving {names}")
        if not received and not self.should_exit:
            asyncio.get_running_loop().call_later(RETRY_NOTIFY_S, self._ready)

    async def _reload_when_asked(self) -> None:
        """Reload at each SIGHUP; several during one reload make one more."""
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            # systemd compares it with its own CLOCK_MONOTONIC, which on Linux `now` is too.
            self._supervisor.notify("RELOADING=1", f"MONOTONIC_USEC={int(now() * 1e6)}")
            try:
                config = await self._reload.run(self.lifespan.state, self._access)
                await self._workers.reload(config)
                if config is not None:
                    log.info("settings read again")
            except Exception:
                # The server goes on, and the next SIGHUP tries again.
                log.exception("settings were not read again")
            self._ready()

    async def _notify_watchdog(self, watchdog_s: float) -> None:
        """Report twice in the watchdog's time that the loop turns and no lane hangs."""
        while True:
            if self.lifespan.state["models"].sound:
                self._supervisor.notify("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / 2)

    def _receive(self, message: Message) -> None:
        self.adopt(message, partial(AdoptedProtocol, message.content, limits=self._limits))

    async def _drain(self) -> None:
        """Go on serving until load balancers have noticed that this server is no longer ready.

        Each connection closes after its next answer, so that none is in use, or kept for use, at the end.
        """
        if self._drain_s:
            log.info("not ready any more, and stopping in %d s", self._drain_s)
            self.lifespan.state["models"].drain()
            self._workers.drain()
            await asyncio.sleep(self._drain_s)

    async def _stop_listening(self) -> None:
        """Close the addresses; a draining server first takes the connections that wait there."""
        waiting: list[Backlog] = []
        if self._drain_s:
            with contextlib.suppress(OSError):
                waiting = [Backlog(each.fileno()) for one in self.servers for each in one.sockets]
        for server in self.servers:
            server.close()
        if self._unix_socket is not None:
            self._unix_socket.close()
        for backlog in waiting:
            # The kernel lets one more wait than it was asked to.
            for connection in backlog.take(self.config.backlog + 1):
                protocol = self._of_port if backlog.of_port else self._protocol
                self.adopt(Message(Kind.CONNECTION, connection=connection), protocol)
        if waiting:
            await asyncio.sleep(LAST_REQUEST_S)

    async def shutdown(self, sockets: Any = None) -> None:
        self._supervisor.notify("STOPPING=1", "STATUS=stopping")
        await self._drain()
        by = now() + self._shutdown_s
        await self._stop_listening()
        # Half of the time: connections that workers hand back until then have to be answered here.
        await self._workers.stop(max(QUIET_S, self._shutdown_s / 2))
        await self.adopted()
        await self.finish(by)
        await self._workers.wait(max(0.0, by - now()) + LATE_S)
        await self._workers.end()
        self.leave()


class _WorkerServer(_Server):
    def __init__(
        self,
        app: App,
        config: Config,
        channel: Channel,
        served: Set[bytes],
        page: Callable[[], bytes],
    ) -> None:
        super().__init__(app, config, partial(HttpProtocol, Limits.of(config)))
        self._channel = channel
        self._protocol = partial(WorkerProtocol, channel, served, limits=Limits.of(config))
        self._page = page

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ignore signals: the channel says when to stop."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup([])
        self._channel.listen(self._receive)
        await self._channel.deliver(Kind.READY)
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        """Report to the first process that the loop turns, for as long as there is a channel."""
        while True:
            await asyncio.sleep(BEAT_S)
            with contextlib.suppress(OSError):
                # A message for which the channel has no room is left out; the next one comes in a second.
                self._channel.send(Kind.ALIVE)

    def _receive(self, message: Message | None) -> None:
        if message is None:
            # The first process is gone, and nothing else would stop this one.
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
        elif message.kind is Kind.DRAIN:
            self.lifespan.state["models"].drain()
        elif message.kind is Kind.STOP:
            self.should_exit = True

    async def _take_over(self, settings: bytes | None) -> None:
        """Serve by these settings, pickled; None for those that it has.

        The first process could, so a worker that cannot ends, and the next one starts with them.
        """
        try:
            config = None if settings is None else pickle.loads(settings)
            await take_over(config, self.lifespan.state, self._access)
        except StartupError as error:
            log.error("%s", error.english)
            self.should_exit = True
        except Exception:
            log.exception("settings were not read again")
            self.should_exit = True
        finally:
            await self._channel.deliver(Kind.RELOAD)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; a process with a hanging thread does, and is started again."""
        if not self.lifespan.state["models"].sound:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        by = now() + self._shutdown_s
        await self.adopted()
        # From here on connections are closed after their reply, so none is handed back.
        await self._channel.deliver(Kind.QUIET)
        await self.finish(by)
        self._channel.close()
        self.leave()
