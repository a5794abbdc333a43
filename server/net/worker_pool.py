"""The workers of a server: all its processes but the first, started, kept running and stopped.

A server of several processes begins with the one that owns the data folder and the address. It starts
the workers, takes no connection before each of them is ready, and then gives every process its turn at
new connections, itself among them. A worker that ends is started again; the connections and requests
of the others do not notice. One that is silent for too long, because its loop hangs or it was stopped,
is killed. When the first process ends, in whatever way, the channels close, and the workers end with it.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math

from server.clock import now
from server.config import Config
from server.errors import StartupError
from server.net.ipc import Channel
from server.net.worker_handle import Adopt, WorkerHandle
from server.telemetry.aggregate import counted, summed

# Seconds until a worker that ended is started again: soon, and later each time it ends again before it
# has run for STEADY_S. So a worker that cannot live does not keep a core busy with loading models.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
STEADY_S = 60.0
# Seconds between two checks for silent workers. One check counts for two of them at most: while this process
# itself was stopped, no worker was silent.
CHECK_S = 1.0

log = logging.getLogger(__name__)


def share_of(config: Config, budget: int) -> Config:
    """Return the settings of one process of a server that may keep `budget` cores busy."""
    if config.workers == 1 or config.lanes:
        return config
    return dataclasses.replace(config, lanes=math.ceil(budget / config.workers))


def pause_s(failures: int) -> float:
    """Return how long a worker waits for its next start after it ended so many times in a row."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE_S)


class WorkerPool:
    """All workers of a server: `config.workers` - 1."""

    def __init__(self, config: Config) -> None:
        self._handles = [WorkerHandle(number, config) for number in range(1, config.workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._dealt = 0
        self._is_draining = False
        # What workers that ended had counted.
        self._past = ""

    def __len__(self) -> int:
        return len(self._handles)

    async def start(self, adopt: Adopt) -> None:
        """Return when all are ready; raise StartupError if one cannot be.

        adopt: called with each connection that a worker hands back.
        """
        self._tasks.append(asyncio.create_task(self._watch()))
        await asyncio.gather(*(handle.start(adopt) for handle in self._handles))
        self._tasks += [asyncio.create_task(self._keep(each, adopt)) for each in self._handles]

    async def _watch(self) -> None:
        """Kill workers that are silent for too long."""
        checked = now()
        while True:
            await asyncio.sleep(CHECK_S)
            moment = now()
            for handle in self._handles:
                handle.add_silence(min(moment - checked, 2 * CHECK_S))
            checked = moment

    async def _keep(self, handle: WorkerHandle, adopt: Adopt) -> None:
        """Start the worker again whenever it ends."""
        failures = 0
        while True:
            started = now()
            status = await handle.ended()
            self._past = summed([self._past, counted(handle.page)], {})
            handle.page = ""
            failures = 1 if now() - started > STEADY_S else failures + 1
            pause = pause_s(failures)
            log.error(
                "worker %d ended with status %d; it starts again in %.1f s",
                *(handle.number, status, pause),
            )
            await asyncio.sleep(pause)
            try:
                await handle.start(adopt)
                if self._is_draining:
                    handle.drain()
            except StartupError as error:
                log.error("%s", error.english)
            except Exception:
                # The system is out of memory, descriptors or processes.
                log.exception("worker %d could not be started", handle.number)

    def turn(self) -> Channel | None:
        """Return the channel to the worker whose turn it is; None for the first process."""
        self._dealt = (self._dealt + 1) % (len(self._handles) + 1)
        return self._handles[self._dealt - 1].taker if self._dealt else None

    async def pages(self) -> list[str]:
        """Return a page of metrics from each worker, and one of all that ended."""
        await asyncio.gather(*(handle.ask_page() for handle in self._handles))
        return [self._past, *(each.page for each in self._handles)] if self._handles else []

    async def reload(self, config: Config | None) -> None:
        """Return when each serves by these settings; one that cannot ends, and is started again.

        config: None where the settings are the same, and keys and audit are to be read again.
        """
        await asyncio.gather(*(handle.reload(config) for handle in self._handles))

    def drain(self) -> None:
        """Let each close its connections after their next answers."""
        self._is_draining = True
        for handle in self._handles:
            handle.drain()

    async def stop(self, within_s: float) -> None:
        """Let each finish what it accepted; return when they hand no more connections back.

        within_s: seconds that each has to confirm that.
        """
        self._cancel_tasks()
        await asyncio.gather(*(handle.stop(within_s) for handle in self._handles))

    async def wait(self, within_s: float) -> None:
        """Wait until all have ended by themselves, for so many seconds at most."""
        ended = asyncio.gather(*(handle.ended() for handle in self._handles))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, within_s)

    async def end(self) -> None:
        """Kill those that have not ended."""
        self._cancel_tasks()
        await asyncio.gather(*(handle.end() for handle in self._handles))

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
