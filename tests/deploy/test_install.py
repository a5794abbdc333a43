"""The installer refuses some requests before it changes anything; deploy/prove.py tests the rest.

Also what the container's files state, and which command starts the server.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.archive import write_sums
from tests.support.processes import environment, serving

DEPLOY = Path(__file__).parents[2] / "deploy"
HERE = {
    "version": "0.1.0",
    "python_wanted": f"{sys.version_info.major}.{sys.version_info.minor}",
    "machine": platform.machine(),
    "glibc_minor": "17",
    "model": "toy",
}
CHINESE = re.compile("[一-鿿]")
UNIT = Path("etc/systemd/system/inkwell.service")


def bundle_at(folder: Path, **target: str) -> None:
    """Make a bundle with the files that install.sh reads before it installs, without packages."""
    shutil.copy(DEPLOY / "install.sh", folder)
    lines = [f"{name}={value}\n" for name, value in {**HERE, **target}.items()]
    (folder / "target").write_text("".join(lines))
    write_sums(folder)


def refusal(
    folder: Path, *arguments: str, cwd: Path | None = None, spoil: str = "", **target: str
) -> str:
    """Return what install.sh writes to standard error when it refuses a bundle for `target`, in English."""
    bundle_at(folder, **target)
    with (folder / "target").open("a") as file:
        file.write(spoil)
    before = sorted(folder.iterdir())
    command = [str(folder / "install.sh"), "--no-service", *arguments]
    said = {}
    for language in ("zh_CN.UTF-8", "C.UTF-8"):
        ended = subprocess.run(
            command,
            cwd=cwd or folder,
            env=environment(LC_ALL=language),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1, ended
        said[language] = ended.stderr
    assert sorted(folder.iterdir()) == before
    assert "错误：" in said["zh_CN.UTF-8"] and "error: " not in said["zh_CN.UTF-8"]
    assert not CHINESE.search(said["C.UTF-8"])
    return said["C.UTF-8"]


def test_a_changed_file_is_noticed_first(tmp_path: Path) -> None:
    said = refusal(tmp_path, spoil="model=other\n", machine="other")
    assert "files are damaged or missing" in said


def test_a_bundle_for_another_machine_is_refused_with_both_names(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--prefix", str(tmp_path / "it"), machine="riscv64")
    assert f"for riscv64, and this machine is {platform.machine()}" in said


def test_a_bundle_for_another_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--prefix", str(tmp_path / "it"), python_wanted="3.99")
    assert "needs Python 3.99; give it with --python FILE" in said


def test_a_python_that_is_named_must_fit_and_exist(tmp_path: Path) -> None:
    prefix = ("--prefix", str(tmp_path / "it"))
    assert "needs Python" in refusal(tmp_path, *prefix, "--python", str(tmp_path / "none"))


def test_an_older_c_library_is_refused(tmp_path: Path) -> None:
    arguments = ("--prefix", str(tmp_path / "it"), "--python", sys.executable)
    assert "glibc 2.999 or newer" in refusal(tmp_path, *arguments, glibc_minor="999")


def test_a_prefix_that_could_break_the_scripts_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--prefix", str(tmp_path / "a b"))
    assert "has characters besides" in said


def test_relative_paths_start_in_the_callers_folder_and_not_in_the_bundle(tmp_path: Path) -> None:
    bundle, here = tmp_path / "bundle", tmp_path / "here"
    bundle.mkdir()
    here.mkdir()
    said = refusal(bundle, "--prefix", "a b/", cwd=here)
    assert f"prefix {here}/a b has characters besides" in said
    (here / "mine").symlink_to(sys.executable)
    arguments = ("--prefix", "it", "--python", "./mine")
    assert "glibc 2.999 or newer" in refusal(bundle, *arguments, cwd=here, glibc_minor="999")


def test_a_flag_without_its_value_is_refused(tmp_path: Path) -> None:
    assert "--prefix needs a value" in refusal(tmp_path, "--prefix")


def test_uninstall_touches_no_folder_of_others(tmp_path: Path) -> None:
    command = [str(DEPLOY / "uninstall.sh"), "--prefix", str(tmp_path), "--purge"]
    for language, expected in (("C", "nothing is installed in"), ("zh_CN.UTF-8", "没有安装")):
        ended = subprocess.run(
            command, env=environment(LC_ALL=language), capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1 and tmp_path.is_dir()
        assert expected in ended.stderr


# --- two installations on one machine, of which the second is not the service's --------------------


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a root folder with the service's installation in /opt/inkwell, and another in /srv/second."""
    root = tmp_path / "root"
    for prefix in ("opt/inkwell", "srv/second"):
        (root / prefix / "releases/1").mkdir(parents=True)
        (root / prefix / "current").symlink_to("releases/1")
    (root / UNIT).parent.mkdir(parents=True)
    shutil.copy(DEPLOY / "inkwell.service", root / UNIT)
    (root / f"{UNIT}.d").mkdir()
    for folder in ("etc/inkwell", "var/lib/inkwell"):
        (root / folder).mkdir(parents=True)
        (root / folder / "mine").touch()
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
    parts = ["opt/inkwell/current", str(UNIT), f"{UNIT}.d", "etc/inkwell/mine"]
    left = [part for part in [*parts, "var/lib/inkwell/mine"] if (machine / part).exists()]
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
    kept = [f"{UNIT}.d", "etc/inkwell/mine", "var/lib/inkwell/mine", "user"]
    assert of_the_service(machine) == ([] if purge else kept)
    assert ("kept: /etc/inkwell /var/lib/inkwell" in ended.stdout) is not purge


