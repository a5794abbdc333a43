"""Threads that take batches from the queues and run the encoders; the only threads of the server.

Every lane runs the same session of a model, which is safe and holds the weights once; as many lanes
as the CPU budget has cores give the most throughput. A batch that finds every other lane idle and
leaves nothing waiting may run on the wide encoder instead, which has a thread for every lane;
`thread_choice.py` decides when. An idle lane sleeps.

Several models share the lanes. Each is a `Tenant` with a queue of its own; a free lane serves the
more urgent kind of work first, and among equals the model that has had least of the lanes' time.

A batch of bulk work takes as long as twenty queries. While one runs, a query need not wait for it:
one lane more than there are cores takes nothing but interactive work, and only then. It shares the
cores with the others: beside a client that sends 256 law articles at a time, a query took 10 ms
instead of 67 (2026-11-24, medians, two cores).

A batch that does not end is given up: `relieve`, which is called about once a second, fails its jobs
and starts another lane in place of its thread, which cannot be ended. If the thread ever returns, it
ends by itself.

Promises: every job is answered exactly once, also when its batch raises or hangs or the lanes are closed;
a batch that raises fails the jobs in it, and the lane goes on.
"""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.clock import now
from server.errors import InferenceFailed, NotReady, ShuttingDown
from server.inference.batching import Batch, BatchLimits, Item, Job, tokens_of
from server.inference.speed import ASSUMED_RATE
from server.inference.tenant import Tenant
from server.telemetry.metrics import Metrics
from server.types import Encoder

log = logging.getLogger(__name__)

# Seconds after which a client may ask again where a lane has ended: no waiting mends that.
NOT_READY_S = 10
# Seconds between two calls of `relieve`. A longer time between them counts as two: a process that was
# stopped for a minute and goes on has no batch that hung for a minute.
LOOK_S = 1.0
# A batch may take so many times as long as its tokens usually do, and the seconds of the setting besides.
SLOWEST = 10.0
KINDS = ("interactive", "bulk")

Deliver = Callable[[Sequence[Job]], None]
Thread = threading.Thread
Take = Callable[[], "RunningBatch | None"]


@dataclass(slots=True, eq=False)
class RunningBatch:
    """A batch that a thread is computing.

    alone: whether it has the CPU to itself. ran_s: seconds it has been seen to run. lost: given up.
    """

    tenant: Tenant
    batch: Batch
    alone: bool
    started: float
    thread: Thread
    ran_s: float = 0.0
    lost: bool = False


def patience_s(tokens: int, rate: float, hang_s: float) -> float:
    """Return the seconds after which a batch of so many tokens counts as hung.

    rate: tokens per second of one lane.
    """
    return hang_s + SLOWEST * tokens / max(rate, 1.0)


