"""Encoders that tests can count, stop and break, and models that run them."""

import copy
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from server.inference.batching import BatchLimits, Job
from server.inference.lanes import Deliver, Lanes
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from server.types import Encoder, Ids, Packing, Vectors

# Seconds after which a test that waits for something has failed.
PATIENCE_S = 30.0
# Of encoders that take texts of any length together.
PACKING = Packing(groups=4, longest=512)


class Echo:
    """Gives vectors that show whose they are: (first token id, number of tokens)."""

    packing = PACKING

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        return np.array([(ids[0], len(ids)) for ids in texts], dtype=np.float32)


class Gated:
    """Another encoder behind a gate that is shut until `open` is called.

    entered: set as soon as a batch stands at the gate. texts: how many have passed it.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.entered = threading.Event()
        self.texts = 0
        self.packing = encoder.packing
        self._encoder = encoder
        self._gate = threading.Event()

    def open(self) -> None:
        self._gate.set()

    def encode(self, texts: Sequence[Ids]) -> Collection[Any]:
        self.entered.set()
        if not self._gate.wait(PATIENCE_S):
            raise TimeoutError("the gate was not opened")
        self.texts += len(texts)
        return self._encoder.encode(texts)


class Broken:
    """Raises at every batch."""

    packing = PACKING

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        raise ArithmeticError(f"broken on {len(texts)} texts")


def with_parts(model: Model, **parts: Any) -> Model:
    """A copy of an opened model with another encoder, manifest or tokenizer."""
    changed = copy.copy(model)
    for name, part in parts.items():
        assert hasattr(model, name)
        setattr(changed, name, part)
    return changed


def eventually(holds: Callable[[], object]) -> None:
    """Poll until the condition holds, where there is no event to wait for."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.001)


class OneModel(Lanes):
    """Lanes with a single tenant."""

    def __init__(
        self,
        encoder: Encoder,
        limits: BatchLimits,
        metrics: Metrics,
        deliver: Deliver,
        count: int,
        wide: Encoder | None = None,
    ) -> None:
        super().__init__(metrics, deliver, count)
        self._only = self.admit(encoder, limits, wide)

    def put(self, job: Job) -> None:
        self.submit(self._only, job)
        self.wake()

    def leave(self, job: Job) -> None:
        self.abandon(self._only, job)
