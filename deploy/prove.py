"""Does a bundle install and serve on a bare system without a network? python -m deploy.prove BUNDLE

Makes a Debian that has python3 and nothing more (debootstrap, needs root and bubblewrap), closes it into
a network namespace with a loopback only, and does there what an administrator does: a damaged archive,
an installation, requests, upgrades, a release that does not work, a user without root, a second prefix,
the steps of the Dockerfile on a read-only system, removal. Ends at the first surprise; prints figures as JSON lines.

The part in the bare system is this same file, run by its python3: so it imports the standard library
only, and nothing of this project.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
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
# Anybody: without an entry in the system's lists of users.
SOMEBODY = 12345
# The user of the Dockerfile.
CONTAINER = 10001
PATIENCE_S = 60.0
TEXTS = ["人工智能正在改变世界。", "今天天气很好，适合出去郊游。"]


def main() -> int:
    given = _parser().parse_args()
    if given.inside:
        {"system": system, "container": container, "image": image}[given.inside]()
        return 0
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inkwell-prove-")))
        root = given.root or make_root(work / "root")
        show(case="bundle", mb=round(given.bundle.stat().st_size / 1e6, 1))
        with tarfile.open(given.bundle) as archive:
            archive.extractall(work, filter="data")
        bundle = next(path for path in work.glob("inkwell-*") if path.is_dir())
        for inside in ("system", "image"):
            copy = work / inside
            subprocess.run(["cp", "-a", root, copy], check=True)
            shutil.copytree(bundle, copy / "bundle")
            shutil.copy(__file__, copy / "prove.py")
            enter(copy, inside)
        # As COPY --chown and compose.yaml say.
        os.chown(work / "image" / "var/lib/inkwell", CONTAINER, CONTAINER)
        enter(work / "image", "container", CONTAINER)
    show(case="all", passed=True)
    return 0


def make_root(root: Path) -> Path:
    """A Debian with python3: neither pip nor venv's ensurepip, no systemd, no certificates."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3", "bookworm", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return root


def enter(root: Path, inside: str, user: int = 0) -> None:
    """Run this file in the root, with a loopback for a network.

    As anybody but root: without rights, and nothing but data and /tmp may be written.
    """
    bound, who = ["--bind", str(root), "/"], list[str]()
    if user:
        data = "var/lib/inkwell"
        bound = ["--ro-bind", str(root), "/", "--bind", str(root / data), f"/{data}"]
        who = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]
        who += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    bound += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
    alone = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--clearenv"]
    path = ["--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "LANG", "C.UTF-8"]
    command = ["bwrap", *bound, *alone, "--cap-add", "ALL", *path, "--chdir", "/", *who]
    ended = subprocess.run([*command, "python3", "/prove.py", "--inside", inside])
    if ended.returncode:
        raise SystemExit(f"{inside} failed, see above")


# --- in the bare system ---------------------------------------------------------------------------


def system() -> None:
    """As root, then as somebody else."""
    alone()
    damaged()
    began = time.monotonic()
    install()
    show(case="install", seconds=round(time.monotonic() - began, 1), mb=size_mb(PREFIX))
    expect(mode(DATA) == 0o700, f"others may look into {DATA}: {mode(DATA):o}")
    with SETTINGS.open("a", encoding="utf-8") as file:
        file.write("# mine\n")
    with serving(SETTINGS, user="inkwell") as process:
        ask()
        show(case="serve", ready_s=process.ready_s, rss_mb=rss_mb(process.pid))
    keys()
    again()
    broken()
    somebody()
    second()
    remove()


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


def damaged() -> None:
    """One byte more in one file: nothing is installed."""
    path = next((BUNDLE / "wheels").glob("click-*.whl"))
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 1 and "damaged" in ended.stderr, "a damaged file was not noticed")
    expect(not PREFIX.exists() and not SETTINGS.exists(), "something was installed from it")
    path.write_bytes(whole)
    show(case="damaged", refused=True)


