"""The target machine of a bundle, and the lines of a lock file for it. Downloads nothing."""

import re
from dataclasses import dataclass

from packaging.requirements import Requirement

from deploy.errors import BundleError

# The oldest C library on which every locked wheel runs (onnxruntime 1.32 and faiss-cpu 1.15 require it,
# 2026-11-25): Debian 11, Ubuntu 20.04, RHEL 8 and openEuler 20.03 or newer.
GLIBC_MINOR = 28
# The first version of the C library in the tags of wheels for each machine.
FIRST_MINOR = {"x86_64": 5, "aarch64": 17}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True, slots=True)
class Target:
    """A Python version such as 3.11, and a machine as `uname -m` prints it."""

    python: str
    machine: str

    def __post_init__(self) -> None:
        if self.python not in PYTHONS:
            raise BundleError(
                "Python {python} is not one of {known}", python=self.python, known=PYTHONS
            )
        if self.machine not in FIRST_MINOR:
            raise BundleError(
                "machine {machine} is not one of {known}",
                machine=self.machine,
                known=tuple(FIRST_MINOR),
            )

    @property
    def abi(self) -> str:
        return "cp" + self.python.replace(".", "")

    @property
    def platforms(self) -> list[str]:
        """Tags of the wheels that run on the target, newest first."""
        minors = range(GLIBC_MINOR, FIRST_MINOR[self.machine] - 1, -1)
        return [f"manylinux_2_{minor}_{self.machine}" for minor in minors]

    @property
    def markers(self) -> dict[str, str]:
        """The environment of the target, not of this machine, for the markers of requirements."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
            "extra": "",
        }


def needed(lock: str, target: Target) -> str:
    """Return the lines of a lock file for the target, without markers: name==version and hashes.

    pip itself would evaluate the markers for the machine that it runs on.
    """
    kept = []
    for entry in re.sub(r"\\\n", " ", lock).splitlines():
        stated, *hashes = entry.split(" --hash=")
        if not stated.strip():
            continue
        wanted = Requirement(stated.strip())
        if wanted.marker is None or wanted.marker.evaluate(target.markers):
            pinned = [
                f"{wanted.name}{wanted.specifier}",
                *(f"--hash={each.strip()}" for each in hashes),
            ]
            kept.append(" ".join(pinned) + "\n")
    return "".join(kept)
