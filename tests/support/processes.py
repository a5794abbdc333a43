"""The real server in a process of its own, on a port that the kernel chose."""

import contextlib
import os
import re
import resource
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.fakes import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
RUNNING = re.compile(r"running on (https?)://(\S+):(\d+) ")

# Who only asks whether a server answers takes any certificate.
TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE


@dataclass
class Server:
    """A server that answers; log: what it has written to standard error."""

    process: "subprocess.Popen[bytes]"
    host: str
    port: int
    log: Path
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def client(self) -> httpx.Client:
        """It takes any certificate."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False, verify=TRUSTING)

    def metric(self, name: str, **labels: str) -> float:
        """One number of /metrics, asked for over a connection of its own."""
        with self.client() as client:
            page = client.get("/metrics").text
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        line = re.escape(f"inkwell_{name}{{{wanted}}}" if labels else f"inkwell_{name}")
        found = re.search(rf"^{line} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a reply, which must be none of an error; over a connection of its own."""
        with self.client() as client:
            response = client.request(method, path, json=body)
        assert response.status_code < 300, response.text
        return response.json()

    def kill(self) -> None:
        """End all of its processes at once, as kill -9 does, and wait for that."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        """The exit status, once it has ended by itself."""
        return self.process.wait(PATIENCE_S)


def environment(**variables: str) -> Mapping[str, str]:
    """This process's, in English and without settings of the server, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INKWELL_")}
    fixed = {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error"}
    return {**kept, **fixed, **variables}


def command(*arguments: str | Path, python: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "server", *map(str, arguments)]


@contextlib.contextmanager
def without_descriptors(server: Server) -> Iterator[None]:
    """Meanwhile its first process can open nothing; what is open stays so."""
    pid = server.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def serving(
    model: Path | None,
    folder: Path,
    *flags: str,
    prefix: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    python: Sequence[str] = (),
    cwd: Path = ROOT,
) -> Iterator[Server]:
    """Start a server that keeps its files under `folder`, and end it whatever happens.

    model: None where a file of settings among the flags names it. python: flags of the interpreter.
    """
    log = folder / "server.log"
    named = () if model is None else ("--model", model)
    usual = {"--port": "0", "--data": folder / "data", "--lanes": "1"}
    # A flag of one value may be given once.
    others = (part for name, value in usual.items() if name not in flags for part in (name, value))
    stated = ("serve", *named, *others, *flags)
    arguments = command(*stated, python=python)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, *arguments],
            cwd=cwd,
            env=environ or environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        eventually(lambda: RUNNING.search(log.read_text()) or process.poll() is not None)
        found = RUNNING.search(log.read_text())
        assert found, log.read_text()
        yield Server(process, found[2], int(found[3]), log, found[1])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
