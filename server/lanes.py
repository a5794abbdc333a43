"""Threads that take batches from the queue and run the encoder; the only threads of the server.

Every lane runs the same session, which is safe and holds the weights once; as many lanes as the CPU
budget has cores give the most throughput. A batch that finds every other lane idle and leaves nothing
waiting may run on the wide encoder instead, which has a thread for every lane; `width.py` says when.
An idle lane sleeps.

A batch of bulk work takes as long as twenty queries. While one runs, a query need not wait for it:
one lane more than there are cores takes nothing but interactive work, and only then. It shares the
cores with the others: beside a client that sends 256 law articles at a time, a query took 10 ms
instead of 67 (2026-11-24, medians, two cores).

Promises: every job is answered exactly once, also when its batch raises or the lanes are closed; a
raised batch fails the jobs in it and the lane lives on.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from server.batching import Batch, BatchLimits, Item, Job, Queue
from server.errors import InferenceFailed, ShuttingDown
from server.metrics import Metrics, now
from server.types import Encoder, Vectors
from server.width import Width

log = logging.getLogger(__name__)

# How fast the estimate of tokens per second follows what is measured, per batch.
RATE_SMOOTHING = 0.05
# Tokens per second assumed of a lane until it has worked; only for the first Retry-After.
ASSUMED_RATE = 10_000.0

Deliver = Callable[[Sequence[Job]], None]


class Lanes:
    """`count` threads around one queue; `deliver` gets finished jobs, on a lane's thread."""

    def __init__(
        self,
        encoder: Encoder,
        limits: BatchLimits,
        metrics: Metrics,
        deliver: Deliver,
        count: int,
        wide: Encoder | None = None,
    ) -> None:
        self._encoder = encoder
        self._wide = wide
        self._width = Width()
        self._metrics = metrics
        self._deliver = deliver
        self._queue = Queue(limits, encoder.groups)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._urgent = threading.Condition(self._lock)
        self._idle = 0
        self._busy = 0
        self._closing = False
        self._lane_rate = ASSUMED_RATE
        self._threads = [
            threading.Thread(target=self._run, args=[take], name=name, daemon=True)
            for name, take in [
                *((f"lane-{index}", self._next) for index in range(count)),
                ("lane-express", self._next_urgent),
            ]
        ]
        self._count = count
        metrics.lanes.set(count)
        metrics.queue_tokens.labels("interactive").set_function(lambda: self._queue.tokens[0])
        metrics.queue_tokens.labels("bulk").set_function(lambda: self._queue.tokens[1])
        for thread in self._threads:
            thread.start()

    @property
    def accepting(self) -> bool:
        return not self._closing

    def submit(self, job: Job) -> None:
        """Queue a job; raises Overloaded, RequestTooLarge or ShuttingDown, and then nothing waits."""
        with self._lock:
            if self._closing:
                raise ShuttingDown("the server is stopping", retry_after_s=5)
            self._queue.add(job, job.arrived, self._lane_rate * self._count)
            if self._idle:
                self._work.notify(min(self._idle, len(job.ids)))
            elif self._queue.bulk_running and self._queue.is_interactive(job):
                self._urgent.notify()

    def run_here(self, job: Job) -> bool:
        """Compute a job of one text on the calling thread, if the CPU is all its own; else False.

        It spares the job two hand-overs between threads. It is finished, or failed, on return, and
        not delivered.
        """
        with self._lock:
            if self._closing or self._busy or any(self._queue.tokens):
                return False
            self._busy += 1
        self._compute([Item(job, 0, job.ids[0])], alone=True)
        return True

    def check_room(self, texts: int, tokens: int) -> None:
        """Raise what `submit` would, of a job whose tokens are not all known: at least so many."""
        with self._lock:
            if self._closing:
                raise ShuttingDown("the server is stopping", retry_after_s=5)
            self._queue.check_room(texts, tokens, self._lane_rate * self._count)

    def close(self, timeout_s: float) -> None:
        """Finish what was accepted within `timeout_s`; what is left then fails as ShuttingDown."""
        with self._lock:
            self._closing = True
            self._work.notify_all()
            self._urgent.notify_all()
        deadline = now() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - now()))
        with self._lock:
            left = [job for job in self._queue.drain() if not job.abandoned]
            for job in left:
                job.error = ShuttingDown("the server stopped before its turn", retry_after_s=5)
        if left:
            self._deliver(left)

    # --- the lane's side --------------------------------------------------------------------------

    def _run(self, take: Callable[[], tuple[Batch, bool]]) -> None:
        while True:
            batch, alone = take()
            if not batch:
                return
            if finished := self._compute(batch, alone=alone):
                self._deliver(finished)

    def _compute(self, batch: Batch, *, alone: bool) -> list[Job]:
        """Run a batch; returns the jobs that are finished or failed with it."""
        encoder = self._encoder
        if alone and self._wide is not None and self._width.choose():
            encoder = self._wide
        started = now()
        try:
            vectors = self._encode(encoder, batch)
        except Exception as error:
            log.exception("a batch of %d texts failed", len(batch))
            self._metrics.failed_batches.inc()
            return self._fail(batch, f"the computation failed: {type(error).__name__}")
        ended = now()
        if alone:
            tokens = sum(len(item.ids) for item in batch)
            wide = encoder is self._wide
            self._width.observe(wide=wide, tokens=tokens, seconds=ended - started)
        return self._complete(batch, vectors, started, ended)

    def _next(self) -> tuple[Batch, bool]:
        """The next batch, after sleeping until there is one, and whether it has the CPU to itself.

        The batch is empty when the lanes are closing and all is done.
        """
        with self._lock:
            while not (batch := self._queue.take(now())) and not self._closing:
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            if self._queue.tokens[0] and self._queue.bulk_running:
                self._urgent.notify()
            self._busy += 1
            return batch, self._busy == 1 and not any(self._queue.tokens)

    def _next_urgent(self) -> tuple[Batch, bool]:
        """The next interactive batch that would have to wait for bulk work; see `_next`."""
        with self._lock:
            while not (batch := self._take_urgent()) and not self._closing:
                self._urgent.wait()
            self._busy += 1
            return batch, False

    def _take_urgent(self) -> Batch:
        if self._queue.bulk_running and not self._idle:
            return self._queue.take_interactive()
        return []

    def _encode(self, encoder: Encoder, batch: Batch) -> Vectors:
        vectors = encoder.encode([item.ids for item in batch])
        if vectors.shape != (len(batch), batch[0].job.vectors.shape[1]):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(batch)} texts")
        return vectors

    def _complete(self, batch: Batch, vectors: Vectors, started: float, ended: float) -> list[Job]:
        tokens = sum(len(item.ids) for item in batch)
        self._metrics.batch_texts.observe(len(batch))
        self._metrics.batch_tokens.observe(tokens)
        finished = []
        with self._lock:
            self._busy -= 1
            self._queue.ended(batch, ended)
            rate = tokens / max(ended - started, 1e-6)
            self._lane_rate += RATE_SMOOTHING * (rate - self._lane_rate)
            for item, vector in zip(batch, vectors, strict=True):
                job = item.job
                if job.error is not None:
                    continue
                job.vectors[item.position] = vector
                job.started = started if job.started is None else job.started
                job.remaining -= 1
                if job.remaining == 0:
                    job.finished = ended
                    finished.append(job)
        return finished

    def _fail(self, batch: Batch, message: str) -> list[Job]:
        failed = []
        with self._lock:
            self._busy -= 1
            self._queue.ended(batch, now())
            for item in batch:
                if item.job.error is None:
                    item.job.error = InferenceFailed(message)
                    failed.append(item.job)
        return failed