def test_a_second_prefix_does_not_take_the_service_over(machine: Path) -> None:
    before = of_the_service(machine)
    (machine / "bundle").mkdir()
    bundle_at(machine / "bundle")
    refused = on(machine, "/bundle/install.sh", "--prefix", "/srv/third")
    assert refused.returncode == 1
    assert "belongs to /opt/inkwell, not to /srv/third; give --no-service" in refused.stderr
    assert of_the_service(machine) == before and not (machine / "srv/third").exists()


# --- the container --------------------------------------------------------------------------------


def test_the_container_may_write_its_data_and_nothing_else() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    stated = service["inkwell"]
    assert stated["read_only"] is True
    assert stated["cap_drop"] == ["ALL"]
    assert stated["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "cpus"} <= stated.keys()
    volume = re.findall(r"^VOLUME (\S+)$", dockerfile, re.M)
    assert stated["volumes"] == [f"data:{volume[0]}"]
    assert stated["ports"] == ["127.0.0.1:8000:8000"] and "\nEXPOSE 8000\n" in dockerfile
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", dockerfile, re.M)


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_health_check_needs_no_address_and_asks_no_proxy(
    encrypted: bool, toy_artifact: Path, certificate: Path, tmp_path: Path
) -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    python, *arguments = json.loads(
        re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.M)[0]
    )
    assert python == "/opt/inkwell/current/bin/python"
    assert "INKWELL_UNIX_SOCKET=/tmp/inkwell.sock" in dockerfile
    unused = "http://127.0.0.1:9"
    variables = environment(
        INKWELL_UNIX_SOCKET=str(tmp_path / "it.sock"), HTTP_PROXY=unused, http_proxy=unused
    )

    def check() -> int:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=variables, capture_output=True, timeout=60).returncode

    tls = ("--tls-cert", f"{certificate}.crt", "--tls-key", f"{certificate}.key")
    with serving(toy_artifact, tmp_path, *(tls if encrypted else ()), environ=variables):
        assert check() == 0
    assert check() != 0


@pytest.mark.parametrize("name", ["inkwell.service", "Dockerfile", "install.sh", "inside.py"])
def test_the_server_is_started_with_a_safe_path(name: str) -> None:
    """A module in the working directory, which the server may write to, is never imported."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    started = re.findall(r"(\S+) \"?-m\"?,? \"?server\b", text)
    assert started and {each.strip('",') for each in started} == {"-P"}


@pytest.mark.parametrize("name", ["inkwell.service", "inkwell.toml", "Dockerfile", "install.sh"])
def test_all_agree_where_things_are(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for place in ("/opt/inkwell", "/etc/inkwell", "/var/lib/inkwell"):
        assert place in text
