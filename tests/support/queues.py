"""Queues filled with jobs of given lengths."""

import numpy as np

from server.errors import InferenceFailed
from server.inference.batching import (
    Batch,
    BatchLimits,
    Job,
    Queue,
)
from server.types import Packing

LIMITS = BatchLimits(
    batch_tokens=64,
    interactive_tokens=100,
    interactive_queue_tokens=1000,
    bulk_queue_tokens=5000,
    bulk_patience_s=1.0,
)
RATE = 1000.0
SEVERAL = Packing(8, 512)


def job(*lengths: int, arrived: float = 0.0) -> Job:
    ids = [np.zeros(length, dtype=np.int64) for length in lengths]
    return Job(ids, None, arrived)


def bulk(length: int, arrived: float = 0.0, number: int = 60) -> Job:
    made = job(*[length] * number, arrived=arrived)
    assert made.tokens > LIMITS.interactive_tokens
    return made


def queue_of(*jobs: Job, groups: int = 1, longest: int = 512) -> Queue:
    queue = Queue(LIMITS, Packing(groups, longest))
    for one in jobs:
        queue.add(one, one.arrived, RATE)
    return queue


def lengths(batch: Batch) -> list[int]:
    return [len(item.ids) for item in batch]


def owners(batch: Batch) -> list[Job]:
    return [item.job for item in batch]


def take_all(queue: Queue, now: float = 0.0) -> list[Batch]:
    batches = []
    while batch := queue.take(now):
        batches.append(batch)
    return batches


def abandon(one: Job) -> None:
    one.abandoned = True


def fail(one: Job) -> None:
    one.error = InferenceFailed("a batch of it raised")
