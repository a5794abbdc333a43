"""Threads that take batches from the queue and run the encoder; the only threads of the server.

Every lane runs the same session of a model, which is safe and holds the weights once; as many lanes
as the CPU budget has cores give the most throughput. A batch that finds every other lane idle and
leaves nothing waiting may run on the wide encoder instead, which has a thread for every lane;
`width.py` says when. An idle lane sleeps.

Several models share the lanes. Each is a `Tenant` with a queue of its own; a free lane serves the
kind of work that comes first, and among equals the model that has had least of the lanes' time.

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
from functools import partial

from server.batching import Batch, BatchLimits, Item, Job, Queue, tokens_of
from server.errors import InferenceFailed, NotReady, ShuttingDown
from server.metrics import Metrics, now
from server.types import Encoder, Vectors
from server.width import Width

log = logging.getLogger(__name__)

# How fast the estimate of tokens per second follows what is measured, per batch.
RATE_SMOOTHING = 0.05
# Tokens per second assumed of a lane until it has worked; only for the first Retry-After.
ASSUMED_RATE = 10_000.0
# Until somebody may have mended what no waiting mends.
NOT_READY_S = 10

Deliver = Callable[[Sequence[Job]], None]
# Whose batch, the batch, and whether it has the CPU to itself.
Taken = tuple["Tenant", Batch, bool]


class Tenant:
    """One model at the lanes; `Lanes.admit` makes it, and only the lanes look inside.

    had_s: of the lanes' time, in seconds; one that comes back after a rest claims nothing for it.
    rate: tokens per second of one lane.
    """

    def __init__(
        self, encoder: Encoder, limits: BatchLimits, wide: Encoder | None, lanes: int
    ) -> None:
        self.encoder = encoder
        self.wide = wide
        self.width = Width()
        self.queue = Queue(limits, encoder.groups, lanes)
        self.rate = ASSUMED_RATE
        self.had_s = 0.0


class Lanes:
    """`count` threads; `deliver` gets finished jobs, on a lane's thread."""

    def __init__(self, metrics: Metrics, deliver: Deliver, count: int) -> None:
        self._metrics = metrics
        self._deliver = deliver
        self._tenants: list[Tenant] = []
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._urgent = threading.Condition(self._lock)
        self._idle = 0
        self._busy = 0
        self._closing = False
        # What the model served last had had by then.
        self._level_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=[take], name=name, daemon=True)
            for name, take in [
                *((f"lane-{index}", self._next) for index in range(count)),
                ("lane-express", self._next_urgent),
            ]
        ]
        self._count = count
        metrics.lanes.set(count)
        metrics.lanes_busy.set_function(lambda: self._busy)
        for place, kind in enumerate(("interactive", "bulk")):
            metrics.queue_tokens.labels(kind).set_function(partial(self._waiting, place))
        metrics.queue_texts.set_function(self._waiting_texts)
        for thread in self._threads:
            thread.start()

    def admit(self, encoder: Encoder, limits: BatchLimits, wide: Encoder | None = None) -> Tenant:
        """Let another model in."""
        tenant = Tenant(encoder, limits, wide, self._count)
        with self._lock:
            self._tenants.append(tenant)
        return tenant

    @property
    def accepting(self) -> bool:
        return not self._closing

    @property
    def idle(self) -> bool:
        return not self._busy and not self._anything_waits

    def check_accepting(self) -> None:
        if self._closing:
            raise ShuttingDown("the server is stopping", retry_after_s=5)

    def check_alive(self) -> None:
        """Raise NotReady where a lane has ended that nobody has told to."""
        ended = [thread.name for thread in self._threads if not thread.is_alive()]
        if ended and not self._closing:
            raise NotReady(
                f"{len(ended)} of {len(self._threads)} lanes have ended; restart the server, and see"
                " its log",
                retry_after_s=NOT_READY_S,
            )

    def submit(self, tenant: Tenant, job: Job) -> None:
        """Queue a job; raises Overloaded, RequestTooLarge or ShuttingDown, and then nothing waits.

        Lanes that sleep go on sleeping until `wake`, so that jobs which come together are computed
        together.
        """
        with self._lock:
            self.check_accepting()
            if not any(tenant.queue.tokens):
                tenant.had_s = max(tenant.had_s, self._level_s)
            tenant.queue.add(job, job.arrived, tenant.rate * self._count)

    def wake(self) -> None:
        """Let lanes that sleep look for work."""
        with self._lock:
            if self._idle:
                self._work.notify(min(self._idle, self._waiting_texts()))
            elif self._bulk_running and self._waiting(0):
                self._urgent.notify()

    def run_here(self, tenant: Tenant, job: Job) -> bool:
        """Compute a job of one text on the calling thread, if the CPU is all its own; else False.

        It spares the job two hand-overs between threads. It is finished, or failed, on return, and
        not delivered.
        """
        with self._lock:
            if self._closing or self._busy or self._anything_waits:
                return False
            self._busy += 1
            batch = [Item(job, 0, job.ids[0])]
            tenant.queue.began(batch)
        self._compute(tenant, batch, alone=True)
        return True

    def check_room(self, tenant: Tenant, texts: int, tokens: int) -> None:
        """Raise what `submit` would, of a job whose tokens are not all known: at least so many."""
        with self._lock:
            self.check_accepting()
            tenant.queue.check_room(texts, tokens, tenant.rate * self._count)

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
            waiting = [job for tenant in self._tenants for job in tenant.queue.drain()]
            left = [job for job in waiting if not job.abandoned]
            for job in left:
                job.error = ShuttingDown("the server stopped before its turn", retry_after_s=5)
        if left:
            self._deliver(left)

    # --- the lane's side --------------------------------------------------------------------------

    def _run(self, take: Callable[[], Taken | None]) -> None:
        while (taken := take()) is not None:
            tenant, batch, alone = taken
            if finished := self._compute(tenant, batch, alone=alone):
                self._deliver(finished)

    def _compute(self, tenant: Tenant, batch: Batch, *, alone: bool) -> list[Job]:
        """Run a batch; returns the jobs that are finished or failed with it."""
        encoder = tenant.encoder
        if alone and tenant.wide is not None and tenant.width.choose():
            encoder = tenant.wide
        started = now()
        try:
            vectors = self._encode(encoder, batch)
        except Exception as error:
            log.exception("a batch of %d texts failed", len(batch))
            self._metrics.failed_batches.inc()
            return self._fail(
                tenant, batch, started, f"the computation failed: {type(error).__name__}"
            )
        ended = now()
        if alone:
            tokens = tokens_of(batch)
            wide = encoder is tenant.wide
            tenant.width.observe(wide=wide, tokens=tokens, seconds=ended - started)
        return self._complete(tenant, batch, vectors, started, ended)

    def _next(self) -> Taken | None:
        """The next batch, after sleeping until there is one, and whether it has the CPU to itself.

        None when the lanes are closing and all is done.
        """
        with self._lock:
            while (taken := self._take()) is None:
                if self._closing:
                    return None
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            if self._waiting(0) and self._bulk_running:
                self._urgent.notify()
            self._busy += 1
            tenant, batch = taken
            return tenant, batch, self._busy == 1 and not self._anything_waits

    def _next_urgent(self) -> Taken | None:
        """The next interactive batch that would have to wait for bulk work; see `_next`."""
        with self._lock:
            while (taken := self._take_urgent()) is None:
                if self._closing:
                    return None
                self._urgent.wait()
            self._busy += 1
            return *taken, False

    def _take(self) -> tuple[Tenant, Batch] | None:
        moment, tenants = now(), self._tenants
        if len(tenants) > 1:
            tenants = [min(tenants, key=lambda one: (one.queue.urgency(moment), one.had_s))]
        return self._served(tenants[0], tenants[0].queue.take(moment)) if tenants else None

    def _take_urgent(self) -> tuple[Tenant, Batch] | None:
        if not self._bulk_running or self._idle:
            return None
        hurried = [tenant for tenant in self._tenants if tenant.queue.tokens[0]]
        if not hurried:
            return None
        tenant = min(hurried, key=lambda one: one.had_s)
        return self._served(tenant, tenant.queue.take_interactive())

    def _served(self, tenant: Tenant, batch: Batch) -> tuple[Tenant, Batch] | None:
        self._level_s = tenant.had_s
        return (tenant, batch) if batch else None

    @property
    def _bulk_running(self) -> bool:
        return any(tenant.queue.bulk_running for tenant in self._tenants)

    @property
    def _anything_waits(self) -> bool:
        return any(any(tenant.queue.tokens) for tenant in self._tenants)

    def _waiting(self, kind: int) -> int:
        """Tokens of interactive (0) or bulk (1) jobs."""
        return sum(tenant.queue.tokens[kind] for tenant in self._tenants)

    def _waiting_texts(self) -> int:
        return sum(tenant.queue.texts for tenant in self._tenants)

    def _encode(self, encoder: Encoder, batch: Batch) -> Vectors:
        vectors = encoder.encode([item.ids for item in batch])
        if vectors.shape != (len(batch), batch[0].job.vectors.shape[1]):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(batch)} texts")
        return vectors

    def _complete(
        self, tenant: Tenant, batch: Batch, vectors: Vectors, started: float, ended: float
    ) -> list[Job]:
        tokens = tokens_of(batch)
        self._metrics.batch_texts.observe(len(batch))
        self._metrics.batch_tokens.observe(tokens)
        finished = []
        with self._lock:
            self._over(tenant, batch, started, ended)
            rate = tokens / max(ended - started, 1e-6)
            tenant.rate += RATE_SMOOTHING * (rate - tenant.rate)
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

    def _fail(self, tenant: Tenant, batch: Batch, started: float, message: str) -> list[Job]:
        failed = []
        with self._lock:
            self._over(tenant, batch, started, now())
            for item in batch:
                if item.job.error is None:
                    item.job.error = InferenceFailed(message)
                    failed.append(item.job)
        return failed

    def _over(self, tenant: Tenant, batch: Batch, started: float, ended: float) -> None:
        self._busy -= 1
        tenant.had_s += ended - started
        self._metrics.lane_busy_seconds.inc(ended - started)
        tenant.queue.ended(batch, ended)