def keys() -> None:
    """What root makes and names in the settings, the service can read."""
    file = SETTINGS.with_name("keys.jsonl")
    made = run(
        PREFIX / "current/bin/inkwell", "key", "new", "app", "--scopes", "embed", "--keys", file
    )
    expect(made.returncode == 0, made.stderr)
    before = SETTINGS.read_text(encoding="utf-8")
    SETTINGS.write_text(f'keys = "{file}"\n{before}', encoding="utf-8")
    with serving(SETTINGS, user="inkwell"):
        post("/embed", {"texts": TEXTS}, key=made.stdout.split()[0])
        try:
            post("/embed", {"texts": TEXTS})
        except urllib.error.HTTPError as error:
            expect(error.code == 401, f"without a key the answer is {error.code}")
        else:
            raise SystemExit("no key was needed")
    SETTINGS.write_text(before, encoding="utf-8")
    show(case="keys", needed=True)


def again() -> None:
    """The same bundle changes nothing; another moves `current` and keeps settings and documents."""
    first = release()
    # Where an installation was interrupted, and what an administrator has allowed.
    (PREFIX / "current.new").symlink_to(first)
    DATA.chmod(0o750)
    install()
    expect(release() == first and len(releases()) == 1, "the same bundle made another release")
    for n in (1, 2):
        resum("README.md", f"\n{n}\n".encode())
        install()
    expect(release() != first and len(releases()) == 2, f"releases are {releases()}")
    expect(not (PREFIX / "current.new").is_symlink(), "a link was left")
    expect(mode(DATA) == 0o750, "the mode of the data folder was changed")
    expect(SETTINGS.read_text(encoding="utf-8").endswith("# mine\n"), "settings were replaced")
    with serving(SETTINGS, user="inkwell"):
        expect(found() == "a", "a document was lost")
    show(case="upgrade", kept=["settings", "documents"], releases=len(releases()))


def broken() -> None:
    """A model that is not what its manifest says, under sums that are right: `current` stays."""
    before = release()
    model = next(BUNDLE.glob("models/*/model.onnx")).relative_to(BUNDLE)
    whole = (BUNDLE / model).read_bytes()
    resum(str(model), b"x")
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 1 and "does not work" in ended.stderr, "a broken model was taken")
    expect(release() == before, "current points to what does not work")
    (BUNDLE / model).write_bytes(whole)
    resum(str(model), b"")
    show(case="broken", refused=True)


def somebody() -> None:
    """Without root, under a folder of one's own."""
    home = Path("/tmp/somebody")
    home.mkdir()
    os.chown(home, SOMEBODY, SOMEBODY)
    who = ("setpriv", "--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups", "--")
    expect(run(*who, BUNDLE / "install.sh").returncode == 1, "no --prefix was needed")
    ended = run(*who, BUNDLE / "install.sh", "--prefix", home / "inkwell")
    expect(ended.returncode == 0, ended.stderr)
    with serving(home / "inkwell/etc/inkwell.toml", prefix=home / "inkwell", user=str(SOMEBODY)):
        ask()
    ended = run(
        *who, home / "inkwell/current/uninstall.sh", "--prefix", home / "inkwell", "--purge"
    )
    expect(ended.returncode == 0 and not (home / "inkwell").exists(), ended.stderr)
    show(case="without root", served=True)


def second() -> None:
    """Under another prefix, which root names from where it is: the service's own is left alone."""
    before = (release(), UNIT.read_bytes(), SETTINGS.read_bytes(), sorted(DATA.rglob("*")))
    place = Path("/srv/second")
    ended = run(BUNDLE / "install.sh", "--prefix", place)
    expect(
        ended.returncode == 1 and "give --no-service" in ended.stderr, "it took the service over"
    )
    ended = run(BUNDLE / "install.sh", "--prefix", "second", "--no-service", cwd=place.parent)
    expect(ended.returncode == 0, ended.stderr)
    with serving(place / "etc/inkwell.toml", prefix=place, user="root"):
        ask()
    ended = run(place / "current/uninstall.sh", "--prefix", place, "--purge")
    expect(ended.returncode == 0 and not place.exists(), ended.stderr)
    after = (release(), UNIT.read_bytes(), SETTINGS.read_bytes(), sorted(DATA.rglob("*")))
    expect(after == before, "the service's installation was changed")
    expect(run("id", "inkwell").returncode == 0, "the service's user is gone")
    show(case="second prefix", apart=True)


