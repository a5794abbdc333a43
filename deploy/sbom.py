"""The bill of materials: a CycloneDX 1.6 document of a bundle's contents, as plain data.

The same contents give the same document: its time and serial number are derived from them.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.wheels import Wheel


def bill(own: Wheel, wheels: Sequence[Wheel], model: Path, epoch: int) -> dict[str, Any]:
    """Return the document. own: this project, which needs the others. model: an artifact's folder. epoch: seconds."""
    parts = [*map(_package, wheels), _model(model)]
    here = {wheel.name: wheel.purl for wheel in wheels}
    graph = [_needs(wheel, here) for wheel in (own, *wheels)]
    graph[0]["dependsOn"].append(parts[-1]["bom-ref"])
    known = json.dumps([own.sha256, parts, graph], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(hashlib.sha256(known.encode()).hexdigest()[:32])}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": _package(own) | {"type": "application"},
        },
        "components": parts,
        "dependencies": graph,
    }


def _package(wheel: Wheel) -> dict[str, Any]:
    licence = {"expression": wheel.licence} if wheel.expression else _named(wheel.licence)
    return {
        "type": "library",
        "bom-ref": wheel.purl,
        "name": wheel.name,
        "version": wheel.version,
        "description": wheel.summary,
        "licenses": [licence],
        "purl": wheel.purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }


def _named(licence: str) -> dict[str, Any]:
    return {"license": {"name": licence}}


def _needs(wheel: Wheel, here: dict[str, str]) -> dict[str, Any]:
    return {
        "ref": wheel.purl,
        "dependsOn": sorted(here[name] for name in wheel.needs if name in here),
    }


def _model(folder: Path) -> dict[str, Any]:
    """Return the component of an artifact. Its version is its vector space, its files those of the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    name, version = manifest["model_id"], manifest["fingerprint"]
    files = manifest["files"] | {"manifest.json": _sha256(folder / "manifest.json")}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{name}@{version}",
        "name": name,
        "version": version,
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{name}/{file}",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": sha256}],
            }
            for file, sha256 in sorted(files.items())
        ],
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
