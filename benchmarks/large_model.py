"""How much memory and time do the export and the longest text of a model of bge-m3's shape take?

    python -m benchmarks.large_model FOLDER [--layers 24] [EXPORT OPTIONS]

The weights are random: cost depends on the shape, agreement with float32 means nothing. The checkpoint
and the artifact stay in FOLDER (5 GB). Each step runs in a process of its own, so that its peak of resident
memory is its own; a mapped file counts while it is in use. One JSON line a step.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.models.checkpoint import write_checkpoint
from benchmarks.models.published import BY_NAME
from benchmarks.steps import run_module
from server.inference.model import Model
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    arguments, options = parser.parse_known_args()
    if arguments.folder == Path("serve"):
        _serve(Path(options[0]))
        return
    checkpoint, artifact = arguments.folder / "checkpoint", arguments.folder / "onnx"
    if not (checkpoint / "1_Pooling").exists():
        shape = BY_NAME["bge-m3"]
        layers = {"num_hidden_layers": arguments.layers}
        write_checkpoint(checkpoint, replace(shape, config={**shape.config, **layers}))
    exporting = ["export", str(checkpoint), f"--out={artifact}", "--min-agreement=-1,-1"]
    _run("export", [*exporting, "--force", *options])
    _run("serve", ["benchmarks.large_model", "serve", str(artifact)])


def _run(step: str, command: list[str]) -> None:
    """Run a module in a process of its own, and print what it took."""
    try:
        _, took = run_module(command)
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    line = {
        "case": f"large model, {step}",
        "peak_mb": took.peak_mb,
        "seconds": took.seconds,
        "cpu_seconds": took.cpu_s,
    }
    print(json.dumps(line), flush=True)


def _serve(artifact: Path) -> None:
    """Open an artifact as the server does, with a thread for every core, and compute its longest text."""
    model = Model(artifact, wide_threads=cpu_budget())
    ids = np.random.default_rng(0).integers(5, 1000, model.manifest.text.max_tokens)
    assert np.isfinite((model.wide or model.encoder).encode([ids])).all()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
