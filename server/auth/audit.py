"""The audit: a file with one JSON line for each request, written beside the event loop.

`gate` makes the lines. They wait in memory for a moment and are then written together. Where the disk
cannot keep up, lines are lost and counted, and requests go on.
"""

import asyncio
import errno
import logging
import os
from pathlib import Path

from server.errors import BadSettings
from server.telemetry.metrics import Metrics

# Seconds that a line waits for more lines: a busy server gives twenty batches a second to a thread, at 0.1 ms
# each. If the process is killed, no more than these lines are lost.
GATHER_S = 0.05
# Some 16,000 lines without bodies: at least ten seconds of a busy server whose disk does not answer.
MAX_WAITING_BYTES = 4 * 1024 * 1024
STANDARD_OUTPUT = Path("-")

log = logging.getLogger(__name__)


def check(path: Path) -> None:
    """Raise BadSettings where the file could not be opened; make no file."""
    if path == STANDARD_OUTPUT:
        return
    place = os.path.realpath(path)
    folder = os.path.dirname(place)
    needed, asked = (place, os.W_OK) if os.path.exists(place) else (folder, os.W_OK | os.X_OK)
    if os.path.isdir(place):
        raise _refusal(path, errno.EISDIR)
    if not os.path.isdir(folder):
        raise _refusal(path, errno.ENOENT)
    if not os.access(needed, asked, effective_ids=True):
        raise _refusal(path, errno.EACCES)


def _refusal(path: Path, number: int | None) -> BadSettings:
    why = os.strerror(number or 0)
    return BadSettings("audit file {path} cannot be opened: {why}", path=path, why=why)


def _ends_within_a_line(path: Path) -> bool:
    """Return whether a power cut has left half a line at the end of a file."""
    # subtle: a pipe is not read, for its lines belong to another reader.
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        # It is empty, or this user may not read it.
        return False


class Audit:
    """An open audit file, or standard output for "-". It belongs to an event loop; `close` it."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Open the file; raise BadSettings where that fails."""
        self._path = path
        self._metrics = metrics
        self._lines: list[bytes] = []
        # Bytes of the lines that are not on the disk: waiting, or being written.
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._failing = False
        # Whether the file ends within a line: the disk took only a part of it, or the machine stopped.
        self._torn = _ends_within_a_line(path)
        self._file = self._open()

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return os.dup(1)
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refusal(self._path, error.errno) from None

    def write(self, line: bytes) -> None:
        """Queue a line without its end; if there is no room, count it as lost. The first always has room."""
        if self._size and self._size + len(line) > MAX_WAITING_BYTES:
            self._lost(1, "the disk does not keep up")
            return
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None and self._writing is None:
            self._start_timer()

    def reopen(self) -> None:
        """Continue in a new file of the same name; called after the old one was renamed."""
        try:
            fresh = self._open()
        except BadSettings as error:
            log.error("%s", error.english)
            return
        # subtle: a thread may be writing to this descriptor now, so it keeps its number and gets another file.
        os.dup2(fresh, self._file)
        os.close(fresh)

    async def close(self) -> None:
        """Write the waiting lines and close the file."""
        while self._lines or self._writing is not None:
            if self._writing is None:
                self._start()
            if self._writing is not None:
                await asyncio.wait([self._writing])
        self._stop_timer()
        os.close(self._file)

    def _start(self) -> None:
        self._stop_timer()
        self._writing = asyncio.ensure_future(self._write_waiting())

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._start)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    async def _write_waiting(self) -> None:
        try:
            lines, self._lines = self._lines, []
            size = self._size
            await asyncio.to_thread(self._append, lines)
            self._size -= size
        finally:
            self._writing = None
        if self._lines:
            self._start_timer()

    def _append(self, lines: list[bytes]) -> None:
        """Write the lines; runs in a thread, one at a time."""
        start = b"\n" if self._torn else b""
        content = start + b"\n".join(lines) + b"\n"
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            written = len(content) - len(rest)
            if written:
                self._torn = not content[:written].endswith(b"\n")
            missing = content.count(b"\n", max(written, len(start)))
            self._lost(missing, os.strerror(error.errno or 0))
        else:
            self._torn = False
            if self._failing:
                self._failing = False
                log.warning("the audit is written again")

    def _lost(self, lines: int, why: str) -> None:
        self._metrics.audit_lost.inc(lines)
        if not self._failing:
            self._failing = True
            log.error("audit lines are lost: %s; inkwell_audit_lost_lines_total counts them", why)
