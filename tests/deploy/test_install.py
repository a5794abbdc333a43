"""What the installer refuses before it touches anything; what it does then, deploy/prove.py tries.

And what the container's files promise of each other.
"""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.archive import write_sums

DEPLOY = Path(__file__).parents[2] / "deploy"
HERE = {
    "version": "0.1.0",
    "python_wanted": f"{sys.version_info.major}.{sys.version_info.minor}",
    "machine": platform.machine(),
    "glibc_minor": "17",
    "model": "toy",
}
CHINESE = re.compile("[一-鿿]")


def refusal(folder: Path, *arguments: str, spoil: str = "", **target: str) -> str:
    """What install.sh of a bundle for `target` writes to standard error when it ends with status 1."""
    shutil.copy(DEPLOY / "install.sh", folder)
    lines = [f"{name}={value}\n" for name, value in {**HERE, **target}.items()]
    (folder / "target").write_text("".join(lines))
    write_sums(folder)
    with (folder / "target").open("a") as file:
        file.write(spoil)
    before = sorted(folder.iterdir())
    command = ["./install.sh", "--no-service", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended
    assert CHINESE.search(ended.stderr)
    assert sorted(folder.iterdir()) == before
    return ended.stderr


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


def test_a_flag_without_its_value_is_refused(tmp_path: Path) -> None:
    assert "--prefix needs a value" in refusal(tmp_path, "--prefix")


def test_uninstall_touches_no_folder_of_others(tmp_path: Path) -> None:
    command = [str(DEPLOY / "uninstall.sh"), "--prefix", str(tmp_path), "--purge"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and tmp_path.is_dir()
    assert "nothing is installed in" in ended.stderr and CHINESE.search(ended.stderr)


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


@pytest.mark.parametrize("name", ["inkwell.service", "inkwell.toml", "Dockerfile", "install.sh"])
def test_all_agree_where_things_are(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for place in ("/opt/inkwell", "/etc/inkwell", "/var/lib/inkwell"):
        assert place in text
