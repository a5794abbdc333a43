"""A file of one JSON line a request, written beside the event loop and never in a request's way.

What a line says is decided in `api/access`. Lines wait in memory for a moment and are then written
together; where the disk cannot keep up, lines are lost and counted, and requests go on.
"""

import asyncio
import errno
import logging
import os
from pathlib import Path

from server.errors import BadSettings
from server.telemetry.metrics import Metrics

# How long a line waits for company: a busy server hands twenty batches a second to a thread, which costs
# 0.1 ms each, and whoever kills it loses no more than this.
GATHER_S = 0.05
# Some 16,000 lines without bodies: ten seconds and more of a busy server whose disk stands still.
MAX_WAITING_BYTES = 4 * 1024 * 1024
STANDARD_OUTPUT = Path("-")

log = logging.getLogger(__name__)


def check(path: Path) -> None:
    """Raise BadSettings where the file could not be opened; makes none."""
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


class Audit:
    """One file, appended to; "-" is standard output. Lives on an event loop; `close` it."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Raises BadSettings where it cannot be opened."""
        self._path = path
        self._metrics = metrics
        self._lines: list[bytes] = []
        # Bytes of the lines that are not on the disk: those that wait, and those being written.
        self._size = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._failing = False
        # Whether the file ends within a line, after a disk took a part of one.
        self._torn = False
        self._file = self._open()

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return os.dup(1)
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refusal(self._path, error.errno) from None

    def write(self, line: bytes) -> None:
        """Take a line without its end: one of any size if none waits, else if there is room."""
        if self._size and self._size + len(line) > MAX_WAITING_BYTES:
            self._lost(1, "the disk does not keep up")
            return
        self._lines.append(line)
        self._size += len(line)
        if self._gathering is None and self._writing is None:
            self._gather()

    def reopen(self) -> None:
        """Go on in a new file of the same name, once the old one has been moved away."""
        try:
            fresh = self._open()
        except BadSettings as error:
            log.error("%s", error.english)
            return
        # subtle: a thread may be writing to this number now; the number stays and gets another file.
        os.dup2(fresh, self._file)
        os.close(fresh)

    async def close(self) -> None:
        """Write what waits; the last call."""
        while self._lines or self._writing is not None:
            if self._writing is None:
                self._start()
            if self._writing is not None:
                await asyncio.wait([self._writing])
        self._ungather()
        os.close(self._file)

    def _start(self) -> None:
        self._ungather()
        self._writing = asyncio.ensure_future(self._write_waiting())

    def _gather(self) -> None:
        self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._start)

    def _ungather(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = None

    async def _write_waiting(self) -> None:
        try:
            lines, self._lines = self._lines, []
            size = self._size
            await asyncio.to_thread(self._append, lines)
            self._size -= size
        finally:
            self._writing = None
        if self._lines:
            self._gather()

    def _append(self, lines: list[bytes]) -> None:
        """In a thread, one at a time."""
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
                log.warning("the audit is written again 审计日志恢复写入")

    def _lost(self, lines: int, why: str) -> None:
        self._metrics.audit_lost.inc(lines)
        if not self._failing:
            self._failing = True
            log.error(
                "audit lines are lost: %s; inkwell_audit_lost_lines_total counts them"
                " 审计日志无法写入，丢失的行数见该指标",
                why,
            )
