"""What the threads of the lanes share is touched by one of them at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.inference.batching import Queue
from server.inference.lanes import Lanes, RunningBatch
from server.inference.tenant import Tenant
from tests.support.fakes import PATIENCE_S, Echo, eventually
from tests.support.lane_jobs import LIMITS, POISON, Poisoned, held, lone


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return what is done to a queue, or to the lanes' own lists, while no thread has the lanes' lock."""
    seen: list[str] = []
    begin = Lanes.__init__

    def watch(owner: Any, kind: type, lanes: Lanes, *names: str) -> None:
        for name in names:
            monkeypatch.setattr(owner, name, watched(getattr(kind, name), name, lanes))

    def watched(call: Callable[..., Any], name: str, lanes: Lanes) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            if not lanes._lock.locked():
                seen.append(name)
            return call(*arguments)

        return checked

    class Tenants(list[Tenant]):
        pass

    class Running(set[RunningBatch]):
        pass

    def begun(self: Lanes, *arguments: Any) -> None:
        begin(self, *arguments)
        self._tenants, self._running = Tenants(), Running()
        watch(Tenants, list, self, "append", "remove", "__contains__")
        watch(Running, set, self, "add", "discard", "__iter__")
        watch(Queue, Queue, self, "add", "check_room", "lost_interest", "drop_unwanted", "drain")
        watch(Queue, Queue, self, "take", "take_interactive", "began", "ended")

    monkeypatch.setattr(Lanes, "__init__", begun)
    yield seen


def test_nothing_that_threads_share_is_touched_without_the_lock(unlocked: list[str]) -> None:
    # One lane stands at the gate and the express lane sleeps, so no other thread holds the lock by chance.
    with held(encoder=Poisoned()) as (lanes, gate, answers):
        first, gone, doomed, waiting = lone(), lone(2), lone(POISON), lone(3)
        lanes.put(first)
        assert gate.entered.wait(PATIENCE_S)
        lanes.put(gone)
        lanes.leave(gone)
        lanes.check_room(lanes._only, 1, 10)
        other = lanes.admit(Echo(), LIMITS)
        lanes.dismiss(other)
        assert lanes.sound
        lanes.relieve(0.0)
        lanes.put(doomed)
        gate.open()
        answers.wait_for([first, doomed])
        eventually(lambda: lanes.idle and lanes._idle == 1)
        lanes.put(waiting)
        answers.wait_for([waiting])
        eventually(lambda: lanes.idle and lanes._idle == 1)
        assert lanes.run_here(lanes._only, lone(4), 60.0)
        lanes.close(PATIENCE_S)
    assert unlocked == []
