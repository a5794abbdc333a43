"""The Dockerfile and compose.yaml of a clone: what they name is there, and they keep their promises.

`make test-image` builds the image and runs it.
"""

import fnmatch
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import yaml

from deploy import health
from server.config import Config
from tests.support.processes import ROOT, serving

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICE = COMPOSE["services"]["inkwell"]


def stages() -> tuple[str, str]:
    """Return the build stage and the image's own."""
    build, image = re.split(r"^FROM \$\{BASE\}$", DOCKERFILE, flags=re.M)
    return build, image


def variables() -> dict[str, str]:
    lines = re.findall(r"^ENV (.*)$", stages()[1], re.M)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M)
    assert len(copied) >= 5
    defaults = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.M))
    kept = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for name in " ".join(copied).split():
        plain = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], name)
        assert (ROOT / plain).exists(), plain
        assert any(plain == each or plain.startswith(f"{each}/") for each in kept), plain


def test_no_secret_and_no_data_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    for name in ("keys.jsonl", "data/collections", ".git/config", "tests/conftest.py"):
        assert not any(fnmatch.fnmatch(name, line[1:] + "*") for line in lines if line[:1] == "!")
    assert "keys.jsonl" in (ROOT / ".gitignore").read_text()


def test_image_runs_as_a_user_of_its_own_on_its_volume() -> None:
    image = stages()[1]
    assert "\nUSER 10001:10001\n" in image and "\nVOLUME /data\n" in image
    assert image.index("USER ") < image.index("ENTRYPOINT ")
    settings = {f"INKWELL_{field.name.upper()}" for field in fields(Config)}
    named = {name for name in variables() if name.startswith("INKWELL_")}
    assert named <= settings and variables()["INKWELL_DATA"] == "/data"
    # Keys are not part of an image.
    assert "INKWELL_KEYS" not in named and "API_KEY" not in DOCKERFILE


def test_packages_are_installed_with_their_hashes() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 3
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line


def test_compose_opens_one_port_to_this_machine_and_needs_a_key() -> None:
    assert SERVICE["ports"] == ["127.0.0.1:8000:8000"]
    assert SERVICE["environment"]["INKWELL_KEYS"] == "/run/secrets/inkwell_keys"
    assert COMPOSE["secrets"]["inkwell_keys"] == {"file": "./keys.jsonl"}
    assert SERVICE["volumes"] == ["data:/data"] and "data" in COMPOSE["volumes"]
    assert SERVICE["read_only"] is True and SERVICE["cap_drop"] == ["ALL"]
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.M)
    assert SERVICE["healthcheck"]["test"] == ["CMD", *json.loads(check)]


def test_health_check_says_whether_the_server_answers(toy_artifact: Path, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    command = [sys.executable, str(ROOT / "deploy/health.py")]
    asked = {"INKWELL_UNIX_SOCKET": str(socket)}
    assert subprocess.run(command, env=asked).returncode == 1
    with serving(toy_artifact, tmp_path, "--unix-socket", str(socket)):
        assert subprocess.run(command, env=asked).returncode == 0
    assert not health.answers(str(socket))
