"""Writes a large JSON body on a thread of the reads, and a small one on the loop."""

from collections.abc import Callable

from server.api.replies import Reply
from server.collections import read_cost
from server.collections.read_threads import ReadThreads

# Characters of texts, or bytes of numbers, that are written on the loop: 0.1 ms.
ON_LOOP = 32_768


async def written(
    reads: ReadThreads, size: int, write: Callable[[], bytes], marked: int = 0
) -> Reply:
    """Return the reply whose body `write` returns.

    size: characters of its texts. marked: characters in which words are looked for.
    """
    if size + 10 * marked <= ON_LOOP:
        return Reply(write())
    return Reply(await reads.run(read_cost.of_reply(size, marked), write))
