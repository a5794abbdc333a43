"""nginx and HAProxy in front of nodes on this machine, with the examples of deploy/nodes.

Only what belongs to a machine is replaced in an example: addresses, certificates, and paths of files.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).parents[1] / "deploy" / "nodes"
# Where Debian has the programs.
PATH = "/usr/sbin:/usr/bin"
# Seconds until a proxy listens, and until it has ended.
PATIENCE_S = 30.0


class NoProxy(Exception):
    """Raised where a proxy is not installed or does not start."""


class Front(NamedTuple):
    """A proxy that listens on `port`."""

    port: int
    pid: int


# Runs a proxy in front of these ports, with its files in the folder, until the block ends. certificate: its path
# without the suffix, with .crt and .key beside each other; without one the proxy speaks plain HTTP.
Proxy = Callable[[Sequence[int], Path, str], AbstractContextManager[Front]]


@contextlib.contextmanager
def nginx(nodes: Sequence[int], folder: Path, certificate: str = "") -> Iterator[Front]:
    """One process of nginx."""
    port = free_port()
    example = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8")
    example = _with_nodes(example, nodes)
    tls = " ssl" if certificate else ""
    example = _replaced(example, r"listen 443 ssl;", f"listen 127.0.0.1:{port}{tls};")
    example = _replaced(example, r"/var/log/nginx/inkwell.log", str(folder / "access.log"))
    example = _replaced(example, r"/run/inkwell-", f"{folder}/memory-")
    example = _replaced(example, r"/etc/nginx/inkwell\.d/", f"{folder}/inkwell.d/")
    example = (
        _replaced(example, r"/etc/nginx/inkwell(?=\.crt|\.key)", certificate)
        if certificate
        else _replaced(example, r"(?m)^ *ssl_.*\n", "")
    )
    with nginx_with(example, folder, port) as pid:
        yield Front(port, pid)


@contextlib.contextmanager
def nginx_with(text: str, folder: Path, port: int) -> Iterator[int]:
    """One process of nginx with these lines of `http`, which listen on the port; yields its id."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\nerror_log {folder / 'error.log'};\n"
        f"events {{ worker_connections 4096; }}\nhttp {{\n{temporary}{text}}}\n",
        encoding="utf-8",
    )
    arguments = ["-p", str(folder), "-c", str(path), "-e", str(folder / "error.log")]
    with _running(_program("nginx"), arguments, port, folder / "error.log") as pid:
        yield pid


@contextlib.contextmanager
def haproxy(nodes: Sequence[int], folder: Path, certificate: str = "") -> Iterator[Front]:
    """One process of HAProxy, with one thread."""
    port, log = free_port(), folder / "haproxy.log"
    example = (EXAMPLES / "haproxy.cfg").read_text(encoding="utf-8")
    example = _with_nodes(example, nodes)
    tls = ""
    if certificate:
        pair = folder / "pair.pem"
        pair.write_text(
            Path(f"{certificate}.crt").read_text() + Path(f"{certificate}.key").read_text()
        )
        tls = f" ssl crt {pair}"
    example = _replaced(example, r"bind :443 ssl crt \S+", f"bind 127.0.0.1:{port}{tls}")
    # One thread, as nginx has one process. It stays this user.
    example = _replaced(example, r"(?m)^ +user .*\n +group .*\n", "    nbthread 1\n")
    example = _replaced(example, r"log /dev/log local0", "log stdout format raw local0")
    path = folder / "haproxy.cfg"
    path.write_text(example, encoding="utf-8")
    with _running(_program("haproxy"), ["-db", "-f", str(path)], port, log) as pid:
        yield Front(port, pid)


def free_port() -> int:
    """Return a port that no process listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _with_nodes(example: str, nodes: Sequence[int]) -> str:
    """Return the example with these nodes in place of its own, each with what is said of the first."""
    lines = re.findall(r"(?m)^ +server .*10\.0\.0\.\d+:8000.*\n", example)
    written = "".join(
        re.sub(r"10\.0\.0\.\d+:8000", f"127.0.0.1:{port}", lines[0]).replace(
            "node1", f"node{number}"
        )
        for number, port in enumerate(nodes, 1)
    )
    return example.replace("".join(lines), written)


def _replaced(text: str, pattern: str, instead: str) -> str:
    """Replace a pattern that must be there: an example that has changed is noticed."""
    found, number = re.subn(pattern, lambda _: instead, text)
    if not number:
        raise NoProxy(f"the example has no {pattern!r}; change benchmarks/proxies.py with it")
    return found


def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        raise NoProxy(f"{name} is not installed: apt-get install {name}")
    return found


@contextlib.contextmanager
def _running(program: str, arguments: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """Run a proxy; yields its process id."""
    with log.open("ab") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
    try:
        end = time.monotonic() + PATIENCE_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise NoProxy(f"{program} does not listen: {log.read_text()[-2000:]}")
            time.sleep(0.01)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
