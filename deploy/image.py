"""Builds the image of the Dockerfile without a network, and tests it: python -m deploy.image

Needs root, debootstrap, buildah and bubblewrap. The base image is a Debian with python3, made here, because none
can be pulled. buildah builds in a network namespace without a network, from a folder of wheels. Then the
image's own command runs on its read-only file system, as its own user and with a key from a secret, again without
a network. It ends at the first failure and prints JSON lines.

Where buildah cannot run, the steps of the Dockerfile were not tested, and this says so with status 2. The part in
the image is this file too, run by the image's python3: it imports the standard library only, and `inside`.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.inside import ask, expect, found, post, rss_mb, run, show, started

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "build/wheels"
NEEDED = ("buildah", "debootstrap", "bwrap", "setpriv")
BASE, IMAGE = "localhost/inkwell-base", "localhost/inkwell-test"
SECRET = Path("/run/secrets/inkwell_keys")
DESCRIPTION = Path("/run/image.json")
WITHOUT_NETWORK = ("unshare", "--net")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.image")
    parser.add_argument(
        "--root", type=Path, help="folder of a Debian with python3 and python3-venv"
    )
    parser.add_argument("--wheels", action="store_true", help="only fill build/wheels")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        inside()
        return 0
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if not given.wheels and (missing or os.getuid() != 0):
        show(case="image", built=False, missing=missing, root=os.getuid() == 0)
        return 2
    download()
    if not given.wheels:
        with tempfile.TemporaryDirectory(prefix="inkwell-image-") as scratch:
            prove(Path(scratch), given.root)
    return 0


def download() -> None:
    """Fill build/wheels with what the locks name."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    for lock in ("run.txt", "bundle.txt"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "-d", str(WHEELS)]
        subprocess.run([*command, "-r", str(ROOT / "locks" / lock)], check=True)


def prove(scratch: Path, root: Path | None) -> None:
    build = Builder(scratch)
    build.base(root or _debian(scratch / "root"))
    command = ["build", "--isolation", "chroot", "--format", "docker", "--pull=never", "-t", IMAGE]
    for name, value in (("BASE", BASE), ("WHEELS", "build/wheels"), ("PIP_NO_INDEX", "1")):
        command += ["--build-arg", f"{name}={value}"]
    build.run(*command, str(ROOT), prefix=WITHOUT_NETWORK)
    description = build.described(IMAGE)
    expect(description["User"] == "10001:10001", f"its user is {description['User']}")
    expect(set(description["Volumes"]) == {"/data"}, f"its volumes are {description['Volumes']}")
    place = build.mounted(IMAGE)
    show(case="image", built="without a network", mb=_size_mb(place))
    enter(place, description, scratch)
    show(case="all", passed=True)


