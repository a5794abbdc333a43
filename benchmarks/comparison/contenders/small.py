"""A careful user's small server around a library: texts in, vectors out.

    VENV/bin/python benchmarks/comparison/contenders/small.py LIBRARY FOLDER --port 8091

LIBRARY is torch, onnx, openvino or fastembed; FOLDER the checkpoint, or what int8.py made of it. README.md
beside this file lists the settings that were tried. For every core a process with a model of its own
takes one request at a time with one thread, so that no call waits for another's interpreter lock.
Requests wait until a process has been warmed up with texts of all kinds of lengths.
POST /embed {"texts": ["..."]} answers {"vectors": [[...]]}. It listens on the loopback only.
"""

import argparse
import sys
import threading
from pathlib import Path

import offline  # noqa: F401  # isort: skip

from dealer import deal, serve
from fastapi import FastAPI
from libraries import LIBRARIES
from pydantic import BaseModel

THREADS, BATCH = 1, 32
# OpenVINO prepares each length when it first meets it; bge's longest text has 512 tokens.
LENGTHS = {"openvino": range(1, 511)}
ANY_LENGTHS = range(1, 511, 16)


class EmbedRequest(BaseModel):
    """The body of POST /embed."""

    texts: list[str]


def create_app(library: str, folder: str) -> FastAPI:
    """Return the application of one process with its model loaded; requests wait until it is warm."""
    # Without its instructions bfloat16 is slower than float32.
    fast = "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    chosen = {"dtype": "bfloat16"} if library == "torch" and fast else {}
    encode = LIBRARIES[library](folder, THREADS, **chosen)
    app = FastAPI()
    one_at_a_time = threading.Lock()
    warm = threading.Event()

    def warm_up() -> None:
        for length in LENGTHS.get(library, ANY_LENGTHS):
            encode(["天" * length], BATCH)
        warm.set()

    # In a thread, so that the server still hears a signal to stop.
    threading.Thread(target=warm_up, daemon=True).start()

    @app.post("/embed")
    def embed(request: EmbedRequest) -> dict[str, list[list[float]]]:
        warm.wait()
        with one_at_a_time:
            vectors = encode(request.texts, BATCH)
        return {"vectors": vectors.tolist()}

    return app


def main() -> None:
    """Serve with a process for every core until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=8091)
    parser.add_argument("--dealer", type=int, help="used by the server itself")
    args = parser.parse_args()
    if args.dealer is None:
        deal([sys.executable, __file__, args.library, args.folder], args.port)
    else:
        serve(create_app(args.library, args.folder), args.dealer)


if __name__ == "__main__":
    main()
