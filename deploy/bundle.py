"""Command line: python -m deploy.bundle --model ARTIFACT [--python 3.11] [--machine aarch64] [--out DIR]

Makes one archive to install a machine without a network from. Packages are downloaded as the locks state
them, with their hashes; nothing is compiled. install.sh describes how the archive is installed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.archive import pack, write_sums
from deploy.errors import BundleError
from deploy.lock import GLIBC_MINOR, Target, needed
from deploy.sbom import bill
from deploy.wheels import Wheel, read_wheel
from server import VERSION
from server.errors import BadArtifact
from server.inference.kernels.sources import LIBRARY
from server.inference.manifest import read_manifest
from server.messages.terminal import Terminal

ROOT = Path(__file__).parents[1]
# What the wheel of this project is built from.
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "server", "export")
# What a bundle takes from this folder; the rest makes and tests bundles.
ALONG = (
    "README.md",
    "install.sh",
    "uninstall.sh",
    "inkwell.service",
    "inkwell.toml",
    "nginx.conf",
    "Dockerfile",
    "compose.yaml",
)
OWN = "inkwell-embeddings"
# The files that every artifact has, and those beside it that state its origin.
ARTIFACT = ("model.onnx", "tokenizer.json", "manifest.json")
ORIGIN = ("PROVENANCE.md", "LICENSE", "LICENSE.txt", "README.md")
# 1980, the earliest time in zip files: for a copy without a git repository.
NO_COMMIT = 315532800


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one bundle and return the exit status."""
    terminal = Terminal.of(os.environ)
    given = _parser(terminal).parse_args(arguments)
    try:
        made = make(Target(given.python, given.machine), given.model, given.out, commit_time())
    except BundleError as error:
        terminal.inform("error: {error}", error=error)
        return 1
    terminal.out.write(f"{made} {made.stat().st_size / 1e6:.1f} MB\n")
    return 0


def make(target: Target, model: Path, out: Path, epoch: int) -> Path:
    """Write the bundle into the folder `out` and return its path; raises BundleError.

    epoch: seconds, the time of everything in it. The same input gives the same bytes.
    """
    missing = [name for name in ARTIFACT if not (model / name).is_file()]
    if missing:
        raise BundleError(
            "{model} is not an artifact: it has no {missing}; run `make export` first",
            model=model,
            missing=missing[0],
        )
    try:
        read_manifest(model)
    except BadArtifact as error:
        raise BundleError("{model} cannot be bundled: {error}", model=model, error=error) from None
    _check_name(model.resolve().parent.name)
    name = f"inkwell-{VERSION}-{target.abi}-{target.machine}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inkwell-bundle-") as scratch:
        folder, tools = Path(scratch) / name, Path(scratch) / "tools"
        wheels = folder / "wheels"
        _download("bundle.txt", tools, target)
        _download("run.txt", wheels, target)
        _build(wheels, tools, Path(scratch), target, epoch)
        # pip is included, so that the Python of the machine does not need it.
        shutil.copy(next(tools.glob("pip-*.whl")), wheels)
        _fill(folder, model.resolve(), target, epoch)
        write_sums(folder)
        made = out / f"{name}.tar.gz"
        pack(folder, made, epoch)
    return made


def _check_name(name: str) -> None:
    """Refuse a name of a model's folder that a line of a file or the settings cannot hold.

    The settings read NAME=FOLDER. Everything else, such as blanks, $ and ;, is allowed.
    """
    if not name:
        raise BundleError("the model needs a folder of its own: an artifact in / has no name")
    if not name.isprintable() or set(name) & set('"\\='):
        raise BundleError(
            "the folder of the model is named {name!r}; a bundle cannot hold a name with a quote, a "
            "backslash, = or control characters: rename it",
            name=name,
        )


