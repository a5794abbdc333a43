"""The server's queue in simulated time: its own policy decides which texts are computed together.

`server.inference.batching.Queue` is fed as the lanes feed it; only the clock and the encoder are
simulated. So the model can be compared with the policy itself, without a machine's noise.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from benchmarks.capacity.service import LIMITS, PACKING
from server.inference.batching import Batch, Job, Queue

Seconds = NDArray[np.float64]
# Seconds of a batch by the tokens of its texts, and whether it has the CPU to itself.
BatchTime = Callable[[Sequence[int], bool], float]
FREE, ARRIVAL = range(2)


@dataclass(frozen=True, slots=True)
class Simulated:
    """latency_s: of each text, float64 (N,), in order of arrival. texts: mean batch. busy: share of a lane."""

    latency_s: Seconds
    texts: float
    busy: float


def simulate(
    arrivals: Seconds,
    lengths: Sequence[int],
    batch_time: BatchTime,
    lanes: int,
) -> Simulated:
    """Return what becomes of requests of one text each; arrivals: seconds, ascending, float64 (N,)."""
    queue = Queue(LIMITS, PACKING, lanes)
    latency_s, order = np.zeros(len(arrivals)), count()
    # By time; at one moment lanes become free before texts arrive.
    events: list[tuple[float, int, int, Batch]] = [
        (float(at), ARRIVAL, next(order), []) for at in arrivals
    ]
    idle, batches, busy_s, next_text, now = lanes, 0, 0.0, 0, 0.0
    while events:
        now, kind, _, batch = heapq.heappop(events)
        if kind == ARRIVAL:
            ids = np.zeros(lengths[next_text], dtype=np.int64)
            queue.add(Job([ids], next_text, now), now, 1.0)
            next_text += 1
        else:
            queue.ended(batch, now)
            idle += 1
            for item in batch:
                latency_s[item.job.waiter] = now - item.job.arrived
        while idle and (taken := queue.take(now)):
            alone = idle == lanes and not queue.texts
            seconds = batch_time([len(item.ids) for item in taken], alone)
            idle, batches, busy_s = idle - 1, batches + 1, busy_s + seconds
            heapq.heappush(events, (now + seconds, FREE, next(order), taken))
    return Simulated(latency_s, len(arrivals) / max(batches, 1), busy_s / max(now * lanes, 1e-12))
