"""One worker process as the first process sees it: started, asked, watched, stopped.

A handle outlives its process: when a worker ends, `worker_pool` starts the next one through the same
handle. Every wait for a worker has a limit, after which the worker is killed.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from server.config import Config
from server.errors import StartupError
from server.net.ipc import Channel, Kind, Message, pair

# Seconds that a page of metrics waits for a worker's; a late one is counted as last time.
PAGE_S = 1.0
# A worker sends a sign of life every second. After so many seconds without one it gets no new connections.
# 32 MB of JSON, the largest body, hold a loop for 0.16 s (2026-11-25).
DOUBT_S = 3.0
# Seconds beyond the longest batch, which can be one on the loop, after which a silent worker is killed.
BUSY_S = 10.0
# Seconds for loading the models, at the start and at a reload: a gigabyte takes a few, a slow disk a minute.
# The unit of `deploy` gives the whole server as long.
LOADING_S = 300.0
WORKER = Path(__file__).with_name("worker.py")
# The folder that holds the package `server`.
ROOT = Path(__file__).parents[2]

log = logging.getLogger(__name__)

Adopt = Callable[[Message], None]


def command(descriptor: int) -> list[str]:
    """Return the command that starts a worker with this process's import path.

    So both run the same `server`, also in a clone that is not installed. -P: no module is imported from
    the working directory or from beside the worker's file.
    """
    paths = [path for path in sys.path if os.path.isabs(path)]
    if str(ROOT) not in paths:
        paths.insert(0, str(ROOT))
    return [sys.executable, "-P", str(WORKER), str(descriptor), *paths]


class WorkerHandle:
    """The first process's handle of one worker, whichever process that is now.

    channel: to a worker that takes connections, None while there is none. page: its metrics, as it
    reported them last.
    """

    def __init__(self, number: int, config: Config) -> None:
        self.number = number
        self.channel: Channel | None = None
        self.page = ""
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._own: Channel | None = None
        self._ready: asyncio.Future[None]
        self._page_came = asyncio.Event()
        self._reloaded = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._quiet = asyncio.Event()
        # Seconds since the worker's last message, and how many there may be.
        self._silent_s = 0.0
        self._patience_s = LOADING_S

    async def start(self, adopt: Adopt) -> None:
        """Return when the worker is ready; raise the StartupError that keeps it from being so.

        adopt: called with each connection that the worker hands back.
        """
        self._quiet.clear()
        self._ready = asyncio.get_running_loop().create_future()
        self._silent_s, self._patience_s = 0.0, LOADING_S
        own = self._own = await self._spawn(adopt)
        config = self._config
        await own.deliver(Kind.CONFIG, pickle.dumps(config))
        await self._ready
        self._patience_s = config.hang_s + BUSY_S
        self.channel = own
        if self._config is not config:
            # A reload has changed the settings while the worker was starting.
            await self.reload(self._config)

    async def _spawn(self, adopt: Adopt) -> Channel:
        """Start the process; return this end of the channel to it, or raise OSError."""
        own, theirs = pair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        except BaseException:
            own.close()
            raise
        finally:
            theirs.close()
        own.listen(partial(self._receive, own, adopt))
        return own

    def _receive(self, own: Channel, adopt: Adopt, message: Message | None) -> None:
        if message is not None and message.kind is Kind.CONNECTION:
            adopt(message)
        if own is not self._own:
            return  # It is from an earlier worker, which another one has replaced.
        self._silent_s = 0.0
        if message is None:
            self.channel = None
            for each in (self._quiet, self._page_came, self._reloaded):
                each.set()
            self._decide(_ended_early(self.number))
        elif message.kind is Kind.PAGE:
            self.page = message.content.decode()
            self._page_came.set()
        elif message.kind is Kind.RELOAD:
            self._reloaded.set()
        elif message.kind is Kind.QUIET:
            # The worker may have begun to end by itself.
            self.channel = None
            self._quiet.set()
        elif message.kind is Kind.FAILED:
            self._decide(StartupError(pickle.loads(message.content)))
        elif message.kind is Kind.READY:
            self._decide(None)

    def _decide(self, error: StartupError | None) -> None:
        """Settle whether the worker is ready, unless that is settled or `start` was cancelled."""
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(error)

    @property
    def taker(self) -> Channel | None:
        """The channel for new connections; None while the worker may hang."""
        return self.channel if self._silent_s < DOUBT_S else None

    def add_silence(self, passed_s: float) -> None:
        """Count seconds without a message from the worker, and kill it after too many."""
        if self._process is None or self._process.returncode is not None:
            return
        self._silent_s += passed_s
        if self._silent_s > self._patience_s:
            log.error(
                "worker %d has said nothing for %.0f s and is killed", self.number, self._silent_s
            )
            self._kill()

    def _kill(self) -> None:
        self.channel = None
        self._patience_s = math.inf
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> int:
        """Wait for the process's end and return its exit status."""
        return 0 if self._process is None else await self._process.wait()

    async def ask_page(self) -> None:
        """Renew `page`, or leave it where the worker does not answer in time."""
        self._page_came.clear()
        with contextlib.suppress(OSError, TimeoutError):
            if self.channel is not None and self.channel.send(Kind.PAGE):
                await asyncio.wait_for(self._page_came.wait(), PAGE_S)

    async def reload(self, config: Config | None) -> None:
        """Return when the worker serves by these settings; kill it if it does not in time.

        config: None where the settings are the same, and keys and audit are to be read again.
        """
        # A copy where they stay the same, so that `start` notices and repeats the reload.
        self._config = config or dataclasses.replace(self._config)
        asked = (Kind.ACCESS, b"") if config is None else (Kind.RELOAD, pickle.dumps(config))
        async with self._reloading:
            if self.channel is not None:
                self._reloaded.clear()
                await self._answer(self._reloaded, LOADING_S, *asked)

    def drain(self) -> None:
        """Let the worker close each connection after its next answer, if the channel has room to say so."""
        with contextlib.suppress(OSError):
            if self.channel is not None:
                self.channel.send(Kind.DRAIN)

    async def stop(self, within_s: float) -> None:
        """Let the worker finish what it accepted; return when it hands no more connections back."""
        if self.channel is not None:
            await self._answer(self._quiet, within_s, Kind.STOP)
        elif not self._quiet.is_set():
            # It has accepted nothing yet.
            self._kill()

    async def _answer(
        self, answered: asyncio.Event, within_s: float, kind: Kind, content: bytes = b""
    ) -> None:
        """Send a message and wait for its answer, or for the worker's end."""
        if self.channel is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self.channel.deliver(kind, content)
                await answered.wait()
        except TimeoutError:
            log.error(
                "worker %d has not answered %s within %.0f s and is killed",
                *(self.number, kind.name, within_s),
            )
            self._kill()

    async def end(self) -> None:
        """Kill the process, if it has not ended, and wait for its end."""
        if self._own is not None:
            self._own.close()
        self._kill()
        await self.ended()


def _ended_early(number: int) -> StartupError:
    return StartupError(
        "worker {number} ended while it was starting; the lines above may say why", number=number
    )
