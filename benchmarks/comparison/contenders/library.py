"""A library as a function from texts to vectors, asked line by line without HTTP.

    VENV/bin/python benchmarks/comparison/contenders/library.py LIBRARY FOLDER THREADS

LIBRARY, with FOLDER:

    inkwell    this project's tokenizer, queue and lanes, one for each thread, with all texts in one
               job; an artifact; a lone text runs on the session that has all threads
    torch      sentence-transformers on PyTorch, float32; the checkpoint
    onnx       its ONNX backend, dynamic int8 for this CPU; the folder that int8.py wrote
    openvino   its OpenVINO backend, static int8, PERFORMANCE_HINT latency; the folder that int8.py wrote

Each line of the standard input is {"texts": [...], "batch_size": n, "times": n, "save": FILE.npy or
""}. The answer is a JSON list on a line: for every time the seconds from texts to vectors, and the CPU
seconds of all cores, which a busy neighbour changes less.
"""

import argparse
import json
import sys
import threading
import time

import offline  # noqa: F401  # isort: skip

import libraries
import numpy as np
from libraries import Encode


def inkwell(folder: str, threads: int) -> Encode:
    from pathlib import Path

    from server.config import Config
    from server.inference.batching import BatchLimits, Job
    from server.inference.lanes import Lanes
    from server.inference.model import Model
    from server.telemetry.metrics import Metrics

    model, done = Model(Path(folder), threads), threading.Event()
    lanes = Lanes(Metrics(), lambda _: done.set(), threads)
    tenants = {}

    def encode(texts: list[str], batch_tokens: int) -> np.ndarray:
        if len(texts) == 1:
            return (model.wide or model.encoder).encode(model.tokenizer.encode(texts).ids)
        if batch_tokens not in tenants:
            chosen = batch_tokens or Config().batch_tokens
            limits = BatchLimits(chosen, Config().interactive_tokens, 1 << 30, 1 << 30)
            tenants[batch_tokens] = lanes.admit(model.encoder, limits, model.wide)
        done.clear()
        job = Job(list(model.tokenizer.encode(texts).ids), None, time.perf_counter())
        lanes.submit(tenants[batch_tokens], job)
        lanes.wake()
        done.wait()
        if job.error is not None:
            raise job.error
        return np.stack(job.results)

    return encode


LIBRARIES = {"inkwell": inkwell, **libraries.LIBRARIES}


def main() -> None:
    """Load the model, then answer until the input ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("folder")
    parser.add_argument("threads", type=int)
    args = parser.parse_args()

    answers, sys.stdout = sys.stdout, sys.stderr  # Libraries print what they like.
    encode = LIBRARIES[args.library](args.folder, args.threads)
    for line in sys.stdin:
        asked, seconds = json.loads(line), []
        for _ in range(asked["times"]):
            started, worked = time.perf_counter(), time.process_time()
            vectors = encode(asked["texts"], asked["batch_size"])
            seconds.append((time.perf_counter() - started, time.process_time() - worked))
        if asked["save"]:
            np.save(asked["save"], vectors)
        print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    main()
