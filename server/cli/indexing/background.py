"""Reading in a thread that an interruption leaves behind.

A pipe, a terminal or a network drive may never answer. A thread of asyncio.to_thread that waits for one would
keep the process from ending when the user presses Ctrl-C.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


async def in_background(work: Callable[[], Result]) -> Result:
    """Return the result of a function that may block; when cancelled, do not wait for its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def give(result: Result) -> None:
        if not done.cancelled():
            done.set_result(result)

    def fail(error: BaseException) -> None:
        if not done.cancelled():
            done.set_exception(error)

    def run() -> None:
        # The loop is closed if the command has ended.
        with suppress(RuntimeError):
            try:
                result = work()
            except BaseException as error:
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(give, result)

    threading.Thread(target=run, name="reading", daemon=True).start()
    return await done
