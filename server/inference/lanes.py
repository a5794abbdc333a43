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

A batch that does not end is given up: `relieve`, which somebody calls about once a second, fails its jobs
and starts another lane in the place of its thread, which nobody can end. Should the thread come back one
day, it ends by itself.

Promises: every job is answered exactly once, also when its batch raises or hangs or the lanes are closed;
a raised batch fails the jobs in it and the lane lives on.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from server.clock import now
from server.errors import InferenceFailed, NotReady, ShuttingDown
from server.inference.batching import Batch, BatchLimits, Item, Job, Queue, tokens_of
from server.inference.thread_choice import Width
from server.telemetry.metrics import Metrics
from server.types import Encoder, Vectors

log = logging.getLogger(__name__)

# How fast the estimate of tokens per second follows what is measured, per batch.
RATE_SMOOTHING = 0.05
# Tokens per second assumed of a lane until it has worked; only for the first Retry-After.
ASSUMED_RATE = 10_000.0
# Until somebody may have mended what no waiting mends.
NOT_READY_S = 10
# Seconds between two calls of `relieve`. What it has not looked at counts for no more than two of them:
# a process that was stopped for a minute and goes on has no batch that hung for a minute.
LOOK_S = 1.0
# A batch may take so many times as long as its tokens usually do, and the seconds of the setting besides.
SLOWEST = 10.0

Deliver = Callable[[Sequence[Job]], None]
Thread = threading.Thread
Take = Callable[[], "Turn | None"]


class Tenant:
    """One model at the lanes; `Lanes.admit` makes it, and only the lanes look inside.

    had_s: of the lanes' time, in seconds; one that comes back after a rest claims nothing for it.
    rate: tokens per second of one lane. leaving: it is among the lanes' tenants only while texts wait.
    """

    def __init__(
        self, encoder: Encoder, limits: BatchLimits, wide: Encoder | None, lanes: int
    ) -> None:
        self.encoder = encoder
        self.wide = wide
        self.width = Width()
        self.queue = Queue(limits, encoder.packing, lanes)
        self.rate = ASSUMED_RATE
        self.had_s = 0.0
        self.leaving = False


