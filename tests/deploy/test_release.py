"""install.sh from its start to its end: a release is installed, repaired, replaced and removed.

The server is the real one. Only its packages are those of the test's environment; deploy/prove.py installs
the packages too.
"""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.archive import write_sums
from tests.support.bundles import MARKED, whole_bundle_at
from tests.support.processes import environment

pytestmark = pytest.mark.slow

MODEL = "my model; touch planted"
Install = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bundle(tmp_path: Path, shipped_artifact: Path) -> Path:
    whole_bundle_at(tmp_path / "bundle", shipped_artifact, MODEL)
    return tmp_path / "bundle"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return a prefix whose name contains those of other places."""
    return tmp_path / "etc/inkwell/var/lib/inkwell/models/MODEL/the.prefix"


@pytest.fixture
def install(bundle: Path, prefix: Path) -> Install:
    def run(status: int = 0) -> "subprocess.CompletedProcess[str]":
        command = [
            "./install.sh",
            "--no-service",
            "--prefix",
            str(prefix),
            "--python",
            sys.executable,
        ]
        ended = subprocess.run(
            command, cwd=bundle, env=environment(), capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == status, ended.stderr
        return ended

    return run


def releases(prefix: Path) -> list[str]:
    return sorted(path.name for path in (prefix / "releases").iterdir())


def test_a_release_that_is_damaged_is_installed_again(install: Install, prefix: Path) -> None:
    install()
    (new,) = releases(prefix)
    folder = prefix / "releases" / new
    settings = tomllib.loads((prefix / "etc/inkwell.toml").read_text())
    assert settings["model"] == [f"{prefix}/current/models/{MODEL}"]
    assert settings["data"] == f"{prefix}/data"
    before = folder.stat().st_ino
    # What an interruption leaves.
    (prefix / "current.new").symlink_to("releases/none")
    install()
    assert folder.stat().st_ino == before, "a release that is whole was installed again"
    assert not (prefix / "current.new").is_symlink()
    whole = (folder / "complete").read_bytes()
    for name, harm in (
        ("LICENSE", lambda path: path.write_text("[]")),
        (f"models/{MODEL}/tokenizer.json", Path.unlink),
        ("bin/python", Path.unlink),
    ):
        harm(folder / name)
        assert "is damaged and is installed again" in install().stdout
        assert (folder / name).exists() and (folder / "complete").read_bytes() != b""
    assert len((folder / "complete").read_bytes().splitlines()) == len(whole.splitlines())
    assert releases(prefix) == [new]


def test_a_repair_that_fails_leaves_what_was_there(install: Install, prefix: Path) -> None:
    install()
    (new,) = releases(prefix)
    (prefix / "releases" / new / "LICENSE").write_text("[]")
    settings = prefix / "etc/inkwell.toml"
    settings.write_text(settings.read_text() + "nonsense = 1\n")
    assert "does not work, see above" in install(1).stderr
    assert releases(prefix) == [new]
    assert (prefix / "current/LICENSE").read_text() == "[]"


def test_an_upgrade_removes_only_releases_that_are_listed(
    install: Install, bundle: Path, prefix: Path
) -> None:
    install()
    (prefix / "releases/mine").mkdir()
    (first,) = set(releases(prefix)) - {"mine"}
    names = [first]
    for text in ("two", "three"):
        (bundle / "README.md").write_text(text)
        write_sums(bundle)
        install()
        (new,) = set(releases(prefix)) - {*names, "mine"}
        names.append(new)
    assert set(releases(prefix)) == {"mine", *names[1:]}
    mark = (prefix / ".inkwell-install").read_text().splitlines()
    assert mark[0] == MARKED and set(mark[1:]) == {f"releases/{name}" for name in names[1:]}
    (prefix / "releases/mine").rmdir()
    command = [str(prefix / "current/uninstall.sh"), "--prefix", str(prefix), "--purge"]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and not prefix.exists(), ended.stderr
    assert not list(bundle.parent.rglob("planted"))
