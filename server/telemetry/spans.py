"""The steps of the current request, with their times.

The modules that do the work note them, and tracing makes a span of each. They travel in the context that the
tasks of a request share. Without tracing nothing is kept.
"""

from contextvars import ContextVar
from typing import NamedTuple

# A request that stores documents may have thousands of steps. The first ones show enough.
MAX_STEPS = 64


class Step(NamedTuple):
    """One step of a request. began, ended: seconds by `clock.now`."""

    name: str
    began: float
    ended: float


# None where the request is not traced.
CURRENT: ContextVar[list[Step] | None] = ContextVar("steps", default=None)


def note(name: str, began: float, ended: float) -> None:
    """Add a step to the current request."""
    steps = CURRENT.get()
    if steps is not None and len(steps) < MAX_STEPS:
        steps.append(Step(name, began, ended))
