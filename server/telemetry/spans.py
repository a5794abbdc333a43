"""The steps of one request and when they were: engines and shelves note them, whoever traces reads them.

They travel in the context that a request's tasks share, as `usage` does; where nobody traces, nothing is
kept.
"""

from contextvars import ContextVar
from typing import NamedTuple

# A request to store documents may have thousands; the first ones tell enough.
MAX_STEPS = 64


class Step(NamedTuple):
    """began, ended: seconds by `metrics.now`."""

    name: str
    began: float
    ended: float


CURRENT: ContextVar[list[Step] | None] = ContextVar("trace", default=None)


def note(name: str, began: float, ended: float) -> None:
    steps = CURRENT.get()
    if steps is not None and len(steps) < MAX_STEPS:
        steps.append(Step(name, began, ended))
