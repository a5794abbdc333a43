"""Result lines, and the facts that each carries: machine, versions, commit."""

import json
import os
import platform
import subprocess
from functools import cache
from typing import Any

import numpy as np

from server.inference.runtime import VERSION
from server.system.cpu import cpu_budget, cpu_features, int8_instruction_set

# Of the time before the benchmark's own load.
LOAD_AVERAGE = os.getloadavg()[0]


def show(line: dict[str, Any]) -> None:
    """Print one result as one JSON line."""
    print(json.dumps({**line, "machine": facts()}, ensure_ascii=False), flush=True)


@cache
def facts() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": cpu_budget(),
        "int8": int8_instruction_set(cpu_features()),
        "python": platform.python_version(),
        "onnxruntime": VERSION,
        "numpy": np.__version__,
        "commit": _commit(),
        "load_average": round(LOAD_AVERAGE, 2),
    }


def _cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"