class Lanes:
    """`count` threads; `deliver` gets finished jobs, on the thread that finished or failed them.

    hang_s: seconds, see `patience_s`.
    """

    def __init__(
        self, metrics: Metrics, deliver: Deliver, count: int, hang_s: float = 30.0
    ) -> None:
        self._metrics = metrics
        self._deliver = deliver
        self._tenants: list[Tenant] = []
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._urgent = threading.Condition(self._lock)
        self._idle = 0
        self._busy = 0
        self._closing = False
        # What the model that was served last had used by then.
        self._level_s = 0.0
        self._running: set[RunningBatch] = set()
        self._looked = now()
        self._hang_s = hang_s
        self._threads: dict[Thread, Take] = {}
        self._count = count
        self._register(metrics)
        for index in range(count):
            self._start(f"lane-{index}", self._next)
        self._start("lane-express", self._next_urgent)

    def _register(self, metrics: Metrics) -> None:
        """Let gauges read the lanes and what waits for them."""
        metrics.lanes.set(self._count)
        metrics.lanes_busy.set_function(lambda: self._busy)
        for place, kind in enumerate(KINDS):
            metrics.queue_tokens.labels(kind).set_function(partial(self._waiting, place))
            metrics.queue_tokens_limit.labels(kind).set_function(partial(self._bound, place))
        metrics.queue_texts.set_function(self._waiting_texts)

    def _start(self, name: str, take: Take) -> None:
        thread = Thread(target=self._run, args=[take], name=name, daemon=True)
        thread.start()
        self._threads[thread] = take

    def admit(
        self,
        encoder: Encoder,
        limits: BatchLimits,
        wide: Encoder | None = None,
        rate: float = ASSUMED_RATE,
    ) -> Tenant:
        """Serve another model; rate: its tokens per second on one thread, as far as is known."""
        tenant = Tenant(encoder, limits, wide, self._count, rate)
        with self._lock:
            self._tenants.append(tenant)
        return tenant

    def dismiss(self, tenant: Tenant) -> None:
        """Forget a model as soon as nothing waits for it; it may still be given work."""
        with self._lock:
            tenant.leaving = True
            self._forget(tenant)

    def _forget(self, tenant: Tenant) -> None:
        if not tenant.leaving:
            return
        tenant.queue.drop_unwanted()
        if not any(tenant.queue.tokens) and tenant in self._tenants:
            self._tenants.remove(tenant)

    @property
    def accepting(self) -> bool:
        return not self._closing

    @property
    def idle(self) -> bool:
        return not self._busy and not self._anything_waits

    def check_accepting(self) -> None:
        """Raise ShuttingDown once the lanes are closing."""
        if self._closing:
            raise ShuttingDown("the server is stopping", retry_after_s=5)

    def check_alive(self) -> None:
        """Raise NotReady where a lane has ended though the lanes are not closing."""
        ended = [thread.name for thread in list(self._threads) if not thread.is_alive()]
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
                tenant.used_s = max(tenant.used_s, self._level_s)
            tenant.add(job)
            if tenant.leaving and tenant not in self._tenants:
                self._tenants.append(tenant)

    def abandon(self, tenant: Tenant, job: Job) -> None:
        """Drop a job whose client has left: what has not been computed of it never will be."""
        with self._lock:
            job.abandoned = True
            tenant.queue.lost_interest()
            self._forget(tenant)

    def wake(self) -> None:
        """Let lanes that sleep look for work."""
        with self._lock:
            if self._idle:
                self._work.notify(min(self._idle, self._waiting_texts()))
            elif self._bulk_running and self._waiting(0):
                self._urgent.notify()

    def run_here(self, tenant: Tenant, job: Job, within_s: float) -> bool:
        """Compute a job of one text on the calling thread; return False where it has to wait.

        It has to wait where anything else is computed or waits, or where this model takes `within_s`
        or longer for as many tokens. It saves the job two hand-overs between threads. On return the
        job is finished or failed, and not delivered.
        """
        with self._lock:
            if self._closing or self._busy or self._anything_waits:
                return False
            if tenant.lone_speed.seconds(job.tokens) >= within_s:
                return False
            batch = [Item(job, 0, job.ids[0])]
            tenant.queue.began(batch)
            running = self._begun(tenant, batch, alone=True)
        self._compute(running)
        return True

    def check_room(self, tenant: Tenant, texts: int, tokens: int) -> None:
        """Raise what `submit` is certain to raise for so many texts of at least so many tokens."""
        with self._lock:
            self.check_accepting()
            tenant.check_room(texts, tokens)

    def close(self, timeout_s: float) -> None:
        """Finish what was accepted within `timeout_s`; what is left then fails as ShuttingDown."""
        with self._lock:
            self._closing = True
            self._work.notify_all()
            self._urgent.notify_all()
        deadline = now() + timeout_s
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - now()))
        with self._lock:
            waiting = [job for tenant in self._tenants for job in tenant.queue.drain()]
            left = [job for job in waiting if not job.abandoned]
            for job in left:
                job.error = ShuttingDown(
                    "the server stopped before the request was computed", retry_after_s=5
                )
        if left:
            self._deliver(left)

    # --- lanes that hang --------------------------------------------------------------------------

    @property
    def sound(self) -> bool:
        """Return whether no thread hangs; one that was replaced still does, until it returns."""
        with self._lock:
            return not any(running.lost for running in self._running)

    def relieve(self, moment: float) -> None:
        """Give up batches that hang by `moment`; called every LOOK_S seconds."""
        with self._lock:
            hanging = [running for running in self._running if self._hangs(running, moment)]
            self._looked = moment
            failed = [job for running in hanging for job in self._give_up(running, moment)]
        if failed:
            self._deliver(failed)

    def _hangs(self, running: RunningBatch, moment: float) -> bool:
        # A stopped process runs nothing, so time that it did not see does not count.
        running.ran_s += max(0.0, min(moment - max(self._looked, running.started), 2 * LOOK_S))
        rate, tokens = running.tenant.speed.rate, tokens_of(running.batch)
        return not running.lost and running.ran_s > patience_s(tokens, rate, self._hang_s)

    def _give_up(self, running: RunningBatch, moment: float) -> list[Job]:
        """Start another thread in place of the batch's; return the jobs that failed by this."""
        log.error(
            "a batch of %d texts, %d tokens, has run for %.0f s: its requests fail and another lane"
            " starts; restart the server if this happens again",
            len(running.batch),
            tokens_of(running.batch),
            running.ran_s,
        )
        self._over(running, moment)
        running.lost = True
        self._running.add(running)
        self._metrics.hung_lanes.inc()
        failed = _failed(running, f"the computation did not end within {running.ran_s:.0f} s")
        try:
            self._start(running.thread.name, self._threads[running.thread])
        except RuntimeError:
            # One lane less from now on, and not ready as soon as the thread that hangs has ended.
            log.exception("no thread could be started in its place; restart the server")
        else:
            del self._threads[running.thread]
        return failed

    # --- the lane's side --------------------------------------------------------------------------

    def _run(self, take: Take) -> None:
        while self._serve(take):
            continue

    def _serve(self, take: Take) -> bool:
        """Take and compute one batch; return False when this thread has to end."""
        # subtle: a frame of its own, so that a lane which waits for work keeps no model in memory.
        if (running := take()) is None:
            return False
        if finished := self._compute(running):
            self._deliver(finished)
        return not running.lost

    def _begun(self, tenant: Tenant, batch: Batch, *, alone: bool) -> RunningBatch:
        """Note a batch that the current thread computes now; the lock is held."""
        self._busy += 1
        running = RunningBatch(tenant, batch, alone, now(), threading.current_thread())
        self._running.add(running)
        return running

    def _compute(self, running: RunningBatch) -> list[Job]:
        """Run a batch; return the jobs that are finished or failed with it."""
        batch = running.batch
        encoder = running.tenant.encoder_for(alone=running.alone)
        started = now()
        try:
            results = encoder.encode([item.ids for item in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} texts")
        except Exception as error:
            log.exception("a batch of %d texts failed", len(batch))
            self._metrics.failed_batches.inc()
            return self._fail(running, f"the computation failed: {type(error).__name__}")
        return self._complete(running, encoder, results, started, now())

    def _next(self) -> RunningBatch | None:
        """Return the next batch, after sleeping until there is one.

        None when the lanes are closing and all work is done.
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
            return self._begun(*taken, alone=not self._busy and not self._anything_waits)

    def _next_urgent(self) -> RunningBatch | None:
        """Return the next interactive batch that would have to wait for bulk work; see `_next`."""
        with self._lock:
            while (taken := self._take_urgent()) is None:
                if self._closing:
                    return None
                self._urgent.wait()
            return self._begun(*taken, alone=False)

    def _take(self) -> tuple[Tenant, Batch] | None:
        moment, tenants = now(), self._tenants
        if len(tenants) > 1:
            tenants = [min(tenants, key=lambda one: (one.queue.urgency(moment), one.used_s))]
        return self._served(tenants[0], tenants[0].queue.take(moment)) if tenants else None

    def _take_urgent(self) -> tuple[Tenant, Batch] | None:
        if not self._bulk_running or self._idle:
            return None
        hurried = [tenant for tenant in self._tenants if tenant.queue.tokens[0]]
        if not hurried:
            return None
        tenant = min(hurried, key=lambda one: one.used_s)
        return self._served(tenant, tenant.queue.take_interactive())

    def _served(self, tenant: Tenant, batch: Batch) -> tuple[Tenant, Batch] | None:
        self._level_s = tenant.used_s
        return (tenant, batch) if batch else None

    @property
    def _bulk_running(self) -> bool:
        return any(tenant.queue.bulk_running for tenant in self._tenants)

    @property
    def _anything_waits(self) -> bool:
        return any(any(tenant.queue.tokens) for tenant in self._tenants)

    def _waiting(self, kind: int) -> int:
        """Return the tokens of interactive (0) or bulk (1) jobs that wait."""
        return sum(tenant.queue.tokens[kind] for tenant in self._tenants)

    def _bound(self, kind: int) -> int:
        """Return the tokens of interactive (0) or bulk (1) jobs that may wait, for all models together."""
        return sum(tenant.bounds[kind] for tenant in list(self._tenants))

    def _waiting_texts(self) -> int:
        return sum(tenant.queue.texts for tenant in self._tenants)

    def _complete(
        self,
        running: RunningBatch,
        encoder: Encoder,
        results: Collection[Any],
        started: float,
        ended: float,
    ) -> list[Job]:
        texts, tokens = len(running.batch), tokens_of(running.batch)
        self._metrics.batch_texts.observe(texts)
        self._metrics.batch_tokens.observe(tokens)
        finished = []
        with self._lock:
            self._over(running, ended)
            running.tenant.observe(encoder, texts, tokens, ended - started, alone=running.alone)
            for item, result in zip(running.batch, results, strict=True):
                job = item.job
                if job.error is not None:
                    continue
                job.results[item.position] = result
                job.started = started if job.started is None else job.started
                job.remaining -= 1
                if job.remaining == 0:
                    job.finished = ended
                    finished.append(job)
        return finished

    def _fail(self, running: RunningBatch, message: str) -> list[Job]:
        with self._lock:
            self._over(running, now())
            return _failed(running, message)

    def _over(self, running: RunningBatch, ended: float) -> None:
        self._running.discard(running)
        if not running.lost:
            self._busy -= 1
            running.tenant.used_s += ended - running.started
            self._metrics.lane_busy_seconds.inc(ended - running.started)
            running.tenant.queue.ended(running.batch, ended)
            self._forget(running.tenant)


def _failed(running: RunningBatch, message: str) -> list[Job]:
    """Fail the jobs of a batch; return those that had not failed before. The lock is held."""
    running.tenant.queue.lost_interest()
    failed = []
    for item in running.batch:
        if item.job.error is None:
            item.job.error = InferenceFailed(message)
            failed.append(item.job)
    return failed