def remove() -> None:
    ended = run(PREFIX / "current/uninstall.sh")
    expect(ended.returncode == 0 and not PREFIX.exists(), ended.stderr)
    expect(SETTINGS.is_file() and any(DATA.iterdir()), "data went without being told")
    install()
    with serving(SETTINGS, user="inkwell"):
        expect(found() == "a", "what uninstall kept is not served")
    ended = run(PREFIX / "current/uninstall.sh", "--purge")
    left = [path for path in (PREFIX, SETTINGS, DATA, UNIT) if path.exists()]
    expect(ended.returncode == 0 and not left, f"{ended.stderr} {left}")
    expect(bool(run("id", "inkwell").returncode), "the user is still there")
    show(case="removal", kept_until_purged=True)


# --- the Dockerfile -------------------------------------------------------------------------------


def image() -> None:
    """Its RUN lines, where COPY has put the bundle."""
    steps = re.findall(r"^RUN (\[.*\])$", dockerfile(), re.M)
    expect(len(steps) == len(re.findall(r"^RUN ", dockerfile(), re.M)) == 1, "RUN of another form")
    for step in steps:
        ended = run(*json.loads(step), cwd=BUNDLE)
        expect(ended.returncode == 0, ended.stderr)


def container() -> None:
    """Its CMD and HEALTHCHECK as its user, on a system that cannot be written."""
    expect(os.getuid() == CONTAINER, f"this is user {os.getuid()}")
    expect(f"\nUSER {CONTAINER}:{CONTAINER}\n" in dockerfile(), "its USER is another")
    rights = re.findall(r"^Cap(?:Eff|Bnd):\s+(\w+)", Path("/proc/self/status").read_text(), re.M)
    expect({int(right, 16) for right in rights} == {0}, f"rights are {rights}")
    with contextlib.suppress(OSError):
        (PREFIX / "written").touch()
        raise SystemExit("the system can be written")
    variables = dict(
        pair.split("=") for pair in re.findall(r"^ENV (.*)$", dockerfile(), re.M)[0].split()
    )
    with started(json.loads(re.findall(r"^CMD (\[.*\])$", dockerfile(), re.M)[0]), variables):
        ask()
        check = json.loads(re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile(), re.M)[0])
        expect(run(*check).returncode == 0, "the health check fails while the server answers")
    expect(run(*check).returncode != 0, "the health check passes while nothing answers")
    show(case="container", user=os.getuid(), read_only=True, served=True, health="checked")


def dockerfile() -> str:
    return (BUNDLE / "Dockerfile").read_text(encoding="utf-8")


# --- tools ----------------------------------------------------------------------------------------


def run(*command: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)


def install() -> None:
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 0, ended.stderr)


class Running:
    def __init__(self, pid: int, ready_s: float) -> None:
        self.pid, self.ready_s = pid, ready_s


def serving(
    settings: Path, *, prefix: Path = PREFIX, user: str
) -> contextlib.AbstractContextManager[Running]:
    """The command of the unit, as its user."""
    who = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]
    python = prefix / "current/bin/python"
    return started([*who, str(python), "-m", "server", "serve", "--config", str(settings)], {})


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


def ask() -> None:
    """Vectors of unit length, and a document that is found by its meaning."""
    vectors = post("/embed", {"texts": TEXTS})["vectors"]
    lengths = [sum(x * x for x in vector) for vector in vectors]
    expect(all(abs(length - 1) < 1e-3 for length in lengths), f"lengths are {lengths}")
    documents = [{"id": name, "text": text} for name, text in zip("ab", TEXTS, strict=True)]
    post("/documents", {"documents": documents})
    expect(found() == "a", "search finds another document")


def found() -> str:
    return str(post("/search", {"query": "AI 能做哪些事?", "top_k": 1})["hits"][0]["id"])


def resum(name: str, more: bytes) -> None:
    """Append to a file of the bundle and make its sum right again."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.prove")
    parser.add_argument("bundle", type=Path, nargs="?", help="that deploy.bundle has made")
    parser.add_argument("--root", type=Path, help="a bare system that is there already")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
