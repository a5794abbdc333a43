"""Runs tasks on the cores of this machine, or of a cluster: Dask's scheduler and its workers.

How this works. Each worker opens the model once, when it starts or is started again, and each of its threads
is a lane: an ONNX Runtime session of one thread, as in the server. On this machine there is one worker, in
this process, that shares the model among all cores, and its scheduler is reached through memory. Status pages
are left out, and the port that Dask opens for them listens on the loopback interface only.

A task has no result but a few counts: what it makes goes into files. So the scheduler may run one twice, as it
does when a worker is lost. Only a few tasks a core are given out at a time, however many there are.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
from distributed import (
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.client import FutureCancelledError
from distributed.comm import inproc

from server.bulk.filling import Fill, Filled, fill
from server.bulk.parts import Space
from server.bulk.scanning import Scan, Scanned, scan
from server.errors import BadSettings, StoreError
from server.inference.manifest import MANIFEST_FILE, parse_manifest
from server.inference.model import Model

TEMPORARY = "temporary-directory"
LOOPBACK = "127.0.0.1:0"
# One runs and one waits for it.
TASKS_A_THREAD = 2
WAIT_S = 60
CONFIG = {
    # Pages of state, and of metrics; the ports stay, with nothing behind them.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # What Dask does by the clock took 2.9% of a core, and takes 0.3% (idle for 15 s, 2026-11-30).
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    # Samples of every thread's stack, a hundred a second.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
}


class Opened(WorkerPlugin):  # type: ignore[misc]
    """The model of a worker, by its fingerprint: jobs of several models may share a cluster.

    It stays for the next job of the same model.
    """

    idempotent = True

    def __init__(self, artifact: Path, fingerprint: str) -> None:
        self._artifact, self._fingerprint = artifact, fingerprint
        self.name = name_of(fingerprint)
        self.model: Any = None

    def setup(self, worker: Any) -> None:
        """Open the model; raises BadSettings where the artifact is another one than the driver's."""
        found = parse_manifest(self._artifact / MANIFEST_FILE).fingerprint
        if found != self._fingerprint:
            raise BadSettings(
                "{artifact} on worker {worker} is another model: its fingerprint is {found}, and {wanted} is"
                " needed",
                artifact=self._artifact,
                worker=str(worker.address),
                found=found,
                wanted=self._fingerprint,
            )
        self.model = Model(self._artifact)


class Workers:
    """A cluster whose workers have opened the model."""

    def __init__(self, client: Any, artifact: Path, space: Space) -> None:
        self._client = client
        self._register(Opened(artifact, space.fingerprint))

    @property
    def threads(self) -> int:
        return sum(self._client.nthreads().values())

    def scan(self, tasks: Iterable[Scan]) -> Iterator[Scanned]:
        """Read units; yield as they end."""
        return self._run(scan, tasks)

    def fill(self, tasks: Iterable[Fill]) -> Iterator[Filled]:
        """Make parts; yield as they end."""
        return self._run(_filled, tasks)

    def _register(self, plugin: Opened) -> None:
        try:
            self._client.register_plugin(plugin)
        except Exception:
            # A worker cannot open it; the next job shall try again.
            self._client.unregister_worker_plugin(plugin.name)
            raise

    def _run(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        waiting, n_running = iter(tasks), 0
        running = as_completed(loop=self._client.loop)

        def give_out() -> int:
            """Fill the room that the threads of now have, but never leave nothing running."""
            room = max(1, TASKS_A_THREAD * self.threads - n_running)
            some = [self._submit(function, task) for task in islice(waiting, room)]
            running.update(some)
            return len(some)

        n_running += give_out()
        for future in running:
            yield self._result(future)
            n_running -= 1
            n_running += give_out()

    def _result(self, future: Any) -> Any:
        try:
            return future.result()
        except KilledWorker as error:
            raise StoreError(
                "a task ended {number} workers one after another; have they enough memory? Their logs tell"
                " more",
                number=error.allowed_failures + 1,
            ) from None
        except (OSError, pa.ArrowException) as error:
            raise StoreError("a file could not be read or written: {why}", why=error) from None
        except FutureCancelledError:
            raise StoreError(
                "the scheduler was lost; start it, and run the same command again to continue"
            ) from None

    def _submit(self, function: Callable[[Any], Any], task: Any) -> Future:
        return self._client.submit(function, task, pure=False)


def name_of(fingerprint: str) -> str:
    """Return the name under which workers hold the model of a fingerprint."""
    return f"inkwell-{fingerprint}"


def _filled(asked: Fill) -> Filled:
    worker = get_worker()
    opened = worker.plugins[name_of(asked.space.fingerprint)]
    if opened.model is None:
        # It failed when the worker joined, where nobody saw the error: it raises again.
        opened.setup(worker)
    return fill(asked, opened.model)


@contextmanager
def workers(
    address: str | None, threads: int, scratch: Path, artifact: Path, space: Space
) -> Iterator[Workers]:
    """Yield the workers of a cluster's scheduler, or `threads` of this machine where address is None."""
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(CONFIG | {TEMPORARY: str(scratch)}))
        _silence()
        if address is None:
            cluster: Any = stack.enter_context(_local(threads))
        else:
            cluster = address
        try:
            client = stack.enter_context(Client(cluster, timeout=WAIT_S, set_as_default=False))
            client.wait_for_workers(1, timeout=WAIT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise BadSettings(
                "no workers at {address}: {why}", address=address, why=error or "timeout"
            ) from None
        yield Workers(client, artifact, space)


def _silence() -> None:
    """Turn off Dask's log, of workers that come and go; what matters is raised."""
    for name in logging.root.manager.loggerDict:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _local(threads: int) -> Any:
    # An address in memory has the machine's own in it for no use; Dask would find that out with a socket that
    # is bound towards 8.8.8.8, though it sends nothing.
    inproc.global_manager._ip = "127.0.0.1"
    return LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        processes=False,
        protocol="inproc://",
        dashboard_address=LOOPBACK,
        worker_dashboard_address=LOOPBACK,
        memory_limit=0,
    )
