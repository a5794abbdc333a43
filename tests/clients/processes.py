"""The real server in a process of its own, and plain requests to it."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "bge-small-zh-v1.5" / "onnx-int8"
RUNNING = re.compile(r"running on (http://\S+:\d+) ")
START_S = 60.0


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[str]:
    """The address of a server with the shipped model, which ends with the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INKWELL_")}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        arguments = ["serve", "--port", "0", "--model", str(MODEL), "--data", f"{folder}/data"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [ROOT / ".venv" / "bin" / "python", "-m", "server", *arguments, *flags],
                cwd=ROOT,
                env={**kept, "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield _address(process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write_scorer(folder: Path) -> None:
    """Write the toy model of scores; its score of a pair follows from the mean of its token ids."""
    code = "import pathlib, sys; from tests.support.scorers import write_toy_scorer as write"
    code += "; write(pathlib.Path(sys.argv[1]))"
    python = ROOT / ".venv" / "bin" / "python"
    subprocess.run([python, "-B", "-c", code, folder], cwd=ROOT, check=True, timeout=START_S)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    until = time.monotonic() + START_S
    while not (found := RUNNING.search(log.read_text())):
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    return found[1]


def post(
    url: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of the reply."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=START_S)
    try:
        connection.request(
            "POST", path, body, {"content-type": "application/json", **(headers or {})}
        )
        reply = connection.getresponse()
        return reply.status, reply.getheaders(), reply.read()
    finally:
        connection.close()


def embedded(url: str, texts: Sequence[str], input_type: str = "document") -> Any:
    """Vectors in the server's own form, which all others must equal."""
    body = json.dumps({"texts": texts, "input_type": input_type}).encode()
    status, _, reply = post(url, "/embed", body)
    assert status == 200, reply
    return json.loads(reply)["vectors"]
