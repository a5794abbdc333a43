"""The queue and the batching policy, without clocks or threads: which texts are computed together.

Theory of operation
-------------------
A request becomes a `Job` of one or more texts; each text waits as an `Item`. A free lane asks
`Queue.take` for a batch and gets one at once if anything waits. There is no waiting window: texts
gather by themselves while the lanes are busy. A batch begins with the oldest text and others of its
length, then the next oldest and others of its length, and so on. It ends at a token budget, at the
lane's equal share of all work, or at the number of different lengths that the encoder takes at once.
Nothing is padded.

Small jobs are interactive and go first. Bulk jobs get the lanes when no interactive job waits, and
one batch whenever none of theirs has run for `bulk_patience_s`, so they never starve. The two kinds never
share a batch: a small request would take as long as everything beside it. They have separate bounds,
so a bulk client cannot cause single queries to be refused.

A job carries one result a text, whatever the model gives: a vector, a score. Only the code that makes
the answer looks into results.

Promises: an item is handed out at most once; items of abandoned or failed jobs are dropped before
they are computed; within a kind and a length, first in is first out.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.errors import Overloaded, RequestTooLarge, ServerError
from server.types import Ids, Packing

# Seconds until a refused client may retry: at least one, at most a minute.
RETRY_AFTER_S = (1, 60)
# A line that had no room for a request of up to this part of its bound accepts nothing until that part is
# free. Otherwise nearly all that is refused would be tokenised first, because there is always room for one
# token: under ten times the load that was 30 % of the event loop's time (2026-11-25, requests of 124 tokens).
REOPENED = 16
# Texts of one length, whatever that is.
ALONE = Packing(groups=1, longest=0)
# How soon a queue needs a lane.
PRESSING, PATIENT, NOTHING = range(3)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of batches and of the queue; `config.py` says how to choose them.

    interactive_queue_tokens, interactive_queue_s: so many tokens of small jobs may wait, or what the lanes
    compute in so many seconds if that is more.
    """

    batch_tokens: int
    interactive_tokens: int
    interactive_queue_tokens: int
    bulk_queue_tokens: int
    bulk_patience_s: float = 0.05
    interactive_queue_s: float = 0.0

    def interactive_bound(self, tokens_per_s: float) -> int:
        """Return how many tokens of small jobs may wait at this speed of all lanes."""
        return max(self.interactive_queue_tokens, int(self.interactive_queue_s * tokens_per_s))


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one request and, in the end, their results.

    results: one a text, in the order of the request; complete when `remaining` is 0. What they are
    depends on the model's task.
    waiter: what the submitter waits on; the queue and the lanes only carry it.
    """

    ids: Sequence[Ids]
    waiter: Any
    arrived: float
    results: list[Any] = field(init=False)
    tokens: int = field(init=False)
    remaining: int = field(init=False)
    started: float | None = None
    finished: float | None = None
    error: ServerError | None = None
    abandoned: bool = False

    def __post_init__(self) -> None:
        self.results = [None] * len(self.ids)
        self.tokens = sum(map(len, self.ids))
        self.remaining = len(self.ids)


class Item:
    """One text of a job."""

    __slots__ = ("ids", "job", "position")

    def __init__(self, job: Job, position: int, ids: Ids) -> None:
        self.job = job
        self.position = position
        self.ids = ids

    @property
    def wanted(self) -> bool:
        """Return whether a client still waits for the job's answer."""
        return not self.job.abandoned and self.job.error is None


Batch = list[Item]


def tokens_of(batch: Batch) -> int:
    """Return the tokens of all texts of a batch."""
    return sum(len(item.ids) for item in batch)


