"""The metadata of wheels: name, version, dependencies, licence and its text."""

import hashlib
import re
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.errors import BundleError
from deploy.lock import Target

# Files with these names are licences anywhere in a wheel: some packages keep them beside the code.
LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|notice|third[-_ ]?party)", re.IGNORECASE)
CODE = {".py", ".pyi", ".pyc", ".so", ".h", ".json"}
CLASSIFIER = "License :: "


@dataclass(frozen=True, slots=True)
class Wheel:
    """The metadata of one wheel.

    needs: canonical names of the packages that it requires on the target. expression: whether the licence is
    an SPDX expression, or free text. texts: licence files by their path in the wheel.
    """

    file: str
    sha256: str
    name: str
    version: str
    summary: str
    licence: str
    expression: bool
    needs: tuple[str, ...]
    texts: dict[str, bytes]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def read_wheel(path: Path, target: Target) -> Wheel:
    """Return a wheel's metadata; raise BundleError where it has none or names no licence."""
    with zipfile.ZipFile(path) as archive:
        metadata = [name for name in archive.namelist() if _is_metadata(name)]
        if len(metadata) != 1:
            raise BundleError("{name} has no metadata", name=path.name)
        stated = Parser().parsestr(archive.read(metadata[0]).decode("utf-8"))
        texts = {name: archive.read(name) for name in archive.namelist() if _is_licence(name)}
    licence, expression = licence_of(stated)
    if not licence:
        raise BundleError("{name} names no licence", name=path.name)
    return Wheel(
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        name=canonicalize_name(stated["Name"]),
        version=stated["Version"],
        summary=stated.get("Summary", ""),
        licence=licence,
        expression=expression,
        needs=tuple(sorted(set(_needs(stated, target)))),
        texts=texts,
    )


def licence_of(stated: Message) -> tuple[str, bool]:
    """Return the licence, and whether it is an SPDX expression, from its own field, old fields or classifiers."""
    if expression := stated.get("License-Expression"):
        return expression, True
    # Some packages write the whole text into the old field. Its first line is then a title or empty.
    words = (stated.get("License") or "").strip().splitlines()
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in stated.get_all("Classifier", [])
        if each.startswith(CLASSIFIER) and not each.endswith("OSI Approved")
    ]
    if len(words) == 1 or (words and not classifiers):
        return words[0].strip(), False
    return ", ".join(classifiers), False


def _needs(stated: Message, target: Target) -> list[str]:
    wanted = map(Requirement, stated.get_all("Requires-Dist", []))
    return [
        canonicalize_name(each.name)
        for each in wanted
        if each.marker is None or each.marker.evaluate(target.markers)
    ]


def _is_metadata(name: str) -> bool:
    path = PurePosixPath(name)
    return len(path.parts) == 2 and name.endswith(".dist-info/METADATA")


def _is_licence(name: str) -> bool:
    if name.endswith("/"):
        return False
    path = PurePosixPath(name)
    named = LICENCE_FILE.match(path.name) is not None and path.suffix not in CODE
    return named or ".dist-info/licenses/" in name
