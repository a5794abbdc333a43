"""Jobs for lanes, and what waits for their answers."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from server.inference.batching import BatchLimits, Job
from server.telemetry.metrics import Metrics
from server.types import Encoder, Ids, Vectors
from tests.support.fakes import PATIENCE_S, Echo, Gated, OneModel

LIMITS = BatchLimits(
    batch_tokens=256,
    interactive_tokens=200,
    interactive_queue_tokens=1 << 24,
    bulk_queue_tokens=1 << 24,
    bulk_patience_s=0.005,
)
POISON = 13
ECHO = Echo()


class Answers:
    """Counts what the lanes deliver, and can be waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count: Counter[Job] = Counter()

    def deliver(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            self._count.update(jobs)
            self._changed.notify_all()

    def wait_for(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            answered = self._changed.wait_for(
                lambda: all(job in self._count for job in jobs), PATIENCE_S
            )
        assert answered, f"{sum(job not in self._count for job in jobs)} of {len(jobs)} waited"

    def check_once_each(self, jobs: Sequence[Job]) -> None:
        assert self._count == Counter(jobs)


class Poisoned(Echo):
    """Fails batches with a text that begins with POISON."""

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        if any(ids[0] == POISON for ids in texts):
            raise ArithmeticError("poison")
        return super().encode(texts)


def job_of(*texts: Sequence[int]) -> Job:
    ids = [np.array(text, dtype=np.int64) for text in texts]
    return Job(ids, None, 0.0)


def lone(first: int = 1, length: int = 3) -> Job:
    return job_of([first] * length)


@contextmanager
def running(
    encoder: Encoder, answers: Answers, number: int = 2, limits: BatchLimits = LIMITS
) -> Iterator[OneModel]:
    lanes = OneModel(encoder, limits, Metrics(), answers.deliver, number)
    try:
        yield lanes
    finally:
        lanes.close(PATIENCE_S)


@contextmanager
def held(
    number: int = 1, limits: BatchLimits = LIMITS, encoder: Encoder = ECHO
) -> Iterator[tuple[OneModel, Gated, Answers]]:
    """Lanes that stop at a shut gate with the first batch each takes."""
    answers, gate = Answers(), Gated(encoder)
    try:
        with running(gate, answers, number, limits) as lanes:
            try:
                yield lanes, gate, answers
            finally:
                gate.open()
    finally:
        gate.open()


def check_vectors(job: Job) -> None:
    assert [result.tolist() for result in job.results] == [
        [float(ids[0]), float(len(ids))] for ids in job.ids
    ]


def lane_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]