class _Line:
    """Waiting items of one kind, by length and in order of arrival."""

    __slots__ = ("_by_length", "closed", "tokens")

    def __init__(self) -> None:
        self._by_length: dict[int, deque[Item]] = {}
        self.tokens = 0
        self.closed = False

    @property
    def texts(self) -> int:
        # subtle: the copy is made in one step, so other threads may go on.
        return sum(map(len, list(self._by_length.values())))

    def add(self, item: Item) -> None:
        length = len(item.ids)
        self._by_length.setdefault(length, deque()).append(item)
        self.tokens += length

    def oldest(self) -> Item | None:
        """Return the item that waits longest; unwanted ones before it are dropped.

        It looks at one item a length, so at most at as many as the model reads tokens: cheap beside a batch.
        """
        best: Item | None = None
        for length, waiting in list(self._by_length.items()):
            while waiting and not waiting[0].wanted:
                waiting.popleft()
                self.tokens -= length
            if not waiting:
                del self._by_length[length]
            elif best is None or waiting[0].job.arrived < best.job.arrived:
                best = waiting[0]
        return best

    def batch(self, room: int, packing: Packing) -> Batch:
        """Return groups of equal length, those with the oldest item first, of at most `room` tokens."""
        found: list[Batch] = []
        arrived = {length: waiting[0].job.arrived for length, waiting in self._by_length.items()}
        oldest = min(arrived, key=arrived.__getitem__)
        if oldest > packing.longest:
            return self._take(oldest, room // oldest)
        for length in sorted(arrived, key=arrived.__getitem__):
            if length > packing.longest:
                continue
            if taken := self._take(length, room // length):
                found.append(taken)
                room -= length * len(taken)
                if len(found) == packing.groups:
                    break
        return [item for group in found for item in group]

    def drop_unwanted(self) -> None:
        """Forget every item that no client waits for, wherever it stands."""
        for length, waiting in list(self._by_length.items()):
            kept = deque(item for item in waiting if item.wanted)
            self.tokens -= length * (len(waiting) - len(kept))
            if kept:
                self._by_length[length] = kept
            else:
                del self._by_length[length]

    def _take(self, length: int, count: int) -> Batch:
        waiting = self._by_length[length]
        batch: Batch = []
        while waiting and len(batch) < count:
            item = waiting.popleft()
            self.tokens -= length
            if item.wanted:
                batch.append(item)
        if not waiting:
            del self._by_length[length]
        return batch


class Queue:
    """All waiting texts of a model; every method is called under one lock that the lanes own.

    lanes: how many share the work. Where a method takes `tokens_per_s`, it is the speed of all lanes.
    """

    def __init__(self, limits: BatchLimits, packing: Packing, lanes: int = 1) -> None:
        self._limits = limits
        self._packing = packing
        self._lanes = lanes
        self._running_tokens = 0
        self._interactive = _Line()
        self._bulk = _Line()
        self._bulk_due = 0.0
        self._bulk_running = 0
        self._some_unwanted = False

    @property
    def tokens(self) -> tuple[int, int]:
        """Waiting tokens of interactive and of bulk jobs."""
        return self._interactive.tokens, self._bulk.tokens

    @property
    def texts(self) -> int:
        """The number of texts that wait; any thread may ask, without the lock."""
        return self._interactive.texts + self._bulk.texts

    def add(self, job: Job, now: float, tokens_per_s: float) -> None:
        """Accept a whole job or none of it; raises Overloaded or RequestTooLarge."""
        interactive = self.is_interactive(job)
        refusal = self._refusal(interactive, job.tokens, f"{job.tokens}", tokens_per_s)
        if refusal is not None:
            raise refusal
        if not interactive and self._bulk.oldest() is None:
            self._bulk_due = now + self._limits.bulk_patience_s
        line = self._interactive if interactive else self._bulk
        for position, ids in enumerate(job.ids):
            line.add(Item(job, position, ids))

    def check_room(self, texts: int, tokens: int, tokens_per_s: float) -> None:
        """Raise what `add` is certain to raise for so many texts of at least so many tokens.

        While it is not known in which line the job will stand, it is refused only if neither has room.
        """
        small, least = self._limits.interactive_tokens, f"at least {tokens}"
        refusals = []
        if texts == 1 or tokens <= small:
            refusals.append(self._refusal(True, tokens, least, tokens_per_s))
        if texts > 1:
            # A job of the bulk line has at least one token more than a small one.
            refusals.append(self._refusal(False, max(tokens, small + 1), least, tokens_per_s))
        certain = [refusal for refusal in refusals if refusal is not None]
        if len(certain) == len(refusals):
            # Where one line is full and the other too small, a retry may help.
            raise next((one for one in certain if isinstance(one, Overloaded)), certain[0])

    def _refusal(
        self, interactive: bool, tokens: int, said: str, tokens_per_s: float
    ) -> ServerError | None:
        """Return why so many tokens cannot stand in a line; None if they can."""
        line, limit = self._interactive, self._limits.interactive_bound(tokens_per_s)
        if not interactive:
            line, limit = self._bulk, self._limits.bulk_queue_tokens
        if tokens > limit:
            return RequestTooLarge(
                f"the request has {said} tokens, at most {limit} fit in the queue;"
                " send fewer texts at once"
            )
        if line.tokens + tokens > limit:
            self.drop_unwanted()
        if line.closed and limit - line.tokens >= limit // REOPENED:
            line.closed = False
        if line.closed or line.tokens + tokens > limit:
            line.closed |= tokens <= limit // REOPENED
            return Overloaded(
                f"the queue is full with {line.tokens} tokens of at most {limit}, the request has"
                f" {said} more; try again later",
                retry_after_s=retry_after_s(line.tokens, tokens_per_s),
            )
        return None

    def lost_interest(self) -> None:
        """Called when a job that may be here has failed or its client has left.

        Finding such jobs means looking at everything that waits. A server that refuses a thousand
        requests a second has no time for that unless there is one.
        """
        self._some_unwanted = True

    def drop_unwanted(self) -> None:
        """Free the room of items that no client waits for."""
        if self._some_unwanted:
            self._some_unwanted = False
            self._interactive.drop_unwanted()
            self._bulk.drop_unwanted()

    def bounds(self, tokens_per_s: float) -> tuple[int, int]:
        """Return how many tokens of interactive and of bulk jobs may wait."""
        return self._limits.interactive_bound(tokens_per_s), self._limits.bulk_queue_tokens

    def is_interactive(self, job: Job) -> bool:
        """Return whether a job is small: one text, or few tokens."""
        return len(job.ids) == 1 or job.tokens <= self._limits.interactive_tokens

    def urgency(self, now: float) -> int:
        """Return PRESSING if small jobs wait or bulk work is due, PATIENT for other bulk work, or NOTHING."""
        interactive, bulk = self._interactive.oldest(), self._bulk.oldest()
        if interactive is None and bulk is None:
            return NOTHING
        return PRESSING if interactive is not None or self._is_due(now) else PATIENT

    def _is_due(self, now: float) -> bool:
        """Return whether bulk work that waits has waited long enough."""
        return not self._bulk_running and now >= self._bulk_due

    def take(self, now: float) -> Batch:
        """Return the next batch, items of equal length side by side; empty when nothing waits."""
        interactive, bulk = self._interactive.oldest(), self._bulk.oldest()
        if interactive is not None and (bulk is None or not self._is_due(now)):
            return self._batch(self._interactive, interactive)
        if bulk is None:
            return []
        self._bulk_running += 1
        return self._batch(self._bulk, bulk)

    def began(self, batch: Batch) -> None:
        """Called for a batch that is computed without having waited here."""
        self._running_tokens += tokens_of(batch)

    def ended(self, batch: Batch, now: float) -> None:
        """Called once for every batch when its computation is over, however it ended."""
        self._running_tokens -= tokens_of(batch)
        if not self.is_interactive(batch[0].job):
            # subtle: the patience counts from the batch's end. A batch may take longer than that, and bulk
            # work would then be due all the time.
            self._bulk_running -= 1
            self._bulk_due = now + self._limits.bulk_patience_s

    @property
    def bulk_running(self) -> bool:
        return self._bulk_running > 0

    def take_interactive(self) -> Batch:
        """Return the next batch of small jobs, whether bulk work is due or not."""
        oldest = self._interactive.oldest()
        return [] if oldest is None else self._batch(self._interactive, oldest)

    def _batch(self, line: _Line, oldest: Item) -> Batch:
        # No lane takes more than its share of all work: the others would have little or nothing.
        # With 4 / 16 / 64 clients that send single questions, 1.21 / 1.08 / 1.04 times the rate without
        # it (2026-11-25, two cores); long texts are as fast as before.
        share = math.ceil((line.tokens + self._running_tokens) / self._lanes)
        # A text longer than the room is computed alone.
        room = max(min(self._limits.batch_tokens, share), len(oldest.ids))
        batch = line.batch(room, self._packing)
        self.began(batch)
        return batch

    def drain(self) -> list[Job]:
        """Empty the queue; return the jobs that were waiting, each once."""
        jobs: dict[int, Job] = {}
        for line in (self._interactive, self._bulk):
            while (item := line.oldest()) is not None:
                jobs[id(item.job)] = item.job
                line.batch(len(item.ids), ALONE)
        return list(jobs.values())


def retry_after_s(queued_tokens: int, tokens_per_s: float) -> int:
    """Return whole seconds in which about half of the queue will have been computed."""
    shortest, longest = RETRY_AFTER_S
    seconds = queued_tokens / max(tokens_per_s, 1.0) / 2
    return int(min(max(seconds + 0.5, shortest), longest))
