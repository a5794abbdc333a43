"""Which reads of collections run now, which wait, and which are refused; without clocks or threads.

Theory of operation
-------------------
A read is a search, a count, a listing or the like, with a cost: the estimated seconds of one thread. It is
light or heavy. Each kind has a bound for what may be under way, in seconds of work; what goes beyond it is
refused at once. A request that takes several turns is admitted once, for all of them.

A few threads take turns. Heavy reads get all threads but one, so a light read never waits for a heavy one to
end. Among the reads that wait, the first is that with the least of arrival + PATIENCE x cost: a cheap one
overtakes a dear one, and none is overtaken for ever.

Light reads that join (searches of one collection) run as one call, JOINED_S of them together. What comes
meanwhile waits for it and then runs together. This is the rule of batches of texts: there is no waiting window.
Another call begins beside it as soon as enough of them wait to fill one, so that many searches use many cores.

Estimates are wrong by some factor, on this machine and in this collection. `pace` follows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

from server.errors import Overloaded

# Seconds of work up to which a read is light. A search by words among 63,762 articles takes 10 ms.
LIGHT_S = 0.02
# Seconds of work of one call of searches that join, and how many these are at most.
JOINED_S, MAX_JOINED = 0.02, 32
PATIENCE = 20.0
# Seconds of work under way at most, of light and of heavy reads, for each thread that they may use.
QUEUE_S = (1.5, 5.0)
# How fast the pace follows what is observed, and its bounds.
SMOOTHING, PACES = 0.05, (0.05, 50.0)
# Seconds until a refused client may retry.
RETRY_AFTER_S = (1, 60)


@dataclass(slots=True, eq=False)
class Read:
    """A read that waits for its turn.

    run: takes the items of one or several reads, and returns their answers in order. item: what it gets for
    this read. waiter: what the caller waits on; the queue only carries it. joins: it may run together with
    reads of an equal `run`. at_once: answers it, where that takes less time than to hand it to a thread, or
    returns None. wanted: whether the caller still waits.
    """

    cost_s: float
    run: Callable[[Sequence[Any]], Sequence[Any]]
    item: Any
    waiter: Any
    joins: bool = False
    at_once: Callable[[], Any] | None = None
    wanted: bool = True


Turn = list[Read]


@dataclass(slots=True)
class _Kind:
    """Light or heavy reads: what is under way, and how much longer it takes than estimated."""

    threads: int
    queue_s: float
    admitted_s: float = 0.0
    pace: float = 1.0
    running: int = 0

    def wait_s(self) -> float:
        return self.admitted_s * self.pace / self.threads

    def observe(self, cost_s: float, seconds: float) -> None:
        low, high = PACES
        self.pace += SMOOTHING * (seconds / max(cost_s, 1e-6) - self.pace)
        self.pace = min(max(self.pace, low), high)


@dataclass(slots=True)
class _Line:
    """Reads that wait, by arrival and cost, and how long all of them take.

    calls: of reads that join, running now.
    """

    heap: list[tuple[float, int, Read]] = field(default_factory=list)
    waiting_s: float = 0.0
    calls: int = 0

    def push(self, place: tuple[float, int], read: Read) -> None:
        heappush(self.heap, (*place, read))
        self.waiting_s += read.cost_s

    def pop(self) -> Read:
        read = heappop(self.heap)[2]
        # subtle: sums of floats do not come back to 0 by themselves.
        self.waiting_s = self.waiting_s - read.cost_s if self.heap else 0.0
        return read

    @property
    def may_run(self) -> bool:
        """Whether the next call may begin: none is running, or those that wait fill one."""
        return not self.calls or len(self.heap) >= MAX_JOINED or self.waiting_s >= JOINED_S


class ReadQueue:
    """Every method is called on one event loop."""

    def __init__(self, threads: int) -> None:
        """Take the number of threads, at least 2."""
        self._threads = threads
        light_s, heavy_s = QUEUE_S
        self._light = _Kind(threads, light_s)
        self._heavy = _Kind(threads - 1, heavy_s)
        self._lines: dict[Any, _Line] = {}
        self._heavy_line = _Line()
        self._numbers = count()

    # --- admission --------------------------------------------------------------------------------

    def admit(self, cost_s: float) -> None:
        """Count a request among what is under way, or raise Overloaded."""
        self.check(cost_s)
        self._kind(cost_s).admitted_s += cost_s

    def check(self, cost_s: float) -> None:
        """Raise Overloaded if there is no room for a request. For a lone one there always is."""
        kind = self._kind(cost_s)
        if kind.admitted_s and kind.wait_s() + cost_s * kind.pace / kind.threads > kind.queue_s:
            low, high = RETRY_AFTER_S
            raise Overloaded(
                f"searches and other reads take {kind.wait_s():.1f} s of work now, at most"
                f" {kind.queue_s:g} s may wait, and this one needs about"
                f" {cost_s * kind.pace:.2g} s; try again later, or ask for less",
                retry_after_s=int(min(max(kind.wait_s() / 2 + 0.5, low), high)),
            )

    def leave(self, cost_s: float) -> None:
        """Called when an admitted request is over, however it ended."""
        kind = self._kind(cost_s)
        # subtle: sums of floats do not come back to 0 by themselves.
        kind.admitted_s = max(kind.admitted_s - cost_s, 0.0)
        if kind.admitted_s < 1e-9:
            kind.admitted_s = 0.0

    def is_light(self, cost_s: float) -> bool:
        return cost_s <= LIGHT_S

    def _kind(self, cost_s: float) -> _Kind:
        return self._light if self.is_light(cost_s) else self._heavy

    # --- turns ------------------------------------------------------------------------------------

    def add(self, read: Read, now: float) -> None:
        """Let a read wait; its request has been admitted."""
        place = now + PATIENCE * read.cost_s, next(self._numbers)
        self._line(read).push(place, read)

    def take(self) -> Turn:
        """Return the reads that a free thread runs now as one call; empty where there are none."""
        if self._light.running + self._heavy.running >= self._threads:
            return []
        heads = [
            (line.heap[0][:2], key)
            for key, line in list(self._lines.items())
            if self._has_wanted(line) and line.may_run
        ]
        heavy = self._heavy.running < self._heavy.threads and self._has_wanted(self._heavy_line)
        if heavy and (not heads or self._heavy_line.heap[0][:2] < min(heads)[0]):
            self._heavy.running += 1
            return [self._heavy_line.pop()]
        if not heads:
            return []
        return self._light_turn(self._lines[min(heads, key=lambda head: head[0])[1]])

    def _light_turn(self, line: _Line) -> Turn:
        turn = [line.pop()]
        cost_s = turn[0].cost_s
        while turn[0].joins and len(turn) < MAX_JOINED and self._has_wanted(line):
            cost_s += line.heap[0][2].cost_s
            if cost_s > JOINED_S:
                break
            turn.append(line.pop())
        line.calls += turn[0].joins
        self._light.running += 1
        return turn

    def ended(self, turn: Turn, seconds: float) -> None:
        """Called once for each turn when its call is over."""
        cost_s = sum(read.cost_s for read in turn)
        kind = self._kind(turn[0].cost_s)
        kind.running -= 1
        kind.observe(cost_s, seconds)
        if kind is self._light and turn[0].joins:
            self._line(turn[0]).calls -= 1
        for key in [key for key, line in self._lines.items() if not line.heap and not line.calls]:
            del self._lines[key]

    def _line(self, read: Read) -> _Line:
        if not self.is_light(read.cost_s):
            return self._heavy_line
        return self._lines.setdefault(read.run if read.joins else None, _Line())

    def _has_wanted(self, line: _Line) -> bool:
        """Drop reads whose caller has left; return whether others wait."""
        while line.heap and not line.heap[0][2].wanted:
            line.pop()
        return bool(line.heap)
