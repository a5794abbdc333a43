"""A careful user's small server around a library at its best settings: texts in, vectors out.

    VENV/bin/python benchmarks/comparison/contenders/small.py LIBRARY FOLDER --port 8091

LIBRARY is torch, onnx, openvino or fastembed; FOLDER the checkpoint, or what int8.py made of it. README.md
beside this file lists the settings that were tried. For every core a process with a model of its own
takes one request at a time with one thread, so that no call waits for another's interpreter lock.
Connections go to the processes in turn: where all accept for themselves, as uvicorn's workers do, one
may get them all. Requests wait until a process has been warmed up with texts of all kinds of lengths.
POST /embed {"texts": ["..."]} answers {"vectors": [[...]]}. It listens on the loopback only.
"""

import argparse
import asyncio
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

# Before the imports below, which read them: the model comes from a folder, nothing is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

# Texts to float32 (N, D), rows of length 1.
Encode = Callable[[list[str]], np.ndarray]
ONNX_FILE = "onnx/model_quantized.onnx"
OPENVINO_FILE = "openvino/openvino_model_quantized.xml"
THREADS = 1
# OpenVINO prepares each length it meets for the first time; bge's longest text has 512 tokens.
LENGTHS = {"openvino": range(1, 511)}
ANY_LENGTHS = range(1, 511, 16)


class EmbedRequest(BaseModel):
    """The body of POST /embed."""

    texts: list[str]


def create_app(library: str, folder: str, lifespan: Callable) -> FastAPI:
    """Return the application of one process, its model loaded; requests wait until it is warm."""
    encode = LIBRARIES[library](folder)
    app = FastAPI(lifespan=lifespan)
    one_at_a_time = threading.Lock()
    warm = threading.Event()

    def warm_up() -> None:
        for length in LENGTHS.get(library, ANY_LENGTHS):
            encode(["天" * length])
        warm.set()

    # Beside the server, which would not hear a signal to stop meanwhile.
    threading.Thread(target=warm_up, daemon=True).start()

    @app.post("/embed")
    def embed(request: EmbedRequest) -> dict[str, list[list[float]]]:
        warm.wait()
        with one_at_a_time:
            vectors = encode(request.texts)
        return {"vectors": vectors.tolist()}

    return app


def torch(folder: str) -> Encode:
    import torch

    torch.set_num_threads(THREADS)
    # Without its instructions bfloat16 is slower than float32.
    fast = "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return _sentence_transformers(
        folder, model_kwargs={"dtype": torch.bfloat16 if fast else torch.float32}
    )


def onnx(folder: str) -> Encode:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = THREADS
    chosen = {"provider": "CPUExecutionProvider", "session_options": options}
    return _sentence_transformers(
        folder, backend="onnx", model_kwargs={"file_name": ONNX_FILE, **chosen}
    )


def openvino(folder: str) -> Encode:
    # subtle: pinned, the processes would all have their one thread on the first core.
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
        "ENABLE_CPU_PINNING": False,
    }
    return _sentence_transformers(
        folder, backend="openvino", model_kwargs={"file_name": OPENVINO_FILE, "ov_config": config}
    )


def _sentence_transformers(folder: str, **chosen: object) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", **chosen)
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def fastembed(folder: str) -> Encode:
    import json

    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=json.loads((Path(folder) / "config.json").read_text("utf-8"))["hidden_size"],
        model_file=ONNX_FILE,
    )
    model = TextEmbedding(name, specific_model_path=folder, threads=THREADS)
    return lambda texts: np.stack(list(model.embed(texts)))


LIBRARIES = {each.__name__: each for each in (torch, onnx, openvino, fastembed)}


def work(library: str, folder: str, dealer: socket.socket) -> None:
    """Serve the connections that come over `dealer`, until its other end is closed."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def take() -> None:
            _, dealt, _, _ = socket.recv_fds(dealer, 1, 1)
            if not dealt:
                loop.remove_reader(dealer.fileno())
                server.should_exit = True
            for number in dealt:
                connection = socket.socket(fileno=number)
                opening.add(loop.create_task(loop.connect_accepted_socket(protocol, connection)))

        # subtle: the loop itself does not keep its tasks.
        opening: set[asyncio.Task] = set()
        loop.add_reader(dealer.fileno(), take)
        yield

    config = uvicorn.Config(
        create_app(library, folder, lifespan), log_level="warning", timeout_graceful_shutdown=5
    )
    config.load()
    server = uvicorn.Server(config)
    protocol = partial(
        config.http_protocol_class, config=config, server_state=server.server_state, app_state={}
    )
    server.run(sockets=[])


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
    if args.dealer is not None:
        work(args.library, args.folder, socket.socket(fileno=args.dealer))
        return

    dealers = []
    for _ in os.sched_getaffinity(0):
        dealer, its = socket.socketpair()
        command = [sys.executable, __file__, args.library, args.folder]
        subprocess.Popen([*command, "--dealer", str(its.fileno())], pass_fds=[its.fileno()])
        its.close()
        dealers.append(dealer)
    with socket.create_server(("127.0.0.1", args.port)) as listener:
        for dealer in itertools.cycle(dealers):
            connection, _ = listener.accept()
            socket.send_fds(dealer, [b"."], [connection.fileno()])
            connection.close()


if __name__ == "__main__":
    main()
