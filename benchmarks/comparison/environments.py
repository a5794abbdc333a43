"""An environment of its own for each contender, made once from its list of pinned packages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from export.texts.files import CHINESE

CONTENDERS = Path(__file__).with_name("contenders").resolve()
ENVIRONMENTS = Path("build/contenders")
# Nothing is fetched but packages, and nothing is reported.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


class Failed(Exception):
    """Raised with the reason if an environment cannot be made or a command in it fails."""


class Environment:
    """A folder with an interpreter and the packages of requirements-NAME.txt."""

    def __init__(self, folder: Path, name: str) -> None:
        """Create what is missing; raises Failed."""
        self.folder = (folder / name).resolve()
        self.python = str(self.folder / "bin" / "python")
        self.environ = {**os.environ, **QUIET, "HF_HOME": str(self.folder / "hf")}
        wanted = CONTENDERS / f"requirements-{name}.txt"
        self.packages = packages(wanted.read_text(encoding="utf-8"))
        done = self.folder / "installed.txt"
        if not done.exists() or done.read_bytes() != wanted.read_bytes():
            run([sys.executable, "-m", "venv", str(self.folder)], self.environ)
            self.run("-m", "pip", "install", "--quiet", "-r", str(wanted))
            done.write_bytes(wanted.read_bytes())

    def run(self, *arguments: str) -> str:
        """Return what the interpreter prints; raises Failed."""
        return run([self.python, *arguments], self.environ)

    def versions(self) -> str:
        """Return the packages of the list with their installed versions."""
        listed = self.run("-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
        found = {plain(each["name"]): each["version"] for each in json.loads(listed)}
        return ", ".join(f"{name} {found[name]}" for name in self.packages if name in found)


def int8_model(environments: Path, library: str, checkpoint: Path) -> Path:
    """Return the folder that int8.py writes for the library; raises Failed.

    It is written again if int8.py has changed since.
    """
    folder = (environments / f"int8-{library}" / checkpoint.name).resolve()
    script, done = CONTENDERS / "int8.py", folder / "done"
    if not done.exists() or done.read_bytes() != script.read_bytes():
        command = [str(script), library, str(checkpoint.resolve()), str(folder)]
        Environment(environments, library).run(
            *command, "--texts", str(CHINESE.calibration.resolve())
        )
        done.write_bytes(script.read_bytes())
    return folder


def run(command: Sequence[str], environ: dict[str, str]) -> str:
    """Return what the command prints; raises Failed."""
    found = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if found.returncode:
        raise Failed(reason(found.stderr or found.stdout))
    return found.stdout


def packages(requirements: str) -> list[str]:
    """Return the plain names of the packages in a requirements file."""
    names = re.findall(r"^([A-Za-z0-9._-]+)", requirements, re.M)
    return [plain(name) for name in names]


def plain(name: str) -> str:
    """Return a package's name in lower case with hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def reason(output: str) -> str:
    """Return the last line that is not empty, at most 300 characters of it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
