"""The first process's view of its workers: started, kept running, asked, stopped.

A server of several processes begins with the one that owns the data folder and the address. It starts
the workers, takes no connection before each of them is ready, and then gives every process its turn at
new connections, itself among them. A worker that ends is started again; the connections and requests
of the others do not notice. When the first process ends, in whatever way, their channels close, and
the workers end with it.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import pickle
import sys
from collections.abc import Callable
from functools import partial

from server.channel import Channel, Kind, Message, pair
from server.config import Config
from server.errors import StartupError
from server.metrics import now
from server.sums import counted, summed

# Seconds until a worker that ended is started again: soon, and later each time it ends again before it
# has run for STEADY_S, so that one which cannot live does not keep a core busy with loading models.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
STEADY_S = 60.0
# Seconds that a page of metrics waits for the workers'; who is late is counted as last time.
PAGE_S = 1.0

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
        self._keepers: list[asyncio.Task[None]] = []
        self._dealt = 0
        # What workers that ended had counted.
        self._past = ""

    def __len__(self) -> int:
        return len(self._posts)

    async def start(self, adopt: Adopt) -> None:
        """Return when all are ready; raises StartupError if one cannot be.

        adopt: called with each connection that a worker passes on.
        """
        await asyncio.gather(*(post.start(adopt) for post in self._posts))
        self._keepers = [asyncio.create_task(self._keep(post, adopt)) for post in self._posts]

    async def _keep(self, post: "Post", adopt: Adopt) -> None:
        """Start it again whenever it ends."""
        failures = 0
        while True:
            started = now()
            status = await post.ended()
            self._past = summed([self._past, counted(post.page)])
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
                log.error("%s %s", error.english, error.chinese)

    def turn(self) -> Channel | None:
        """Who takes the next connection; None: the first process."""
        self._dealt = (self._dealt + 1) % (len(self._posts) + 1)
        return self._posts[self._dealt - 1].channel if self._dealt else None

    async def pages(self) -> list[str]:
        """A page of metrics of each, and one of all that ended."""
        await asyncio.gather(*(post.ask() for post in self._posts))
        return [self._past, *(post.page for post in self._posts)] if self._posts else []

    async def reload(self, config: Config) -> None:
        """Return when each serves by these settings; one that cannot ends, and is started again."""
        await asyncio.gather(*(post.reload(config) for post in self._posts))

    async def stop(self) -> None:
        """Let each finish what it accepted; return when no more connections come from them."""
        self._let_go()
        await asyncio.gather(*(post.stop() for post in self._posts))

    async def wait(self) -> None:
        """Until all have ended by themselves."""
        await asyncio.gather(*(post.ended() for post in self._posts))

    async def end(self) -> None:
        """End at once those that have not ended."""
        self._let_go()
        await asyncio.gather(*(post.end() for post in self._posts))

    def _let_go(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()


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
        self._quiet = asyncio.Event()

    async def start(self, adopt: Adopt) -> None:
        """Return when it is ready; raises the StartupError that keeps it from being so."""
        self._quiet.clear()
        self._ready = asyncio.get_running_loop().create_future()
        self._own, theirs = pair()
        self._own.listen(partial(self._receive, adopt))
        inherited = theirs.fileno()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.worker", str(inherited)),
            pass_fds=[inherited],
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        config = self._config
        await self._own.deliver(Kind.CONFIG, pickle.dumps(config))
        await self._ready
        self.channel = self._own
        if self._config is not config:
            # It was started with settings that were read again meanwhile.
            await self.reload(self._config)

    def _receive(self, adopt: Adopt, message: Message | None) -> None:
        if message is None:
            self.channel = None
            self._quiet.set()
            self._told.set()
            self._reloaded.set()
            if not self._ready.done():
                self._ready.set_exception(_no_word(self.number))
        elif message.kind is Kind.CONNECTION:
            adopt(message)
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
            self._ready.set_exception(StartupError(*json.loads(message.content)))
        elif message.kind is Kind.READY:
            self._ready.set_result(None)

    async def ended(self) -> int:
        """Its exit status, once it has one."""
        return 0 if self._process is None else await self._process.wait()

    async def ask(self) -> None:
        """Have `page` renewed."""
        self._told.clear()
        with contextlib.suppress(OSError, TimeoutError):
            if self.channel is not None and self.channel.send(Kind.PAGE):
                await asyncio.wait_for(self._told.wait(), PAGE_S)

    async def reload(self, config: Config) -> None:
        self._config = config
        if self.channel is not None:
            self._reloaded.clear()
            await self.channel.deliver(Kind.RELOAD, pickle.dumps(config))
            await self._reloaded.wait()

    async def stop(self) -> None:
        if self._own is not None:
            await self._own.deliver(Kind.STOP)
            await self._quiet.wait()

    async def end(self) -> None:
        if self._own is not None:
            self._own.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _no_word(number: int) -> StartupError:
    return StartupError(
        f"worker {number} ended while it was starting; the lines above may say why",
        f"工作进程 {number} 在启动过程中退出；原因可能见上方日志",
    )
