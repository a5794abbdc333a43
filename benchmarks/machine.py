"""Result lines, and the facts in each: machine, versions, commit, texts and quantisation recipe."""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from server.inference.manifest import MANIFEST_FILE, parse_manifest
from server.inference.runtime import VERSION
from server.system.cpu import cpu_budget, cpu_features, int8_instruction_set

Line = dict[str, Any]
# Measured before the benchmark's own load.
LOAD_AVERAGE = os.getloadavg()[0]
# Options of the scripts that name a file or folder of texts, or of their vectors.
TEXT_OPTIONS = ("texts", "sts", "beir", "queries", "vectors")
# Those whose texts or vectors are generated if the option is not given.
GENERATED = ("texts", "queries", "vectors")
# How `git describe` marks a tree with uncommitted changes.
DIRTY = "-dirty"


def show(line: Line, arguments: argparse.Namespace, model: Path | None = None) -> None:
    """Print one result as one JSON line; arguments, model: as in `written`."""
    print(written(line, arguments, model), flush=True)


def written(line: Line, arguments: argparse.Namespace, model: Path | None = None) -> str:
    """Return one result as one JSON line.

    arguments: the script's options, which name texts and artifact. model: another artifact.
    """
    whole = {**line, "inputs": inputs(arguments, model), "machine": facts()}
    return json.dumps(whole, ensure_ascii=False)


def inputs(arguments: argparse.Namespace, model: Path | None = None) -> dict[str, str]:
    """Return which texts and which quantisation recipe a result is for, as far as it has any."""
    options = vars(arguments)
    found = {}
    for name in TEXT_OPTIONS:
        if options.get(name):
            found[name] = fingerprint(options[name])
        elif name in GENERATED and name in options:
            found[name] = "generated"
    if artifact := model or options.get("model"):
        found["recipe"] = recipe(artifact)
    return found


@cache
def fingerprint(path: Path) -> str:
    """Return the name of a file or folder and the start of the SHA-256 of its content."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return f"{path.resolve().name} {digest.hexdigest()[:12]}"


@cache
def recipe(artifact: Path) -> str:
    """Return how the artifact's numbers were made, as its manifest states it."""
    manifest = parse_manifest(artifact / MANIFEST_FILE)
    if manifest.quantization is None:
        return manifest.precision
    return f"{manifest.quantization.recipe}, {manifest.quantization.weight_bits} bits"


@cache
def facts() -> Line:
    """Return what describes this machine, its software and the commit that runs."""
    commit = _commit()
    if commit.endswith(DIRTY):
        sys.stderr.write("This tree has uncommitted changes: its lines are drafts, not results.\n")
    return {
        "cpu": _cpu_name(),
        "cores": cpu_budget(),
        "int8": int8_instruction_set(cpu_features()),
        "python": platform.python_version(),
        "onnxruntime": VERSION,
        "numpy": np.__version__,
        "commit": commit,
        "load_average": round(LOAD_AVERAGE, 2),
    }


def medians(rows: Sequence[Mapping[str, float]], keys: Sequence[str], digits: int) -> Line:
    """Return the median of each key over the rows."""
    return {key: round(median(row[key] for row in rows), digits) for key in keys}


def _cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", f"--dirty={DIRTY}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
