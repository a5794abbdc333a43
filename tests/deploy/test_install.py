"""The installer refuses some requests before it changes anything; deploy/prove.py tests the rest.

Also what the container's files state, and which command starts the server.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.bundles import DEPLOY, MARKED, bundle_at
from tests.support.processes import environment, serving

# A bundle for such a machine installs nothing here, even where a refusal that is tested does not come.
OTHER = "riscv64"
CHINESE = re.compile("[一-鿿]")


def refusal(
    folder: Path,
    *arguments: str,
    cwd: Path | None = None,
    spoil: str = "",
    fresh: bool = True,
    **target: str,
) -> str:
    """Return what install.sh writes to standard error when it refuses a bundle for `target`, in English."""
    if fresh:
        bundle_at(folder, **target)
    with (folder / "target").open("a") as file:
        file.write(spoil)
    before = sorted(folder.rglob("*"))
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
    assert sorted(folder.rglob("*")) == before
    assert "错误：" in said["zh_CN.UTF-8"] and "error: " not in said["zh_CN.UTF-8"]
    assert not CHINESE.search(said["C.UTF-8"])
    return said["C.UTF-8"]


def test_a_changed_file_is_noticed_first(tmp_path: Path) -> None:
    said = refusal(tmp_path, spoil="model=other\n", machine=OTHER)
    assert "files are damaged or missing" in said


def test_a_bundle_for_another_machine_is_refused_with_both_names(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--prefix", str(tmp_path / "it"), machine=OTHER)
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


@pytest.mark.parametrize("flag", ["--prefix", "--python"])
def test_a_variable_that_is_not_set_is_no_value(tmp_path: Path, flag: str) -> None:
    said = refusal(tmp_path, flag, "", machine=OTHER)
    assert f"{flag} needs a value, which is empty or missing" in said


@pytest.mark.parametrize(
    "prefix",
    [
        *("/", "/usr", "/usr/local", "/usr/local/lib", "/etc", "/opt", "/var/lib", "/home/it"),
        *("/etc/inkwell", "/var/lib/inkwell", "/var/lib/inkwell/it"),
    ],
)
def test_a_folder_of_the_system_is_no_prefix(tmp_path: Path, prefix: str) -> None:
    for spelled in (prefix, f"//{prefix}/x/.././"):
        said = refusal(tmp_path, "--prefix", spelled, machine=OTHER)
        assert "is a folder of the system or of a user" in said


def test_a_home_is_no_prefix_even_where_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, home = tmp_path / "bundle", tmp_path / "home"
    bundle.mkdir()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "link").symlink_to("home")
    for prefix in (home, tmp_path / "link"):
        said = refusal(bundle, "--prefix", str(prefix), machine=OTHER)
        assert (
            f"is a folder of the system or of a user; give a folder of its own, such as {prefix}"
            in said
        )


@pytest.mark.parametrize(
    "name", ["releases/1/app", "current", "data/db", "etc/app.toml", ".hidden"]
)
def test_a_prefix_with_files_of_others_is_refused(tmp_path: Path, name: str) -> None:
    prefix = tmp_path / "prefix"
    (prefix / name).parent.mkdir(parents=True)
    (prefix / name).write_text("mine")
    (tmp_path / "bundle").mkdir()
    said = refusal(tmp_path / "bundle", "--prefix", str(prefix))
    assert f"{prefix} is not empty, and this installer did not make it" in said
    (prefix / ".inkwell-install").write_text("another program\n")
    assert "this installer did not make it" in refusal(tmp_path / "bundle", "--prefix", str(prefix))


def test_a_mark_that_was_never_finished_is_no_file_of_others(tmp_path: Path) -> None:
    prefix, bundle = tmp_path / "prefix", tmp_path / "bundle"
    prefix.mkdir()
    bundle.mkdir()
    (prefix / ".inkwell-install.new").touch()
    assert "for riscv64" in refusal(bundle, "--prefix", str(prefix), machine=OTHER)


def marked(prefix: Path) -> Path:
    """Make an installation that got no further than its mark."""
    prefix.mkdir()
    (prefix / ".inkwell-install").write_text(f"{MARKED}\n")
    return prefix


@pytest.mark.parametrize("name", ["etc/inkwell.toml", "etc/keys.jsonl", "etc", "data", "releases"])
def test_a_link_to_nothing_is_not_followed(tmp_path: Path, name: str) -> None:
    prefix = marked(tmp_path / "prefix")
    (prefix / name).parent.mkdir(exist_ok=True)
    (prefix / name).symlink_to(tmp_path / "planted")
    (tmp_path / "bundle").mkdir()
    said = refusal(tmp_path / "bundle", "--prefix", str(prefix))
    assert f"{prefix}/{name} is a link to a file or folder that does not exist" in said
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("kind", ["file", "hidden", "folder", "link", "line feed"])
def test_what_the_checksums_do_not_list_is_refused(tmp_path: Path, kind: str) -> None:
    bundle_at(tmp_path, machine=OTHER)
    if kind == "link":
        (tmp_path / "more").symlink_to("target")
    elif kind == "folder":
        (tmp_path / "wheels").mkdir()
        (tmp_path / "wheels/pip-99-py3-none-any.whl").touch()
    else:
        (tmp_path / {"file": "platform.py", "hidden": ".x", "line feed": "a\nb"}[kind]).touch()
    assert "SHA256SUMS does not list ./" in refusal(tmp_path, fresh=False)


@pytest.mark.parametrize("name", ["target", "install.sh"])
def test_a_file_that_the_checksums_leave_out_is_refused(tmp_path: Path, name: str) -> None:
    bundle_at(tmp_path, machine=OTHER)
    sums = tmp_path / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if not line.endswith(f"  {name}\n")))
    assert f"SHA256SUMS does not list ./{name};" in refusal(tmp_path, fresh=False)


def test_nothing_in_the_bundle_is_run_as_shell(tmp_path: Path) -> None:
    for model in ("x;touch planted", "$(touch planted)", "`touch planted`", "my model", "法律|&"):
        folder = tmp_path / model
        folder.mkdir()
        said = refusal(folder, "--prefix", str(tmp_path / "it"), machine=OTHER, model=model)
        assert "for riscv64" in said
    wrong = (("glibc_minor", "1);import os;os.abort("), ("version", "../x"), ("model", ".."))
    for name, value in wrong:
        folder = tmp_path / "my model"
        bundle_at(folder, **{name: value})
        said = refusal(folder, "--prefix", str(tmp_path / "it"), fresh=False)
        assert "target does not describe this bundle" in said
    assert not list(tmp_path.rglob("planted"))


def test_the_callers_settings_of_python_do_not_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    for module in ("sitecustomize", "platform"):
        (tmp_path / f"mine/{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    monkeypatch.setenv("PYTHONHOME", "/nonsense")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    arguments = ("--prefix", str(tmp_path / "it"), "--python", os.path.realpath(sys.executable))
    assert "glibc 2.999 or newer" in refusal(bundle, *arguments, glibc_minor="999")
    assert not (tmp_path / "ran").exists()


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
