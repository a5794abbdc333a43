"""The process that reads files, as its parent sees it: started, asked, waited for, ended.

One process reads many files, one after the other. It is ended after a file that was not read to its
end, for whatever reason, and the next file gets a new one. Bytes go through pipes: the process opens no
file itself, so it needs no right to.
"""

import atexit
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from server.clock import now
from server.sources.isolated.frames import (
    LENGTH,
    MOST_BYTES,
    Answer,
    Done,
    Failed,
    Request,
    answer_of,
    framed,
)
from server.sources.isolated.limits import MB, Limits
from server.sources.office.section import Unreadable

WORKER = Path(__file__).with_name("worker.py")
# The folder that holds the package `server`.
ROOT = Path(__file__).parents[3]
PIECE = 1 << 16
# Seconds for the start: imports from a slow disk.
STARTING_S = 60.0
# Files that one process reads at most, so that memory its libraries lose does not add up.
MOST_FILES = 2_000
# Beginnings of names of variables that the process gets.
KEPT = ("LANG", "LC_", "LD_", "PYTHON", "TZ")
TIME_SIGNALS = {signal.SIGXCPU}

# Processes that wait for the next file. A list is safe here: each use of it is one step.
_idle: list["ReaderProcess"] = []


class _Ended(Exception):
    """Raised where the process has closed its pipe."""


def command(limits: Limits) -> list[str]:
    """Return the command that starts the process with this one's import path.

    -P: no module is imported from the working directory or from beside the worker's file.
    """
    paths = [path for path in sys.path if os.path.isabs(path)]
    if str(ROOT) not in paths:
        paths.insert(0, str(ROOT))
    return [sys.executable, "-P", str(WORKER), str(limits.memory_bytes), *paths]


def environment() -> dict[str, str]:
    """Return the variables that Python and its libraries may need to start, without any that may be secret."""
    return {name: value for name, value in os.environ.items() if name.startswith(KEPT)}


class ReaderProcess:
    """One process, which reads one file at a time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.n_files = 0
        # A session of its own: Ctrl-C is for the command, which then ends this process.
        self._process = subprocess.Popen(
            command(limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._waited_s = 0.0
        self._held = bytearray()

    def answers(self, request: Request, data: bytes) -> Iterator[Answer]:
        """Yield what the process answers, up to the last answer; raises Unreadable or _Ended.

        _Ended: the process had ended before it took the file, so another one may be asked.
        """
        self.n_files += 1
        self._waited_s, n_bytes = 0.0, 0
        limit_s = self.limits.wait_s + STARTING_S
        try:
            self._write(framed(request), limit_s)
            self._write(data, limit_s)
            self._next(limit_s)
        except BrokenPipeError:
            raise _Ended from None
        self._waited_s = 0.0
        while True:
            try:
                answer, size = self._next(self.limits.wait_s)
            except _Ended:
                raise self._failure() from None
            n_bytes += size
            if n_bytes > self.limits.text_bytes:
                raise Unreadable(
                    "it has more than {most:,} MB of text; split it",
                    most=self.limits.text_bytes // MB,
                )
            yield answer
            if isinstance(answer, Done | Failed):
                return

    def kill(self) -> None:
        """End the process without waiting for that; safe to call from another thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process and close the pipes to it."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _next(self, limit_s: float) -> tuple[Answer, int]:
        """Return the next answer and its bytes."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size, limit_s))
        if length > MOST_BYTES:
            raise Unreadable("the process that read it sent what cannot be understood")
        data = self._read(length, limit_s)
        try:
            return answer_of(data), length
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unreadable("the process that read it sent what cannot be understood") from None

    def _read(self, size: int, limit_s: float) -> bytes:
        held = self._held
        while len(held) < size:
            self._wait(self._out, select.POLLIN, limit_s)
            try:
                data = os.read(self._out, max(PIECE, size - len(held)))
            except BlockingIOError:
                continue
            if not data:
                raise _Ended
            held += data
        found = bytes(held[:size])
        del held[:size]
        return found

    def _write(self, data: bytes, limit_s: float) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._in, select.POLLOUT, limit_s)
            try:
                rest = rest[os.write(self._in, rest[: 16 * PIECE]) :]
            except BlockingIOError:
                continue

    def _wait(self, descriptor: int, event: int, limit_s: float) -> None:
        """Wait for the process; only this time counts, not that of who uses what it reads."""
        poll = select.poll()
        poll.register(descriptor, event)
        began = now()
        found = poll.poll(max(0.0, limit_s - self._waited_s) * 1000)
        self._waited_s += now() - began
        if not found:
            raise self._too_slow()

    def _too_slow(self) -> Unreadable:
        return Unreadable(
            "it was not read within {limit:g} s; save it again with another program, or split it",
            limit=self.limits.wait_s,
        )

    def _failure(self) -> Unreadable:
        """Return why the process ended while it read the file."""
        status = self._process.wait()
        if -status in TIME_SIGNALS:
            return self._too_slow()
        reason = signal.Signals(-status).name if status < 0 else str(status)
        return Unreadable(
            "reading it ended the process that read it ({reason}): it is damaged, or needs more than "
            "{most:,} MB of memory",
            reason=reason,
            most=self.limits.memory_bytes // MB,
        )


def answers(
    request: Request,
    data: bytes,
    limits: Limits,
    started: Callable[[ReaderProcess], None] | None = None,
) -> Iterator[Answer]:
    """Yield the answers of a process that waits, or of a new one; raises Unreadable.

    The process is ended if this generator is closed before its last answer. started: called with it.
    """
    process = _waiting(limits)
    while True:
        if started is not None:
            started(process)
        is_new, whole = process.n_files == 0, False
        try:
            for answer in process.answers(request, data):
                whole = isinstance(answer, Done | Failed)
                yield answer
            return
        except _Ended:
            if is_new:
                raise Unreadable("the process that reads files cannot be started") from None
        finally:
            if whole and process.n_files < MOST_FILES:
                _idle.append(process)
            else:
                process.close()
        process = ReaderProcess(limits)


def _waiting(limits: Limits) -> ReaderProcess:
    while _idle:
        process = _idle.pop()
        if process.limits == limits:
            return process
        process.close()
    return ReaderProcess(limits)


@atexit.register
def close_all() -> None:
    """End the processes that wait."""
    while _idle:
        _idle.pop().close()