class Builder:
    """buildah, with everything that it stores under one folder."""

    def __init__(self, folder: Path) -> None:
        places = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        # Needs nothing of the kernel; a layer is a copy, and there are few.
        self._command = ["buildah", *places, "--storage-driver", "vfs"]

    def run(self, *arguments: str, prefix: Sequence[str] = ()) -> str:
        command = [*prefix, self._command[0], *self._command[1:], *arguments]
        ended = subprocess.run(command, capture_output=True, text=True)
        expect(
            ended.returncode == 0,
            f"{' '.join(command)}:\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}",
        )
        return ended.stdout.strip()

    def base(self, root: Path) -> None:
        """Make the base image of the files in a folder."""
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(root), "/")
        self.run("commit", "--quiet", "--rm", container, BASE)

    def described(self, image: str) -> dict[str, Any]:
        """Return what the image says of itself: user, command, variables, health check."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))
        return dict(found["Docker"]["config"])

    def mounted(self, image: str) -> Path:
        return Path(self.run("mount", self.run("from", "--pull=never", image)))


def _debian(root: Path) -> Path:
    packages = "python3,python3-venv,ca-certificates"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


def _size_mb(place: Path) -> int:
    return int(run("du", "-sxm", place).stdout.split()[0])


def enter(place: Path, description: Mapping[str, Any], scratch: Path) -> None:
    """Run this file in the image: read-only but for its volume and /tmp, as its user, without rights."""
    user, _, group = description["User"].partition(":")
    data, keys, file = scratch / "data", scratch / "keys.jsonl", scratch / "image.json"
    # What a container engine does with a new volume: it gets the files and the owner of the image's folder.
    subprocess.run(["cp", "-a", str(place / "data"), str(data)], check=True)
    file.write_text(json.dumps(description), encoding="utf-8")
    made = run(
        *(sys.executable, "-m", "server", "key", "new", "app", "--scopes", "embed,write,search"),
        *("--keys", keys),
        cwd=ROOT,
    )
    expect(made.returncode == 0, made.stderr)
    keys.chmod(0o644)
    bound = ["--ro-bind", str(place), "/", "--bind", str(data), "/data", "--tmpfs", "/run"]
    # Folders that it makes on the way to a file are for root only.
    for folder in ("/run/secrets", "/run/test"):
        bound += ["--perms", "0755", "--dir", folder]
    bound += ["--ro-bind", str(keys), str(SECRET), "--ro-bind", str(file), str(DESCRIPTION)]
    bound += ["--ro-bind", str(Path(__file__).parent), "/run/test/deploy"]
    bound += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
    apart = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--clearenv"]
    variables = dict(pair.split("=", 1) for pair in description["Env"])
    variables |= {"LANG": "C.UTF-8", "KEY": made.stdout.split()[0], "PYTHONPATH": "/run/test"}
    for name, value in variables.items():
        apart += ["--setenv", name, value]
    who = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--bounding-set=-all"]
    who += ["--inh-caps=-all", "--no-new-privs", "--"]
    command = [
        "bwrap",
        *bound,
        *apart,
        "--cap-add",
        "ALL",
        "--chdir",
        description["WorkingDir"],
        *who,
    ]
    ended = subprocess.run([*command, "python3", "-m", "deploy.image", "--inside"])
    expect(ended.returncode == 0, "the image does not work, see above")


# --- in the image ---------------------------------------------------------------------------------


def inside() -> None:
    """Run the image's command and health check, with the key of a secret, and again after a stop."""
    description = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    with contextlib.suppress(OSError):
        Path("/opt/inkwell/written").touch()
        raise SystemExit("the image can be written")
    check = description["Healthcheck"]["Test"]
    expect(check[0] == "CMD", f"the health check is {check}")
    command = [*description["Entrypoint"], *description["Cmd"]]
    expect(run(*check[1:]).returncode != 0, "the health check passes while nothing answers")
    key = os.environ["KEY"]
    variables = {"INKWELL_KEYS": str(SECRET), "PYTHONPATH": ""}
    with started(command, variables) as server:
        expect(run(*check[1:]).returncode == 0, "the health check fails while the server answers")
        ask(key)
        # Clients that name the model of the README are not refused.
        post("/embed", {"texts": ["a"], "model": "bge-small-zh-v1.5"}, key)
        try:
            post("/search", {"query": "a"})
        except urllib.error.HTTPError as error:
            expect(error.code == 401, f"without a key the answer is {error.code}")
        else:
            raise SystemExit("no key was needed")
        show(case="container", user=os.getuid(), ready_s=server.ready_s, rss_mb=rss_mb(server.pid))
    with started(command, variables):
        expect(found(key) == "a", "a document was lost")
    # What the documentation tells an administrator to type with `docker compose run`.
    listed = run(*description["Entrypoint"], "collections", PYTHONPATH="")
    expect("default  2" in listed.stdout, listed.stdout + listed.stderr)
    show(case="volume", kept=True)


if __name__ == "__main__":
    sys.exit(main())
