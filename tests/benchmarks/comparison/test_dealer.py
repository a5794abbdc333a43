"""Processes behind one port get connections in turn, and end with the first one."""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from benchmarks.comparison.environments import CONTENDERS
from tests.support.fakes import eventually

SERVER = """
import os, sys
sys.path.insert(0, {folder!r})
from dealer import deal, serve

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})

if len(sys.argv) > 2:
    serve(app, int(sys.argv[3]))
else:
    deal([sys.executable, __file__, sys.argv[1]], int(sys.argv[1]))
"""


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_connections_are_dealt_in_turn_and_all_processes_end_together(tmp_path: Path) -> None:
    script = tmp_path / "served.py"
    script.write_text(SERVER.format(folder=str(CONTENDERS)), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def answer() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as reply:
            return int(reply.read())

    def listens() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    first = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        eventually(listens)
        cores = len(os.sched_getaffinity(0))
        found = [answer() for _ in range(2 * cores)]
        assert len(set(found)) == cores and found[:cores] == found[cores:]
    finally:
        first.terminate()
        first.wait()
    eventually(lambda: not any(map(alive, set(found))))
