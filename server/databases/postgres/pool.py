"""Sessions that calls share: at most so many at once, kept open between calls, and replaced where they broke.

How this works. A call takes an open session or opens one, runs in a transaction and gives the session back. Every
call may run twice (`databases.database`). So one that fails because a session, open since an earlier call, had died
meanwhile runs again on a new one; after a restart of the server nobody notices. A call that broke a new session, or
that waited for its time-out, does not run again: DatabaseAway says so, and the caller decides.
"""

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from server import clock
from server.databases.postgres.encryption import Tls
from server.databases.postgres.login import Login
from server.databases.postgres.session import Conflict, Lost, Session
from server.errors import DatabaseBusy

Result = TypeVar("Result")

# Runs of a call whose transaction another one undoes.
ATTEMPTS = 5
# A session that nobody used for so long is closed and not used again: firewalls forget quiet connections and
# tell neither end.
QUIET_S = 60.0
RETRY_AFTER_S = 1


class Pool:
    """Sessions of one login, for any thread."""

    def __init__(self, login: Login, tls: Tls) -> None:
        self._login = login
        self._tls = tls
        self._free = threading.BoundedSemaphore(login.sessions)
        self._lock = threading.Lock()
        self._idle: list[Session] = []  # the last one was used last
        self._is_closed = False

    def read(
        self, work: Callable[[Session], Result], settings: Mapping[str, str] | None = None
    ) -> Result:
        """Return what `work` returns, in a transaction that reads one state; raises DatabaseAway, -Busy or -Refused."""
        return self._run(work, False, settings or {})

    def write(
        self, work: Callable[[Session], Result], settings: Mapping[str, str] | None = None
    ) -> Result:
        """Return what `work` returns once it is committed; it may run, and be committed, several times."""
        return self._run(work, True, settings or {})

    def close(self) -> None:
        """Close the sessions; those of calls that still run, when these end."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def _run(
        self, work: Callable[[Session], Result], writes: bool, settings: Mapping[str, str]
    ) -> Result:
        if not self._free.acquire(timeout=self._login.timeout_s):
            raise DatabaseBusy(
                f"{self._login.place}: all {self._login.sessions} sessions are busy; give the address more with"
                " ?sessions=, as far as the server's max_connections allows",
                retry_after_s=RETRY_AFTER_S,
            )
        try:
            return self._attempts(work, writes, settings)
        finally:
            self._free.release()

    def _attempts(
        self, work: Callable[[Session], Result], writes: bool, settings: Mapping[str, str]
    ) -> Result:
        said = ""
        for _ in range(ATTEMPTS):
            session, is_new = self._taken()
            try:
                with session.transaction(writes=writes, settings=settings):
                    result = work(session)
            except Conflict as conflict:
                said = str(conflict)
            except Lost as lost:
                if is_new or lost.late:
                    raise lost.away from None
                # The others were opened no later, and most likely died of the same.
                self._drop_idle()
                said = lost.away.message
            else:
                return result
            finally:
                self._give_back(session)
        raise DatabaseBusy(f"{said}; tried {ATTEMPTS} times in a row", retry_after_s=RETRY_AFTER_S)

    def _taken(self) -> tuple[Session, bool]:
        """Return a session, and whether it is new."""
        oldest_s = clock.now() - QUIET_S
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is not None and session.used_s >= oldest_s:
            return session, False
        if session is not None:
            # What is below it in the stack is older still.
            session.close()
            self._drop_idle()
        try:
            return Session(self._login, self._tls), True
        except Lost as lost:
            raise lost.away from None

    def _give_back(self, session: Session) -> None:
        session.used_s = clock.now()
        with self._lock:
            is_kept = not (session.is_broken or self._is_closed)
            if is_kept:
                self._idle.append(session)
        if not is_kept:
            session.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
