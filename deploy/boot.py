"""Tests a bundle's service under a real systemd: python -m deploy.boot BUNDLE

Boots a Debian with python3 and systemd (debootstrap; needs root, bubblewrap and a writable cgroup2
hierarchy) in namespaces of its own, with a loopback as its only network. With `systemctl` it does there what
an administrator does, and what can go wrong: installation, kill -9, a hang, reload, upgrade, a release that
does not start, going back, stop, removal. It ends at the first failure and prints JSON lines.

The part inside is this file too, run by a unit of that systemd. When the unit ends, the machine stops.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

from deploy.inside import (
    BUNDLE,
    DATA,
    PATIENCE_S,
    PREFIX,
    SETTINGS,
    UNIT,
    alone,
    ask,
    expect,
    found,
    install,
    make_key,
    mode,
    release,
    resum,
    rss_mb,
    run,
    show,
)
from deploy.prove import furnish, make_root, parser, unpacked

PROOF = """\
[Unit]
SuccessAction=exit
FailureAction=exit
FailureActionExitStatus=1
[Service]
Type=oneshot
WorkingDirectory=/
ExecStart=/usr/bin/python3 -m deploy.boot --inside service
StandardOutput=append:/said
StandardError=append:/said
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
TimeoutStartSec=480
"""
# Units that need more of the kernel than the namespaces have.
MASKED = ("systemd-udevd.service", "systemd-sysctl.service", "systemd-modules-load.service")
# The unit's WatchdogSec=.
WATCHDOG_S = 30.0
SIOCSIFADDR = 0x8916


def main() -> int:
    given = parser("deploy.boot").parse_args()
    if given.inside:
        service()
        return 0
    with unpacked(given.bundle) as bundle:
        root = given.root or make_root(bundle.parent / "root", "systemd")
        boot(furnish(root, bundle, bundle.parent / "machine"))
    show(case="booted", passed=True)
    return 0


def boot(root: Path) -> None:
    """Run systemd there as the first process, until the test's unit ends it."""
    units = root / "etc/systemd/system"
    (units / "proof.service").write_text(PROOF)
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    bound = ["--bind", str(root), "/", "--ro-bind", str(Path(__file__).parent), "/deploy"]
    bound += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
    group = own_group()
    bound += [
        "--tmpfs",
        "/run",
        "--ro-bind",
        "/sys",
        "/sys",
        "--bind",
        str(group),
        "/sys/fs/cgroup",
    ]
    apart = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]
    apart += ["--die-with-parent", "--as-pid-1", "--cap-add", "ALL"]
    variables = ["--clearenv", "--setenv", "container", "inkwell"]
    systemd = ["/lib/systemd/systemd", "--system", "--unit=proof.service"]
    command = ["bwrap", *bound, *apart, *variables, *systemd]
    # A process enters the cgroup before it becomes the root of a namespace.
    entered = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)]
    try:
        ended = subprocess.run([*entered, *command], stdin=subprocess.DEVNULL)
    finally:
        for path in sorted(group.rglob("*/"), reverse=True):
            path.rmdir()
        group.rmdir()
    said = root / "said"
    sys.stdout.write(said.read_text(encoding="utf-8") if said.exists() else "")
    if ended.returncode:
        raise SystemExit("service failed, see above")


def own_group() -> Path:
    """Make a cgroup (version 2) below the one of this process, and return its folder."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    places = [Path(line[4]) for line in lines if line[line.index("-") + 1] == "cgroup2"]
    expect(bool(places), "there is no cgroup2 hierarchy")
    own = [
        line.removeprefix("0::/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::/")
    ]
    made = places[0] / own[0] / f"inkwell-boot-{os.getpid()}"
    made.mkdir()
    return made


# --- under that systemd ---------------------------------------------------------------------------


def service() -> None:
    alone()
    installed()
    confined()
    killed()
    hung()
    reloaded()
    upgraded()
    failed()
    stopped()
    removed()


def installed() -> None:
    began = time.monotonic()
    install()
    show(case="install", seconds=round(time.monotonic() - began, 1), active=stated("ActiveState"))
    expect(stated("ActiveState") == "active" and stated("Type") == "notify", "it does not run")
    expect(mode(DATA) == 0o700, f"others may look into {DATA}")
    ask()
    began = time.monotonic()
    restart()
    ready_s = round(time.monotonic() - began, 2)
    expect(found() == "a", "a document was lost")
    show(case="restart", stop_and_ready_s=ready_s, rss_mb=rss_mb(main_pid()))


def confined() -> None:
    """Compare the unit's promises with what the kernel reports."""
    lines = Path(f"/proc/{main_pid()}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    expect(status["CapBnd"] == status["CapEff"] == ["0000000000000000"], f"it has {status}")
    expect(status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"], f"it has {status}")
    expect(status["Uid"][0] != "0", "it is root")
    mounts = [
        line.split() for line in Path(f"/proc/{main_pid()}/mountinfo").read_text().splitlines()
    ]
    modes = {line[4]: line[5].split(",")[0] for line in mounts}
    expect(modes["/"] == "ro" and modes[str(DATA)] == "rw", f"it may write elsewhere: {modes}")
    show(case="confined", capabilities=0, filtered=True, writes=str(DATA), others=reach_of_others())


def reach_of_others() -> str:
    """Return the answer at an address that is not the loopback's, while the server listens on all."""
    before = SETTINGS.read_text(encoding="utf-8")
    SETTINGS.write_text(before.replace('"127.0.0.1"', '"0.0.0.0"'), encoding="utf-8")
    restart()
    address = "192.0.2.1"
    with socket.socket() as asked:
        wanted = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address))
        ioctl(asked, SIOCSIFADDR, wanted)
        asked.settimeout(2)
        try:
            asked.connect((address, 8000))
            raise SystemExit("IPAddressDeny= lets other addresses in")
        except TimeoutError:
            said = "nothing"
    SETTINGS.write_text(before, encoding="utf-8")
    restart()
    return said