def commit_time() -> int:
    """Return SOURCE_DATE_EPOCH or the time of this commit, in seconds."""
    if stated := os.environ.get("SOURCE_DATE_EPOCH"):
        try:
            return int(stated)
        except ValueError:
            raise BundleError(
                "SOURCE_DATE_EPOCH is {stated!r}, not a number of seconds", stated=stated
            ) from None
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(command, capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return NO_COMMIT


def _download(lock: str, into: Path, target: Target) -> None:
    """Download the wheels that a lock names for the target."""
    into.mkdir(parents=True)
    wanted = into / "wanted.txt"
    wanted.write_text(needed((ROOT / "locks" / lock).read_text(encoding="utf-8"), target))
    tags = [flag for tag in target.platforms for flag in ("--platform", tag)]
    abis = [flag for abi in (target.abi, "abi3", "none") for flag in ("--abi", abi)]
    _pip(
        "download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(into),
        "--implementation", "cp", "--python-version", target.python, *abis, *tags, "-r", str(wanted),
    )  # fmt: skip
    wanted.unlink()


def _build(wheels: Path, tools: Path, scratch: Path, target: Target, epoch: int) -> None:
    """Build the wheel of this project, from a copy: a build leaves files beside the source."""
    source, backend = scratch / "source", scratch / "backend"
    source.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            # Kernels that were compiled here are of no use on another machine.
            others = () if target.machine == platform.machine() else (LIBRARY.name,)
            skip = shutil.ignore_patterns("__pycache__", *others)
            shutil.copytree(ROOT / name, source / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, source)
    alone = ("--no-index", "--no-deps", "--find-links", str(tools))
    _pip("install", *alone, "--target", str(backend), "setuptools")
    environ = {"PYTHONPATH": str(backend), "SOURCE_DATE_EPOCH": str(max(epoch, NO_COMMIT))}
    built = ("--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    _pip("wheel", *alone, *built, **environ)


def _pip(*arguments: str, **environ: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, env=os.environ | environ).returncode:
        raise BundleError("pip {command} failed; the lines above say why", command=arguments[0])


def artifact_files(model: Path) -> list[Path]:
    """Return every file of an artifact: a large model has one more, which its manifest lists."""
    listed = json.loads((model / "manifest.json").read_text(encoding="utf-8"))["files"]
    for name in listed:
        if not name or Path(name).name != name:
            raise BundleError(
                "{model} lists the file {name!r}, which is not in its folder; run `make export` again",
                model=model,
                name=name,
            )
    return [model / name for name in dict.fromkeys((*ARTIFACT, *listed))]


def _fill(folder: Path, model: Path, target: Target, epoch: int) -> None:
    """Write everything but the wheels into the bundle."""
    for name in ALONG:
        shutil.copy(ROOT / "deploy" / name, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    kept = folder / "models" / model.parent.name
    kept.mkdir(parents=True)
    for path in (*artifact_files(model), *(model.parent / name for name in ORIGIN)):
        if path.is_file():
            shutil.copy(path, kept)
    own, *others = wheels_in(folder / "wheels", target)
    (folder / "requirements.txt").write_text(requirements([own, *others]), encoding="utf-8")
    # install.sh reads these lines and runs none of them.
    (folder / "target").write_text(
        f"version={VERSION}\npython_wanted={target.python}\nmachine={target.machine}\n"
        f"glibc_minor={GLIBC_MINOR}\nmodel={kept.name}\n",
        encoding="utf-8",
    )
    stated = json.dumps(bill(own, others, kept, epoch), ensure_ascii=False, indent=1)
    (folder / "sbom.cdx.json").write_text(stated + "\n", encoding="utf-8")
    write_licences(folder / "licences", [own, *others])


def wheels_in(folder: Path, target: Target) -> list[Wheel]:
    """Return the wheels of a folder: that of this project first, the others by name."""
    read = (read_wheel(path, target) for path in folder.glob("*.whl"))
    return sorted(read, key=lambda wheel: (wheel.name != OWN, wheel.name))


def requirements(wheels: Sequence[Wheel]) -> str:
    """Return the lines of requirements.txt: every package but pip, each with its only valid hash."""
    return "".join(
        f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n"
        for each in wheels
        if each.name != "pip"
    )


def write_licences(folder: Path, wheels: Sequence[Wheel]) -> None:
    """Write a table of all licences, and the licence texts of each wheel."""
    table = [f"{each.name} {each.version}: {each.licence}\n" for each in wheels]
    folder.mkdir()
    (folder / "LICENCES.txt").write_text("".join(sorted(table)), encoding="utf-8")
    for wheel in wheels:
        for name, text in wheel.texts.items():
            path = folder / f"{wheel.name}-{wheel.version}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


def _parser(terminal: Terminal) -> argparse.ArgumentParser:
    words = terminal.words
    parser = terminal.parser(
        "python -m deploy.bundle", words("Make an archive that installs without a network.")
    )
    version, machine = ".".join(platform.python_version_tuple()[:2]), platform.machine()
    add = parser.add_argument
    add("--model", type=Path, required=True, help=words("artifact folder made by export"))
    add(
        "--python",
        default=version,
        metavar="X.Y",
        help=words("Python of the machine (default: {version})", version=version),
    )
    add(
        "--machine",
        default=machine,
        help=words("x86_64 or aarch64 (default: {machine})", machine=machine),
    )
    add("--out", type=Path, default=Path("build"), help=words("output folder (default: build)"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
