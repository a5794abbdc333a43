"""Steps of the tests inside a bare system: run commands, serve, send requests, examine the installation.

The system's own python3 runs it, so it imports the standard library only, and of this project only this
folder. `prove` and `boot` state what must hold.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

BUNDLE = Path("/bundle")
PREFIX = Path("/opt/inkwell")
SETTINGS = Path("/etc/inkwell/inkwell.toml")
DATA = Path("/var/lib/inkwell")
UNIT = Path("/etc/systemd/system/inkwell.service")
URL = "http://127.0.0.1:8000"
PATIENCE_S = 60.0
TEXTS = ["人工智能正在改变世界。", "今天天气很好，适合出去郊游。"]


def alone() -> None:
    expect([name for _, name in socket.if_nameindex()] == ["lo"], "there is a network")
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=5)
    except OSError as error:
        show(case="network", none=True, connecting=os.strerror(error.errno or 0))
    else:
        raise SystemExit("a connection left the machine")
    missing = [name for name in ("pip", "ensurepip") if run("python3", "-m", name).returncode]
    show(case="bare", python=sys.version.split()[0], missing=missing)


def run(
    *command: object, cwd: Path | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    environ = dict(os.environ) | variables
    arguments = list(map(str, command))
    return subprocess.run(arguments, cwd=cwd, env=environ, capture_output=True, text=True)


def install() -> None:
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 0, ended.stderr)


def make_key(name: str, file: Path) -> str:
    """Make a key that may embed and search, with the installed command, and return its secret."""
    command = (PREFIX / "current/bin/inkwell", "key", "new", name, "--scopes", "embed,write,search")
    made = run(*command, "--keys", file)
    expect(made.returncode == 0, made.stderr)
    return made.stdout.split()[0]


class Running:
    def __init__(self, pid: int, ready_s: float) -> None:
        self.pid, self.ready_s = pid, ready_s


def serving(
    settings: Path, *, prefix: Path = PREFIX, user: str
) -> contextlib.AbstractContextManager[Running]:
    """Run the unit's command as the unit's user."""
    who = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]
    python = prefix / "current/bin/python"
    return started(
        [*who, str(python), "-P", "-m", "server", "serve", "--config", str(settings)], {}
    )


@contextlib.contextmanager
def started(command: Sequence[str], variables: dict[str, str]) -> Iterator[Running]:
    began = time.monotonic()
    process = subprocess.Popen(command, env=dict(os.environ) | variables)
    try:
        while not is_ready():
            expect(process.poll() is None, "the server ended")
            expect(time.monotonic() < began + PATIENCE_S, "the server does not become ready")
            time.sleep(0.02)
        yield Running(process.pid, round(time.monotonic() - began, 2))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    expect(process.returncode == 0, f"the server ended with {process.returncode}")


def is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"{URL}/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def post(path: str, body: dict[str, Any], key: str = "") -> Any:
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        return json.load(reply)


def ask(key: str = "") -> None:
    """Check that vectors have unit length, and that a document is found by its meaning."""
    vectors = post("/embed", {"texts": TEXTS}, key)["vectors"]
    lengths = [sum(x * x for x in vector) for vector in vectors]
    expect(all(abs(length - 1) < 1e-3 for length in lengths), f"lengths are {lengths}")
    documents = [{"id": name, "text": text} for name, text in zip("ab", TEXTS, strict=True)]
    post("/documents", {"documents": documents}, key)
    expect(found(key) == "a", "search finds another document")


def found(key: str = "") -> str:
    return str(post("/search", {"query": "AI 能做哪些事?", "top_k": 1}, key)["hits"][0]["id"])


def resum(name: str, more: bytes) -> None:
    """Append to a file of the bundle and correct its checksum."""
    path, sums = BUNDLE / name, BUNDLE / "SHA256SUMS"
    path.write_bytes(path.read_bytes() + more)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = sums.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.split("  ")[1].strip() != name]
    sums.write_text("".join([*kept, f"{digest}  {name}\n"]), encoding="utf-8")


def release() -> str:
    return os.readlink(PREFIX / "current")


def releases() -> list[str]:
    return sorted(path.name for path in (PREFIX / "releases").iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def size_mb(folder: Path) -> int:
    return int(run("du", "-sm", folder).stdout.split()[0])


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return round(int(re.findall(r"^VmRSS:\s+(\d+)", status, re.M)[0]) / 1024, 1)


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(otherwise)


def show(**line: Any) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()
