"""Tests a bundle on a bare system without a network: python -m deploy.prove BUNDLE

Makes a Debian with python3 and nothing more (debootstrap; needs root and bubblewrap), puts it into a network
namespace with a loopback only, and does there what an administrator does: a damaged archive, an
installation, requests, upgrades, a release that does not work, a user without root, a second prefix, the
steps of the Dockerfile on a read-only system, removal. It ends at the first failure and prints JSON lines.
`boot` does the same under systemd.

The part in the bare system is this file too, run by that system's python3. So it imports the standard
library only, and of this project `inside`.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from deploy.inside import (
    BUNDLE,
    DATA,
    PREFIX,
    SETTINGS,
    TEXTS,
    UNIT,
    alone,
    ask,
    expect,
    found,
    install,
    make_key,
    mode,
    post,
    release,
    releases,
    resum,
    rss_mb,
    run,
    serving,
    show,
    size_mb,
    started,
)

# A user without an entry in the system's list of users.
OTHER_USER = 12345
# The user of the Dockerfile.
CONTAINER = 10001


def main() -> int:
    given = parser("deploy.prove").parse_args()
    if given.inside:
        {"system": system, "container": container, "image": image}[given.inside]()
        return 0
    with unpacked(given.bundle) as bundle:
        root = given.root or make_root(bundle.parent / "root")
        for inside in ("system", "image"):
            enter(furnish(root, bundle, bundle.parent / inside), inside)
        # As COPY --chown and compose.yaml say.
        image_root = bundle.parent / "image"
        os.chown(image_root / "var/lib/inkwell", CONTAINER, CONTAINER)
        enter(image_root, "container", CONTAINER)
    show(case="all", passed=True)
    return 0


@contextlib.contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """Yield the bundle's folder, unpacked into a temporary one."""
    show(case="bundle", mb=round(bundle.stat().st_size / 1e6, 1))
    with tempfile.TemporaryDirectory(prefix="inkwell-prove-") as work:
        with tarfile.open(bundle) as archive:
            archive.extractall(work, filter="data")
        yield next(path for path in Path(work).glob("inkwell-*") if path.is_dir())


def make_root(root: Path, *packages: str) -> Path:
    """Make a Debian with python3, without pip, ensurepip, systemd and certificates; return its root."""
    named = ",".join(("python3", *packages))
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={named}", "bookworm", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return root


def furnish(root: Path, bundle: Path, copy: Path) -> Path:
    """Return a copy of the root that holds the bundle, and a mount point for this folder."""
    subprocess.run(["cp", "-a", root, copy], check=True)
    shutil.copytree(bundle, copy / "bundle")
    (copy / "deploy").mkdir()
    return copy


def enter(root: Path, inside: str, user: int = 0) -> None:
    """Run this file in the root, with a loopback as its only network.

    Other users than root get no rights, and can write to data and /tmp only.
    """
    bound, who = ["--bind", str(root), "/"], list[str]()
    if user:
        data = "var/lib/inkwell"
        bound = ["--ro-bind", str(root), "/", "--bind", str(root / data), f"/{data}"]
        who = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]
        who += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    bound += ["--ro-bind", str(Path(__file__).parent), "/deploy"]
    bound += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
    alone = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--clearenv"]
    path = ["--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "LANG", "C.UTF-8"]
    command = ["bwrap", *bound, *alone, "--cap-add", "ALL", *path, "--chdir", "/", *who]
    ended = subprocess.run([*command, "python3", "-m", "deploy.prove", "--inside", inside])
    if ended.returncode:
        raise SystemExit(f"{inside} failed, see above")


# --- in the bare system ---------------------------------------------------------------------------


def system() -> None:
    """Test an installation by root, then one by another user."""
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
    without_root()
    second()
    remove()


def damaged() -> None:
    """One file has one byte more: nothing is installed."""
    path = next((BUNDLE / "wheels").glob("click-*.whl"))
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 1 and "damaged" in ended.stderr, "a damaged file was not noticed")
    expect(not PREFIX.exists() and not SETTINGS.exists(), "something was installed from it")
    path.write_bytes(whole)
    show(case="damaged", refused=True)


