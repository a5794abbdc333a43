"""Types the commands of both READMEs into a fresh clone, one after another; status 1 if one fails.

python -m tests.first_hour                  # both languages; a few minutes, and downloads packages
python -m tests.first_hour --language zh
python -m tests.first_hour --all            # the commands that are left out, too

`make serve` runs in the background from where it stands to the end, on a free port instead of 8000. Prompts
get an end of input. curl fails where the server refuses. Prints a JSON line for each command.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
READMES = {"en": "README.md", "zh": "README.zh-CN.md"}
LOCALES = {"en": "C.UTF-8", "zh": "zh_CN.UTF-8"}
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
HERE = re.compile(r"<<-?'?(\w+)'?")
PORT = "8000"
PATIENCE_S = 1200.0
# Beginnings of commands that are left out without --all, each with the reason.
LEFT_OUT = {
    "make test": "takes minutes, and CI runs it",
    "make export": "downloads a model from a public hub",
    "make install-any": "installs gigabytes",
    "python -m export": "asks a public hub",
    "make serve MODEL": "needs the model of an export before",
    "docker": "needs a container engine",
}


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a page's blocks: lines, with what continues them."""
    for block in BLOCK.findall(text):
        lines = iter(block.splitlines())
        for line in lines:
            parts, end = [line], HERE.search(line)
            while parts[-1].endswith("\\"):
                parts.append(next(lines))
            while end and parts[-1] != end[1]:
                parts.append(next(lines))
            if line.strip() and not line.lstrip().startswith("#"):
                yield "\n".join(parts)


@dataclass
class Hour:
    """One clone in which commands are typed."""

    clone: Path
    language: str
    port: int
    everything: bool
    servers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    failed: int = 0

    def type(self, command: str) -> None:
        """Run one command as a shell does, and print how it ended."""
        reason = next((why for start, why in LEFT_OUT.items() if command.startswith(start)), "")
        if reason and not self.everything:
            self.show(command, left_out=reason)
            return
        began = time.monotonic()
        text = command.replace(PORT, str(self.port))
        serves = text.startswith("make serve")
        status, printed = self.serve(text) if serves else self.run(text)
        self.failed += status != 0
        seconds = round(time.monotonic() - began, 1)
        self.show(
            command, status=status, seconds=seconds, **({"printed": printed} if status else {})
        )

    def run(self, text: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", self.python(text)],
            cwd=self.clone,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
        )
        return done.returncode, done.stdout.decode(errors="replace")[-2000:]

    def serve(self, text: str) -> tuple[int, str]:
        """Start a server that goes on; return 0 once it is ready."""
        log = self.clone / f"server-{len(self.servers)}.log"
        words, _, comment = text.partition("#")
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"{words.strip()} PORT={self.port} #{comment}"],
                cwd=self.clone,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.servers.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while not self.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                return process.poll() or 1, log.read_text(errors="replace")[-2000:]
            time.sleep(0.2)
        return 0, ""

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        return False

    def python(self, text: str) -> str:
        """Return the command with the clone's Python where the page leaves its path out."""
        return re.sub(r"^python ", ".venv/bin/python ", text)

    def environment(self) -> Mapping[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("INKWELL_")
        }
        kept = {
            name: value for name, value in kept.items() if name not in ("MAKEFLAGS", "MAKELEVEL")
        }
        return {**kept, "LC_ALL": LOCALES[self.language], "CURL_HOME": str(self.clone.parent)}

    def show(self, command: str, **line: object) -> None:
        said = {"language": self.language, "command": command, **line}
        sys.stdout.write(json.dumps(said, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def end(self) -> None:
        for process in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def spend(language: str, everything: bool) -> int:
    """Type the commands of one README; return how many failed."""
    with tempfile.TemporaryDirectory(prefix="inkwell-first-hour-") as scratch:
        clone = Path(scratch) / "inkwell"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (clone.parent / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nnoproxy = *\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        hour = Hour(clone, language, port, everything)
        try:
            for command in commands((clone / READMES[language]).read_text(encoding="utf-8")):
                hour.type(command)
        finally:
            hour.end()
        return hour.failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.first_hour")
    parser.add_argument("--language", choices=READMES, action="append")
    parser.add_argument(
        "--all", action="store_true", help="run the commands that are left out, too"
    )
    given = parser.parse_args(arguments)
    failed = {language: spend(language, given.all) for language in given.language or READMES}
    sys.stdout.write(json.dumps({"failed": failed}) + "\n")
    return 1 if any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
