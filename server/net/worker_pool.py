"""The first process's view of its workers: started, kept running, asked, stopped.

A server of several processes begins with the one that owns the data folder and the address. It starts
the workers, takes no connection before each of them is ready, and then gives every process its turn at
new connections, itself among them. A worker that ends is started again; the connections and requests
of the others do not notice. One that says nothing for too long, because its loop hangs or it was
stopped, is killed; no wait for a worker is without an end. When the first process ends, in whatever
way, their channels close, and the workers end with it.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import pickle
import sys
from collections.abc import Callable
from functools import partial

from server.clock import now
from server.config import Config
from server.errors import StartupError
from server.net.ipc import Channel, Kind, Message, pair
from server.telemetry.aggregate import counted, summed

# Seconds until a worker that ended is started again: soon, and later each time it ends again before it
# has run for STEADY_S, so that one which cannot live does not keep a core busy with loading models.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
STEADY_S = 60.0
# Seconds that a page of metrics waits for the workers'; who is late is counted as last time.
PAGE_S = 1.0
# Seconds between two looks at who has said something. One counts for no more than two of them: what this
# process was stopped for, no worker was silent.
LOOK_S = 1.0
# A worker says every second that its loop turns. While it says nothing for so many seconds it gets no new
# connections. 32 MB of JSON, the largest body, hold a loop for 0.16 s (2026-11-25).
DOUBT_S = 3.0
# So many more than a batch may take, which can be one on the loop, and it is killed.
BUSY_S = 10.0
# Seconds for loading the models, at the start and again: a gigabyte takes a few, a slow disk a minute. The
# unit of `deploy` gives the whole server as long.
LOADING_S = 300.0

log = logging.getLogger(__name__)

Adopt = Callable[[Message], None]


def share_of(config: Config, budget: int) -> Config:
    """The settings of one process of a server that may keep `budget` cores busy."""
    if config.workers == 1 or config.lanes:
        return config
    return dataclasses.replace(config, lanes=math.ceil(budget / config.workers))


def pause_s(failures: int) -> float:
    """How long a worker waits for its next start that has ended so many times in a row."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE_S)


