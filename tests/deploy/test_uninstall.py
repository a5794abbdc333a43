"""uninstall.sh removes what install.sh has made, and nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.bundles import DEPLOY, MARKED, bundle_at
from tests.support.processes import environment

UNIT = Path("etc/systemd/system/inkwell.service")
# What installer and server make outside of the prefix.
MADE = (
    "etc/inkwell/inkwell.toml",
    "etc/inkwell/keys.jsonl",
    "var/lib/inkwell/lock",
    "var/lib/inkwell/collections/default/documents.sqlite3",
)


def test_uninstall_touches_no_folder_of_others(tmp_path: Path) -> None:
    command = [str(DEPLOY / "uninstall.sh"), "--prefix", str(tmp_path), "--purge"]
    for language, expected in (("C", "nothing is installed in"), ("zh_CN.UTF-8", "没有安装")):
        ended = subprocess.run(
            command, env=environment(LC_ALL=language), capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1 and tmp_path.is_dir()
        assert expected in ended.stderr


def uninstall(prefix: Path | str, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [str(DEPLOY / "uninstall.sh"), "--prefix", str(prefix), *flags]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)


def installation(prefix: Path) -> Path:
    """Make what install.sh leaves in a prefix that holds settings and data too."""
    for name in ("releases/1/bin/python", "releases/2/x", "etc/inkwell.toml", "data/lock"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).touch()
    (prefix / "data/collections/default").mkdir(parents=True)
    (prefix / "current").symlink_to("releases/2")
    (prefix / ".inkwell-install").write_text(f"{MARKED}\nreleases/1\nreleases/2\n")
    return prefix


def test_a_prefix_that_is_empty_is_no_prefix() -> None:
    ended = uninstall("", "--purge")
    assert ended.returncode == 1 and "--prefix needs a value, which is empty" in ended.stderr


def test_an_installation_of_another_program_is_not_removed(tmp_path: Path) -> None:
    prefix = installation(tmp_path / "it")
    (prefix / ".inkwell-install").unlink()
    before = sorted(prefix.rglob("*"))
    for mark in (None, "another program\n"):
        if mark:
            (prefix / ".inkwell-install").write_text(mark)
            before = sorted(prefix.rglob("*"))
        ended = uninstall(prefix, "--purge")
        assert ended.returncode == 1 and "nothing is installed in" in ended.stderr
        assert sorted(prefix.rglob("*")) == before


def test_only_what_is_listed_is_removed(tmp_path: Path) -> None:
    prefix = installation(tmp_path / "it")
    mine = ["releases/other/x", "etc/mine.crt", "data/mine.db", "notes.txt"]
    for name in mine:
        (prefix / name).parent.mkdir(exist_ok=True)
        (prefix / name).touch()
    (tmp_path / "outside").mkdir()
    with (prefix / ".inkwell-install").open("a") as mark:
        mark.write("releases/../../outside\nreleases/..\n../outside\n/etc\n*\n")
    (prefix / "current.new").symlink_to("releases/1")
    ended = uninstall(prefix, "--purge")
    assert ended.returncode == 0, ended.stderr
    left = [path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file()]
    assert sorted(left) == sorted([*mine, ".inkwell-install"])
    assert (tmp_path / "outside").is_dir()
    for folder in ("releases", "etc", "data"):
        assert f"left, because it is not of this installation: {prefix}/{folder}" in ended.stdout


def test_settings_and_data_that_were_kept_can_be_purged_later(tmp_path: Path) -> None:
    prefix = installation(tmp_path / "it")
    ended = uninstall(prefix)
    assert ended.returncode == 0 and f"kept: {prefix}/etc {prefix}/data" in ended.stdout
    assert sorted(path.name for path in prefix.iterdir()) == [".inkwell-install", "data", "etc"]
    assert uninstall(prefix, "--purge").returncode == 0
    assert not prefix.exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    prefix = installation(tmp_path / "it")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x").touch()
    for name in ("releases/1", "data/collections"):
        shutil.rmtree(prefix / name)
        (prefix / name).symlink_to(tmp_path / "mine")
    assert uninstall(prefix, "--purge").returncode == 0
    assert not prefix.exists() and (tmp_path / "mine/x").exists()


def test_without_a_prefix_it_is_the_installation_of_the_script(tmp_path: Path) -> None:
    for place in ("current", "releases/2"):
        prefix = installation(tmp_path / "it")
        shutil.copy(DEPLOY / "uninstall.sh", prefix / "releases/2")
        command = [str(prefix / place / "uninstall.sh"), "--purge"]
        ended = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0 and not prefix.exists(), ended.stderr


# --- two installations on one machine, of which the second is not the service's --------------------


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a root folder with the service's installation in /opt/inkwell, and another in /srv/second."""
    root = tmp_path / "root"
    for prefix in ("opt/inkwell", "srv/second"):
        (root / prefix / "releases/1").mkdir(parents=True)
        (root / prefix / "current").symlink_to("releases/1")
        (root / prefix / ".inkwell-install").write_text(f"{MARKED}\nreleases/1\n")
    (root / UNIT).parent.mkdir(parents=True)
    shutil.copy(DEPLOY / "inkwell.service", root / UNIT)
    for name in (f"{UNIT}.d/override.conf", *MADE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ninkwell:x:990:990::/var/lib/inkwell:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\ninkwell:x:990:\n")
    return root


def on(machine: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run as root there, with the programs of this machine and the scripts in /deploy."""
    tool = shutil.which("bwrap")
    if tool is None:
        pytest.skip("bubblewrap is not installed")
    who = [] if os.getuid() == 0 else ["--unshare-user", "--uid", "0", "--gid", "0"]
    places = ["--bind", str(machine), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for name in ("usr", "bin", "sbin", "lib", "lib64"):
        places += ["--ro-bind-try", f"/{name}", f"/{name}"]
    places += ["--ro-bind", str(DEPLOY), "/deploy", "--chdir", "/", "--unshare-net"]
    path = ["--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"]
    return subprocess.run(
        [tool, *who, *places, *path, "--", *command], capture_output=True, text=True, timeout=60
    )


def of_the_service(machine: Path) -> list[str]:
    """Return the parts of the service that exist."""
    parts = ["opt/inkwell/current", str(UNIT), f"{UNIT}.d", *MADE]
    left = [part for part in parts if (machine / part).exists()]
    return left + ["user"] * ("inkwell" in (machine / "etc/passwd").read_text())


def test_removing_another_prefix_leaves_the_service_alone(machine: Path) -> None:
    before = of_the_service(machine)
    command = ("/deploy/uninstall.sh", "--prefix", "/srv/second")
    refused = on(machine, *command, "--purge")
    assert refused.returncode == 1 and "does not belong to it" in refused.stderr
    assert (machine / "srv/second/current").exists()
    assert on(machine, *command).returncode == 0
    assert not (machine / "srv/second").exists()
    assert of_the_service(machine) == before


def test_purging_a_prefix_that_holds_its_own_data_leaves_the_service_alone(machine: Path) -> None:
    before = of_the_service(machine)
    for folder in ("etc", "data"):
        (machine / "srv/second" / folder).mkdir()
    ended = on(machine, "/deploy/uninstall.sh", "--prefix", "srv//second/", "--purge")
    assert ended.returncode == 0 and not (machine / "srv/second").exists(), ended.stderr
    assert of_the_service(machine) == before


@pytest.mark.parametrize("purge", [False, True])
def test_the_prefix_of_the_service_takes_the_service_along(machine: Path, purge: bool) -> None:
    flags = ["--purge"] if purge else []
    ended = on(machine, "/deploy/uninstall.sh", "--prefix", "/opt/inkwell/", *flags)
    assert ended.returncode == 0, ended.stderr
    kept = [f"{UNIT}.d", *MADE, "user"]
    assert of_the_service(machine) == ([] if purge else kept)
    assert ("kept: /etc/inkwell /var/lib/inkwell" in ended.stdout) is not purge
    folders = [(machine / folder).exists() for folder in ("etc/inkwell", "var/lib/inkwell")]
    assert folders == [not purge] * 2


def test_the_script_of_another_prefix_leaves_the_service_alone(machine: Path) -> None:
    before = of_the_service(machine)
    for folder in ("etc", "data"):
        (machine / "srv/second" / folder).mkdir()
    shutil.copy(DEPLOY / "uninstall.sh", machine / "srv/second/releases/1")
    ended = on(machine, "/srv/second/current/uninstall.sh", "--purge")
    assert ended.returncode == 0 and not (machine / "srv/second").exists(), ended.stderr
    assert of_the_service(machine) == before


def test_a_user_of_the_same_name_whom_the_installer_did_not_make_stays(machine: Path) -> None:
    passwd = machine / "etc/passwd"
    passwd.write_text(passwd.read_text().replace(":/var/lib/inkwell:", ":/home/inkwell:"))
    ended = on(machine, "/deploy/uninstall.sh", "--purge")
    assert ended.returncode == 0 and of_the_service(machine) == ["user"], ended.stderr


def test_files_of_others_beside_settings_and_data_of_the_service_stay(machine: Path) -> None:
    for folder in ("etc/inkwell", "var/lib/inkwell", f"{UNIT}.d"):
        (machine / folder / "mine.conf").touch()
    ended = on(machine, "/deploy/uninstall.sh", "--purge")
    assert ended.returncode == 0, ended.stderr
    left = [path.name for path in machine.rglob("mine.conf")]
    assert len(left) == 3 and of_the_service(machine) == [f"{UNIT}.d"]


def test_a_second_prefix_does_not_take_the_service_over(machine: Path) -> None:
    before = of_the_service(machine)
    (machine / "bundle").mkdir()
    bundle_at(machine / "bundle")
    refused = on(machine, "/bundle/install.sh", "--prefix", "/srv/third")
    assert refused.returncode == 1
    assert "belongs to /opt/inkwell, not to /srv/third; give --no-service" in refused.stderr
    assert of_the_service(machine) == before and not (machine / "srv/third").exists()
