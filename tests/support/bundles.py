"""Bundles for tests: files that install.sh reads, with or without packages."""

import ensurepip
import hashlib
import platform
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

from deploy.archive import write_sums

DEPLOY = Path(__file__).parents[2] / "deploy"
# The first line of an installation's mark.
MARKED = "inkwell installation 1"
HERE = {
    "version": "0.1.0",
    "python_wanted": f"{sys.version_info.major}.{sys.version_info.minor}",
    "machine": platform.machine(),
    "glibc_minor": "17",
    "model": "toy",
}


def bundle_at(folder: Path, **target: str) -> None:
    """Make a bundle with the files that install.sh reads before it installs, without packages."""
    stated = {**HERE, **target}
    shutil.copy(DEPLOY / "install.sh", folder)
    (folder / "models" / stated["model"]).mkdir(parents=True, exist_ok=True)
    lines = [f"{name}={value}\n" for name, value in stated.items()]
    (folder / "target").write_text("".join(lines))
    write_sums(folder)


def whole_bundle_at(folder: Path, artifact: Path, model: str) -> None:
    """Make a bundle that installs: pip, and in place of the packages a path to those of this test."""
    for name in ("wheels", "licences"):
        (folder / name).mkdir(parents=True)
    pip = Path(ensurepip.__file__).parent / "_bundled"
    shutil.copy(next(pip.glob("pip-*.whl")), folder / "wheels")
    wheel = folder / "wheels" / "inkwell_embeddings-0.1.0-py3-none-any.whl"
    about = "inkwell_embeddings-0.1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("inkwell.pth", f"{sysconfig.get_path('purelib')}\n{DEPLOY.parent}\n")
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: inkwell-embeddings\nVersion: 0.1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "requirements.txt").write_text(f"inkwell-embeddings==0.1.0 --hash=sha256:{digest}\n")
    for name in ("README.md", "uninstall.sh", "inkwell.service", "inkwell.toml", "nginx.conf"):
        shutil.copy(DEPLOY / name, folder)
    for name in ("LICENSE", "licences/LICENCES.txt", "sbom.cdx.json"):
        (folder / name).write_text("{}")
    shutil.copytree(artifact, folder / "models" / model)
    bundle_at(folder, model=model)