class Workers:
    """All processes but the first: `config.workers` - 1 of them."""

    def __init__(self, config: Config) -> None:
        self._posts = [Post(number, config) for number in range(1, config.workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._dealt = 0
        # What workers that ended had counted.
        self._past = ""

    def __len__(self) -> int:
        return len(self._posts)

    async def start(self, adopt: Adopt) -> None:
        """Return when all are ready; raises StartupError if one cannot be.

        adopt: called with each connection that a worker passes on.
        """
        self._tasks.append(asyncio.create_task(self._watch()))
        await asyncio.gather(*(post.start(adopt) for post in self._posts))
        self._tasks += [asyncio.create_task(self._keep(post, adopt)) for post in self._posts]

    async def _watch(self) -> None:
        """End whoever says nothing for too long."""
        looked = now()
        while True:
            await asyncio.sleep(LOOK_S)
            moment = now()
            for post in self._posts:
                post.look(min(moment - looked, 2 * LOOK_S))
            looked = moment

    async def _keep(self, post: "Post", adopt: Adopt) -> None:
        """Start it again whenever it ends."""
        failures = 0
        while True:
            started = now()
            status = await post.ended()
            self._past = summed([self._past, counted(post.page)], {})
            post.page = ""
            failures = 1 if now() - started > STEADY_S else failures + 1
            pause = pause_s(failures)
            log.error(
                "worker %d ended with status %d; it starts again in %.1f s"
                " 工作进程 %d 已退出（状态 %d），%.1f 秒后重新启动",
                *(post.number, status, pause) * 2,
            )
            await asyncio.sleep(pause)
            try:
                await post.start(adopt)
            except StartupError as error:
                log.error("%s", error.english)
            except Exception:
                # No memory, no descriptor, no process to be had just now.
                log.exception(
                    "worker %d could not be started 工作进程 %d 未能启动", *(post.number,) * 2
                )

    def turn(self) -> Channel | None:
        """Who takes the next connection; None: the first process."""
        self._dealt = (self._dealt + 1) % (len(self._posts) + 1)
        return self._posts[self._dealt - 1].taker if self._dealt else None

    async def pages(self) -> list[str]:
        """A page of metrics of each, and one of all that ended."""
        await asyncio.gather(*(post.ask() for post in self._posts))
        return [self._past, *(post.page for post in self._posts)] if self._posts else []

    async def reload(self, config: Config | None) -> None:
        """Return when each serves by these settings; one that cannot ends, and is started again.

        config: None where they are the same, and keys and audit are to be read again.
        """
        await asyncio.gather(*(post.reload(config) for post in self._posts))

    async def stop(self, within_s: float) -> None:
        """Let each finish what it accepted; return when no more connections come from them.

        within_s: seconds that each has to say so.
        """
        self._let_go()
        await asyncio.gather(*(post.stop(within_s) for post in self._posts))

    async def wait(self, within_s: float) -> None:
        """Until all have ended by themselves, or for so many seconds."""
        ended = asyncio.gather(*(post.ended() for post in self._posts))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, within_s)

    async def end(self) -> None:
        """End at once those that have not ended."""
        self._let_go()
        await asyncio.gather(*(post.end() for post in self._posts))

    def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()


class Post:
    """One worker, and whoever takes its place after it.

    channel: to a worker that takes connections, None while there is none. page: its metrics, as it
    told them last.
    """

    def __init__(self, number: int, config: Config) -> None:
        self.number = number
        self.channel: Channel | None = None
        self.page = ""
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._own: Channel | None = None
        self._ready: asyncio.Future[None]
        self._told = asyncio.Event()
        self._reloaded = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._quiet = asyncio.Event()
        # Seconds without a word from it, and how many it may take.
        self._silent_s = 0.0
        self._patience_s = LOADING_S

    async def start(self, adopt: Adopt) -> None:
        """Return when it is ready; raises the StartupError that keeps it from being so."""
        self._quiet.clear()
        self._ready = asyncio.get_running_loop().create_future()
        self._silent_s, self._patience_s = 0.0, LOADING_S
        own = self._own = await self._begin(adopt)
        config = self._config
        await own.deliver(Kind.CONFIG, pickle.dumps(config))
        await self._ready
        self._patience_s = config.hang_s + BUSY_S
        self.channel = own
        if self._config is not config:
            # It was started with settings that were read again meanwhile.
            await self.reload(self._config)

    async def _begin(self, adopt: Adopt) -> Channel:
        """Start the process; returns this end of the channel to it, or raises OSError."""
        own, theirs = pair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server.net.worker", str(theirs.fileno())),
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
            return  # It is of a worker whose place another one has taken.
        self._silent_s = 0.0
        if message is None:
            self.channel = None
            self._quiet.set()
            self._told.set()
            self._reloaded.set()
            self._decide(_no_word(self.number))
        elif message.kind is Kind.PAGE:
            self.page = message.content.decode()
            self._told.set()
        elif message.kind is Kind.RELOAD:
            self._reloaded.set()
        elif message.kind is Kind.QUIET:
            # It may end by itself.
            self.channel = None
            self._quiet.set()
        elif message.kind is Kind.FAILED:
            self._decide(StartupError(pickle.loads(message.content)))
        elif message.kind is Kind.READY:
            self._decide(None)

    def _decide(self, error: StartupError | None) -> None:
        """Whether it is ready, unless that is known or nobody waits for it any more."""
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(error)

    @property
    def taker(self) -> Channel | None:
        """Where new connections go: nowhere while it may hang."""
        return self.channel if self._silent_s < DOUBT_S else None

    def look(self, passed_s: float) -> None:
        """Count seconds in which it has said nothing; too many, and it is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._silent_s += passed_s
        if self._silent_s > self._patience_s:
            log.error(
                "worker %d has said nothing for %.0f s and is killed"
                " 工作进程 %d 已 %.0f 秒没有响应，将被强制结束",
                *(self.number, self._silent_s) * 2,
            )
            self._kill()

    def _kill(self) -> None:
        self.channel = None
        self._patience_s = math.inf
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> int:
        """Its exit status, once it has one."""
        return 0 if self._process is None else await self._process.wait()

    async def ask(self) -> None:
        """Have `page` renewed."""
        self._told.clear()
        with contextlib.suppress(OSError, TimeoutError):
            if self.channel is not None and self.channel.send(Kind.PAGE):
                await asyncio.wait_for(self._told.wait(), PAGE_S)

    async def reload(self, config: Config | None) -> None:
        """Return when it serves by these settings; who does not in time is killed."""
        # A copy where they stay, so that whoever is just being started is told as well.
        self._config = config or dataclasses.replace(self._config)
        asked = (Kind.ACCESS, b"") if config is None else (Kind.RELOAD, pickle.dumps(config))
        async with self._reloading:
            if self.channel is not None:
                self._reloaded.clear()
                await self._answer(self._reloaded, LOADING_S, *asked)

    async def stop(self, within_s: float) -> None:
        if self.channel is not None:
            await self._answer(self._quiet, within_s, Kind.STOP)
        elif not self._quiet.is_set():
            # It has not begun.
            self._kill()

    async def _answer(
        self, answered: asyncio.Event, within_s: float, kind: Kind, content: bytes = b""
    ) -> None:
        """Send a message and wait for its answer, or the end of who had it."""
        if self.channel is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self.channel.deliver(kind, content)
                await answered.wait()
        except TimeoutError:
            log.error(
                "worker %d has not answered %s within %.0f s and is killed"
                " 工作进程 %d 未在规定时间内响应 %s（%.0f 秒），将被强制结束",
                *(self.number, kind.name, within_s) * 2,
            )
            self._kill()

    async def end(self) -> None:
        if self._own is not None:
            self._own.close()
        self._kill()
        await self.ended()


def _no_word(number: int) -> StartupError:
    return StartupError(
        "worker {number} ended while it was starting; the lines above may say why",
        number=number,
    )
