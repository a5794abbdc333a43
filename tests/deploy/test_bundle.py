"""The content of a bundle: the right packages, licences, the bill of materials, the same bytes twice."""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from deploy import bundle
from deploy.archive import SUMS, pack, write_sums
from deploy.errors import BundleError
from deploy.lock import Target, needed
from deploy.sbom import bill
from deploy.wheels import Wheel, licence_of, read_wheel

ROOT = Path(__file__).parents[2]
NONE: Mapping[str, str] = {}
HERE = Target("3.11", "x86_64")
LOCK = """\
one==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
two==2.4 ; python_full_version < '3.12' \\
    --hash=sha256:cc
two==2.5 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
three==3.0 ; platform_machine == 'aarch64' and sys_platform != 'win32' \\
    --hash=sha256:ee
"""


def wheel_at(folder: Path, name: str, *fields: str, files: Mapping[str, str] = NONE) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *fields, ""])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        for file, text in files.items():
            archive.writestr(file, text)
    return path


# --- the lock -------------------------------------------------------------------------------------


def test_markers_are_judged_for_the_target_and_not_for_this_machine() -> None:
    assert needed(LOCK, Target("3.11", "x86_64")) == (
        "one==1.0 --hash=sha256:aa --hash=sha256:bb\ntwo==2.4 --hash=sha256:cc\n"
    )
    assert needed(LOCK, Target("3.13", "aarch64")) == (
        "one==1.0 --hash=sha256:aa --hash=sha256:bb\n"
        "two==2.5 --hash=sha256:dd\nthree==3.0 --hash=sha256:ee\n"
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", ["run.txt", "bundle.txt"])
def test_every_line_of_the_true_locks_has_a_hash(lock: str, machine: str) -> None:
    lines = needed((ROOT / "locks" / lock).read_text(), Target("3.12", machine)).splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.parametrize(("python", "machine"), [("2.7", "x86_64"), ("3.11", "riscv64")])
def test_a_target_without_wheels_is_refused_by_name(python: str, machine: str) -> None:
    with pytest.raises(BundleError, match=r"2\.7|riscv64") as caught:
        Target(python, machine)
    assert re.search("[一-鿿]", caught.value.chinese)


def test_newer_wheels_are_preferred_and_none_is_too_new() -> None:
    tags = HERE.platforms
    assert tags[0] == "manylinux_2_28_x86_64" and tags[-1] == "manylinux_2_5_x86_64"


# --- wheels ---------------------------------------------------------------------------------------


def test_a_wheel_tells_its_licence_its_text_and_what_it_needs_there(tmp_path: Path) -> None:
    read = read_wheel(
        wheel_at(
            tmp_path,
            "demo",
            "License-Expression: MIT OR Apache-2.0",
            "Requires-Dist: Typing_Extensions>=4",
            "Requires-Dist: colorama; sys_platform == 'win32'",
            "Requires-Dist: pytest; extra == 'dev'",
            files={
                "demo-1.0.dist-info/licenses/AUTHORS": "who",
                "demo/ThirdPartyNotices.txt": "others",
                "demo/licence.py": "code = 1",
            },
        ),
        HERE,
    )
    assert (read.licence, read.expression) == ("MIT OR Apache-2.0", True)
    assert read.needs == ("typing-extensions",)
    assert read.texts == {
        "demo-1.0.dist-info/licenses/AUTHORS": b"who",
        "demo/ThirdPartyNotices.txt": b"others",
    }


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License": "Apache 2.0"}, "Apache 2.0"),
        ({"License": "", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT License"),
        ({"License": "A\ntext", "Classifier": "License :: OSI Approved :: BSD"}, "BSD"),
        ({"License": "A\ntext", "Classifier": "License :: OSI Approved"}, "A"),
        ({"Classifier": "Typing :: Typed"}, ""),
    ],
)
def test_older_ways_to_name_a_licence_are_understood(fields: dict[str, str], licence: str) -> None:
    stated = Message()
    for name, value in fields.items():
        stated[name] = value
    assert licence_of(stated) == (licence, False)


def test_a_wheel_that_names_no_licence_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="demo-1.0-py3-none-any.whl names no licence"):
        read_wheel(wheel_at(tmp_path, "demo"), HERE)


def test_a_wheel_without_metadata_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "empty-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(BundleError, match="empty-1.0-py3-none-any.whl has no metadata"):
        read_wheel(path, HERE)


# --- the bill of materials ------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path) -> list[Wheel]:
    """This project, and two that it needs, of which one needs the other."""
    stated = {
        "inkwell-embeddings": ("License-Expression: MIT", "Requires-Dist: one"),
        "one": ("License: Apache 2.0", "Requires-Dist: two", "Requires-Dist: absent"),
        "two": ("License-Expression: BSD-3-Clause",),
    }
    return [read_wheel(wheel_at(tmp_path, name, *all_), HERE) for name, all_ in stated.items()]


def bill_of(wheels: list[Wheel], model: Path) -> dict[str, Any]:
    return bill(wheels[0], wheels[1:], model, 1_700_000_000)