def keys() -> None:
    """The service can read a keys file that root makes and names in the settings."""
    file = SETTINGS.with_name("keys.jsonl")
    key = make_key("app", file)
    before = SETTINGS.read_text(encoding="utf-8")
    SETTINGS.write_text(f'keys = "{file}"\n{before}', encoding="utf-8")
    with serving(SETTINGS, user="inkwell"):
        post("/embed", {"texts": TEXTS}, key=key)
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
    # The link of an interrupted installation, and a mode that an administrator has set.
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
    """A model differs from its manifest, although the checksums are right: `current` stays."""
    before = release()
    model = next(BUNDLE.glob("models/*/model.onnx")).relative_to(BUNDLE)
    whole = (BUNDLE / model).read_bytes()
    resum(str(model), b"x")
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 1 and "does not work" in ended.stderr, "a broken model was taken")
    expect(release() == before, "current points to the broken release")
    (BUNDLE / model).write_bytes(whole)
    resum(str(model), b"")
    show(case="broken", refused=True)


def without_root() -> None:
    """A user without root installs into a folder of their own."""
    home = Path("/tmp/user")
    home.mkdir()
    os.chown(home, OTHER_USER, OTHER_USER)
    who = ("setpriv", "--reuid", OTHER_USER, "--regid", OTHER_USER, "--clear-groups", "--")
    expect(run(*who, BUNDLE / "install.sh").returncode == 1, "no --prefix was needed")
    ended = run(*who, BUNDLE / "install.sh", "--prefix", home / "inkwell")
    expect(ended.returncode == 0, ended.stderr)
    with serving(home / "inkwell/etc/inkwell.toml", prefix=home / "inkwell", user=str(OTHER_USER)):
        ask()
    ended = run(
        *who, home / "inkwell/current/uninstall.sh", "--prefix", home / "inkwell", "--purge"
    )
    expect(ended.returncode == 0 and not (home / "inkwell").exists(), ended.stderr)
    show(case="without root", served=True)


def second() -> None:
    """Root installs under another, relative prefix: the service's installation does not change."""
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
    expect(SETTINGS.is_file() and any(DATA.iterdir()), "data was removed without --purge")
    install()
    with serving(SETTINGS, user="inkwell"):
        expect(found() == "a", "the data that uninstall kept is not served")
    ended = run(PREFIX / "current/uninstall.sh", "--purge")
    left = [path for path in (PREFIX, SETTINGS, DATA, UNIT) if path.exists()]
    expect(ended.returncode == 0 and not left, f"{ended.stderr} {left}")
    expect(bool(run("id", "inkwell").returncode), "the user is still there")
    show(case="removal", kept_until_purged=True)


# --- the Dockerfile -------------------------------------------------------------------------------


def image() -> None:
    """Run its RUN lines where COPY has put the bundle."""
    steps = re.findall(r"^RUN (\[.*\])$", dockerfile(), re.M)
    expect(len(steps) == len(re.findall(r"^RUN ", dockerfile(), re.M)) == 1, "RUN of another form")
    for step in steps:
        ended = run(*json.loads(step), cwd=BUNDLE)
        expect(ended.returncode == 0, ended.stderr)


def container() -> None:
    """Run its CMD and HEALTHCHECK as its user, on a read-only system."""
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
    expect(not SETTINGS.with_name("keys.jsonl").exists(), "the image has a file of keys")
    file = DATA / "keys.jsonl"
    key = make_key("app", file)
    variables["INKWELL_KEYS"] = str(file)
    with started(json.loads(re.findall(r"^CMD (\[.*\])$", dockerfile(), re.M)[0]), variables):
        ask(key)
        check = json.loads(re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile(), re.M)[0])
        expect(
            run(*check, **variables).returncode == 0,
            "the health check fails while the server answers",
        )
    expect(
        run(*check, **variables).returncode != 0, "the health check passes while nothing answers"
    )
    show(case="container", user=os.getuid(), read_only=True, keys="needed", health="checked")


def dockerfile() -> str:
    return (BUNDLE / "Dockerfile").read_text(encoding="utf-8")


def parser(name: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m {name}")
    made.add_argument("bundle", type=Path, nargs="?", help="archive from deploy.bundle")
    made.add_argument("--root", type=Path, help="folder of an existing bare system")
    made.add_argument("--inside", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    sys.exit(main())