def killed() -> None:
    began, before = time.monotonic(), main_pid()
    os.kill(before, signal.SIGKILL)
    eventually(lambda: main_pid() not in (0, before) and stated("ActiveState") == "active")
    expect(found() == "a", "a document was lost")
    expect(stated("NRestarts") == "1", f"{stated('NRestarts')} restarts")
    show(case="kill -9", served_again_s=round(time.monotonic() - began, 1))


def hung() -> None:
    """A stopped process sends no sign of life, so systemd starts it again."""
    began, before = time.monotonic(), main_pid()
    os.kill(before, signal.SIGSTOP)
    patience_s = WATCHDOG_S + PATIENCE_S
    eventually(
        lambda: main_pid() not in (0, before) and stated("ActiveState") == "active", patience_s
    )
    expect(found() == "a", "a document was lost")
    show(case="hang", served_again_s=round(time.monotonic() - began, 1))


def reloaded() -> None:
    """A key that was made while it serves is valid after a reload, in the same process."""
    file = SETTINGS.with_name("keys.jsonl")
    first = make_key("first", file)
    before = SETTINGS.read_text(encoding="utf-8")
    SETTINGS.write_text(f'keys = "{file}"\n{before}', encoding="utf-8")
    restart()
    expect(found(first) == "a", "the first key does not open")
    pid, second = main_pid(), make_key("second", file)
    expect(run("systemctl", "reload", "inkwell").returncode == 0, journal())
    eventually(lambda: opens(second))
    expect(main_pid() == pid, "a reload started another process")
    SETTINGS.write_text(before, encoding="utf-8")
    restart()
    show(case="reload", same_process=True)


def upgraded() -> None:
    """Another release serves; then go back as docs/en/how-to/deploy.md describes."""
    old, pid = release(), main_pid()
    resum("README.md", b"\n")
    install()
    expect(release() != old and main_pid() != pid and found() == "a", "it was not upgraded")
    run("ln", "-sfn", old, PREFIX / "current")
    restart()
    expect(release() == old and f"/{Path(old).name}/" in running(), "the new one still serves")
    install()
    expect(found() == "a", "a document was lost")
    show(case="upgrade", back_and_forth=True)


def failed() -> None:
    """A release works, but its service does not start."""
    before = release()
    unit = BUNDLE / "inkwell.service"
    whole = unit.read_bytes()
    resum(unit.name, b"\n[Service]\nExecStartPre=/bin/false\n")
    ended = run(BUNDLE / "install.sh")
    expect(ended.returncode == 1 and "serves again" in ended.stderr, ended.stderr + ended.stdout)
    expect(release() == before and stated("ActiveState") == "active", "nothing serves")
    expect(b"/bin/false" not in UNIT.read_bytes() and found() == "a", "the unit is the new one")
    unit.write_bytes(whole)
    resum(unit.name, b"")
    show(case="a release that does not start", gave_way=True)


def stopped() -> None:
    began = time.monotonic()
    expect(run("systemctl", "stop", "inkwell").returncode == 0, "it does not stop")
    expect((stated("Result"), stated("ExecMainStatus")) == ("success", "0"), "it ended badly")
    show(case="stop", seconds=round(time.monotonic() - began, 2))


def removed() -> None:
    ended = run(PREFIX / "current/uninstall.sh", "--purge")
    left = [path for path in (PREFIX, SETTINGS, DATA, UNIT) if path.exists()]
    expect(ended.returncode == 0 and not left, f"{ended.stderr} {left}")
    expect(stated("LoadState") == "not-found", "systemd still knows it")
    show(case="removal", nothing_left=True)


def opens(key: str) -> bool:
    try:
        return found(key) == "a"
    except urllib.error.HTTPError as error:
        expect(error.code == 401, f"the answer is {error.code}")
        return False


def restart() -> None:
    # This test starts it more often than the unit's StartLimitBurst= allows.
    run("systemctl", "reset-failed", "inkwell")
    ended = run("systemctl", "restart", "inkwell")
    expect(ended.returncode == 0, ended.stderr + journal())


def journal() -> str:
    return run("journalctl", "--no-pager", "-n", "30", "-u", "inkwell").stdout


def stated(name: str) -> str:
    return run("systemctl", "show", "--value", "--property", name, "inkwell").stdout.strip()


def main_pid() -> int:
    return int(stated("MainPID"))


def running() -> str:
    """Return the files that the serving process has mapped."""
    return Path(f"/proc/{main_pid()}/maps").read_text(encoding="utf-8")


def eventually(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        expect(time.monotonic() < end, journal())
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