def test_the_bill_names_every_package_the_model_and_who_needs_whom(
    wheels: list[Wheel], toy_artifact: Path
) -> None:
    stated = bill_of(wheels, toy_artifact)
    assert (stated["bomFormat"], stated["specVersion"]) == ("CycloneDX", "1.6")
    assert stated["metadata"]["component"]["name"] == "inkwell-embeddings"
    assert stated["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    one, two, model = stated["components"]
    assert one["licenses"] == [{"license": {"name": "Apache 2.0"}}]
    assert two["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert two["hashes"] == [{"alg": "SHA-256", "content": wheels[2].sha256}]
    assert (model["type"], model["name"]) == ("machine-learning-model", "toy")
    for file in model["components"]:
        digest = hashlib.sha256((toy_artifact / file["name"]).read_bytes()).hexdigest()
        assert file["hashes"] == [{"alg": "SHA-256", "content": digest}]
    needs = {each["ref"]: each["dependsOn"] for each in stated["dependencies"]}
    assert needs == {
        "pkg:pypi/inkwell-embeddings@1.0": ["pkg:pypi/one@1.0", model["bom-ref"]],
        "pkg:pypi/one@1.0": ["pkg:pypi/two@1.0"],
        "pkg:pypi/two@1.0": [],
    }


def test_the_bills_serial_number_tells_contents_apart(
    wheels: list[Wheel], toy_artifact: Path
) -> None:
    same, again = bill_of(wheels, toy_artifact), bill_of(wheels, toy_artifact)
    assert same == again
    other = bill_of([wheels[0], replace(wheels[1], sha256="0" * 64), wheels[2]], toy_artifact)
    assert other["serialNumber"] != same["serialNumber"]


# --- the archive ----------------------------------------------------------------------------------


def folder_of(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = place / "it" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return place / "it"


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(tmp_path: Path) -> None:
    files = {"b/c.txt": "二", "a.sh": "一", "a/d": "三"}
    first = folder_of(tmp_path / "1", files)
    second = folder_of(tmp_path / "2", dict(reversed(files.items())))
    (first / "a.sh").chmod(0o700)
    (second / "a.sh").chmod(0o755)
    for place in (first, second):
        write_sums(place)
        pack(place, place.parent / "it.tar.gz", 1_700_000_000)
    packed = [(place.parent / "it.tar.gz").read_bytes() for place in (first, second)]
    assert packed[0] == packed[1]
    with tarfile.open(first.parent / "it.tar.gz") as archive:
        modes = {entry.name: entry.mode for entry in archive if entry.isfile()}
    assert modes == {"it/a.sh": 0o755, "it/a/d": 0o644, "it/b/c.txt": 0o644, f"it/{SUMS}": 0o644}


def test_sums_are_what_sha256sum_checks_and_notice_one_changed_byte(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a": "一", "b/c": "二"})
    write_sums(folder)
    check = ["sha256sum", "--check", "--quiet", "--strict", SUMS]
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode == 0
    (folder / "b" / "c").write_text("三", encoding="utf-8")
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode == 1


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "words"), [("C.UTF-8", "it has no model.onnx"), ("zh_CN.UTF-8", "不是导出的模型")]
)
def test_a_folder_that_is_no_artifact_is_refused_in_the_language_of_the_locale(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    locale: str,
    words: str,
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    assert bundle.main(["--model", str(tmp_path), "--python", "3.11"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("name", ['a"b', "a\\b", "law=a", "a\nb", "a\x1bb"])
def test_a_name_that_the_settings_cannot_hold_is_refused(
    tmp_path: Path, toy_artifact: Path, name: str
) -> None:
    shutil.copytree(toy_artifact, tmp_path / name / "onnx")
    with pytest.raises(BundleError, match="rename it") as caught:
        bundle.make(HERE, tmp_path / name / "onnx", tmp_path / "out", 0)
    assert repr(name) in caught.value.english and re.search("[一-鿿]", caught.value.chinese)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_damaged_artifact_is_not_bundled(tmp_path: Path, toy_artifact: Path, name: str) -> None:
    model = tmp_path / "toy" / "onnx"
    shutil.copytree(toy_artifact, model)
    with (model / name).open("ab") as file:
        file.write(b"[" * 100_000)
    with pytest.raises(BundleError, match=f"cannot be bundled: .*{name}.* export the model again"):
        bundle.make(HERE, model, tmp_path / "out", 0)


def test_a_time_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(BundleError, match="SOURCE_DATE_EPOCH is 'today'"):
        bundle.commit_time()


def test_an_artifact_without_a_folder_of_its_own_is_refused() -> None:
    with pytest.raises(BundleError, match="a folder of its own"):
        bundle._check_name("")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", ""])
def test_a_manifest_adds_no_file_from_elsewhere(
    tmp_path: Path, toy_artifact: Path, name: str
) -> None:
    shutil.copytree(toy_artifact, tmp_path / "it")
    manifest = tmp_path / "it/manifest.json"
    stated = json.loads(manifest.read_text())
    assert len(bundle.artifact_files(tmp_path / "it")) == 3
    stated["files"][name] = next(iter(stated["files"].values()))
    manifest.write_text(json.dumps(stated))
    with pytest.raises(BundleError, match="not in its folder"):
        bundle.artifact_files(tmp_path / "it")


def test_what_installs_is_not_among_what_is_installed(wheels: list[Wheel]) -> None:
    listed = bundle.requirements([*wheels, replace(wheels[1], name="pip")])
    names = [line.partition("==")[0] for line in listed.splitlines()]
    assert names == ["inkwell-embeddings", "one", "two"]
    assert f"one==1.0 --hash=sha256:{wheels[1].sha256}" in listed


def test_licences_are_listed_and_their_texts_are_beside(
    wheels: list[Wheel], tmp_path: Path
) -> None:
    bundle.write_licences(tmp_path / "licences", [replace(wheels[1], texts={"x/LICENSE": b"all"})])
    table = (tmp_path / "licences" / "LICENCES.txt").read_text()
    assert table == "one 1.0: Apache 2.0\n"
    assert (tmp_path / "licences" / "one-1.0" / "x" / "LICENSE").read_bytes() == b"all"


def test_files_that_go_along_exist_and_scripts_among_them_can_be_run() -> None:
    for name in bundle.ALONG:
        path = ROOT / "deploy" / name
        assert path.is_file(), name
        assert (path.suffix == ".sh") == bool(path.stat().st_mode & 0o100), name