@dataclass(slots=True, eq=False)
class Turn:
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
    """Seconds after which a batch of so many tokens hangs, on a lane of `rate` tokens per second."""
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
        # What the model served last had had by then.
        self._level_s = 0.0
        self._turns: set[Turn] = set()
        self._looked = now()
        self._hang_s = hang_s
        self._threads: dict[Thread, Take] = {}
        self._count = count
        metrics.lanes.set(count)
        metrics.lanes_busy.set_function(lambda: self._busy)
        for place, kind in enumerate(("interactive", "bulk")):
            metrics.queue_tokens.labels(kind).set_function(partial(self._waiting, place))
        metrics.queue_texts.set_function(self._waiting_texts)
        for index in range(count):
            self._start(f"lane-{index}", self._next)
        self._start("lane-express", self._next_urgent)

    def _start(self, name: str, take: Take) -> None:
        thread = Thread(target=self._run, args=[take], name=name, daemon=True)
        thread.start()
        self._threads[thread] = take

    def admit(self, encoder: Encoder, limits: BatchLimits, wide: Encoder | None = None) -> Tenant:
        """Let another model in."""
        tenant = Tenant(encoder, limits, wide, self._count)
        with self._lock:
            self._tenants.append(tenant)
        return tenant

    def dismiss(self, tenant: Tenant) -> None:
        """Let a model go when it has nothing to do; it may still be given work, and goes again."""
        with self._lock:
            tenant.leaving = True
            self._let_go(tenant)

    def _let_go(self, tenant: Tenant) -> None:
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
        if self._closing:
            raise ShuttingDown("the server is stopping", retry_after_s=5)

    def check_alive(self) -> None:
        """Raise NotReady where a lane has ended that nobody has told to."""
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
                tenant.had_s = max(tenant.had_s, self._level_s)
            tenant.queue.add(job, job.arrived, tenant.rate * self._count)
            if tenant.leaving and tenant not in self._tenants:
                self._tenants.append(tenant)

    def abandon(self, tenant: Tenant, job: Job) -> None:
        """Nobody waits for it any more: what has not been computed of it never will be."""
        with self._lock:
            job.abandoned = True
            tenant.queue.lost_interest()
            self._let_go(tenant)

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
            batch = [Item(job, 0, job.ids[0])]
            tenant.queue.began(batch)
            turn = self._begun(tenant, batch, alone=True)
        self._compute(turn)
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
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - now()))
        with self._lock:
            waiting = [job for tenant in self._tenants for job in tenant.queue.drain()]
            left = [job for job in waiting if not job.abandoned]
            for job in left:
                job.error = ShuttingDown("the server stopped before its turn", retry_after_s=5)
        if left:
            self._deliver(left)

    # --- lanes that hang --------------------------------------------------------------------------

    @property
    def sound(self) -> bool:
        """Whether no thread hangs; one that has been replaced still does, until it comes back."""
        with self._lock:
            return not any(turn.lost for turn in self._turns)

    def relieve(self, moment: float) -> None:
        """Give up batches that hang by `moment`; to be called every LOOK_S seconds."""
        with self._lock:
            hanging = [turn for turn in self._turns if self._hangs(turn, moment)]
            self._looked = moment
            failed = [job for turn in hanging for job in self._give_up(turn, moment)]
        if failed:
            self._deliver(failed)

    def _hangs(self, turn: Turn, moment: float) -> bool:
        # What a stopped process did not see it run, it did not run.
        turn.ran_s += max(0.0, min(moment - max(self._looked, turn.started), 2 * LOOK_S))
        tokens = tokens_of(turn.batch)
        return not turn.lost and turn.ran_s > patience_s(tokens, turn.tenant.rate, self._hang_s)

    def _give_up(self, turn: Turn, moment: float) -> list[Job]:
        """Put another thread in the place of the turn's; returns the jobs that failed by this."""
        texts, tokens = len(turn.batch), tokens_of(turn.batch)
        log.error(
            "a batch of %d texts, %d tokens, has run for %.0f s: its requests fail and another lane"
            " starts; restart the server if this happens again"
            " %d 条文本（%d token）的一批已运行 %.0f 秒：相关请求返回错误，并启动新的计算线程；"
            "如再次发生请重启服务",
            *(texts, tokens, turn.ran_s) * 2,
        )
        self._over(turn, moment)
        turn.lost = True
        self._turns.add(turn)
        self._metrics.hung_lanes.inc()
        failed = _failed(turn, f"the computation did not end within {turn.ran_s:.0f} s")
        try:
            self._start(turn.thread.name, self._threads[turn.thread])
        except RuntimeError:
            # One lane less from now on, and not ready as soon as the thread that hangs has ended.
            log.exception("no thread could be started in its place 无法启动替代线程")
        else:
            del self._threads[turn.thread]
        return failed

    # --- the lane's side --------------------------------------------------------------------------

    def _run(self, take: Take) -> None:
        while self._serve(take):
            continue

    def _serve(self, take: Take) -> bool:
        """Take and compute one batch; False when this thread is to end."""
        # subtle: a frame of its own, so that a lane which waits for work keeps no model in memory.
        if (turn := take()) is None:
            return False
        if finished := self._compute(turn):
            self._deliver(finished)
        return not turn.lost

    def _begun(self, tenant: Tenant, batch: Batch, *, alone: bool) -> Turn:
        """Of a batch that the current thread computes now; the lock is held."""
        self._busy += 1
        turn = Turn(tenant, batch, alone, now(), threading.current_thread())
        self._turns.add(turn)
        return turn

    def _compute(self, turn: Turn) -> list[Job]:
        """Run a batch; returns the jobs that are finished or failed with it."""
        tenant, batch = turn.tenant, turn.batch
        encoder = tenant.encoder
        if turn.alone and tenant.wide is not None and tenant.width.choose():
            encoder = tenant.wide
        started = now()
        try:
            vectors = self._encode(encoder, batch)
        except Exception as error:
            log.exception("a batch of %d texts failed", len(batch))
            self._metrics.failed_batches.inc()
            return self._fail(turn, f"the computation failed: {type(error).__name__}")
        ended = now()
        if turn.alone:
            tokens = tokens_of(batch)
            wide = encoder is tenant.wide
            tenant.width.observe(wide=wide, tokens=tokens, seconds=ended - started)
        return self._complete(turn, vectors, started, ended)

    def _next(self) -> Turn | None:
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
            return self._begun(*taken, alone=not self._busy and not self._anything_waits)

    def _next_urgent(self) -> Turn | None:
        """The next interactive batch that would have to wait for bulk work; see `_next`."""
        with self._lock:
            while (taken := self._take_urgent()) is None:
                if self._closing:
                    return None
                self._urgent.wait()
            return self._begun(*taken, alone=False)

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

    def _complete(self, turn: Turn, vectors: Vectors, started: float, ended: float) -> list[Job]:
        tokens = tokens_of(turn.batch)
        self._metrics.batch_texts.observe(len(turn.batch))
        self._metrics.batch_tokens.observe(tokens)
        finished = []
        with self._lock:
            self._over(turn, ended)
            rate = tokens / max(ended - started, 1e-6)
            turn.tenant.rate += RATE_SMOOTHING * (rate - turn.tenant.rate)
            for item, vector in zip(turn.batch, vectors, strict=True):
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

    def _fail(self, turn: Turn, message: str) -> list[Job]:
        with self._lock:
            self._over(turn, now())
            return _failed(turn, message)

    def _over(self, turn: Turn, ended: float) -> None:
        self._turns.discard(turn)
        if not turn.lost:
            self._busy -= 1
            turn.tenant.had_s += ended - turn.started
            self._metrics.lane_busy_seconds.inc(ended - turn.started)
            turn.tenant.queue.ended(turn.batch, ended)
            self._let_go(turn.tenant)


def _failed(turn: Turn, message: str) -> list[Job]:
    """The jobs of a batch that had not failed before; the lock is held."""
    turn.tenant.queue.lost_interest()
    failed = []
    for item in turn.batch:
        if item.job.error is None:
            item.job.error = InferenceFailed(message)
            failed.append(item.job)
    return failed
