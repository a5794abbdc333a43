"""The tutorial's small server around faster libraries than PyTorch: one text in, one vector out.

    VENV/bin/python benchmarks/contenders/small.py LIBRARY FOLDER --port 8091

LIBRARY, with FOLDER as int8.py wrote it, and these settings:

    onnx       sentence-transformers, backend "onnx", dynamic int8 for this CPU; ONNX Runtime's own
               choice of threads
    openvino   sentence-transformers, backend "openvino", static int8; PERFORMANCE_HINT latency; one
               call at a time, the cautious choice: calls at once were not tried, and may be faster
    fastembed  the same dynamic int8 file as `onnx`, as a custom model; one thread for every core

Each request is one call of the library, from the framework's threads, with whatever texts it holds:
batches of 32 never fill up. Before the port opens the model is warmed up with texts of every length.
POST /embed {"texts": ["..."]} answers {"vectors": [[...]]}. It listens on the loopback only.
"""

import argparse
import os
import threading
from collections.abc import Callable

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


class EmbedRequest(BaseModel):
    """The body of POST /embed."""

    texts: list[str]


def create_app(encode: Encode) -> FastAPI:
    """Return the application around a loaded model."""
    app = FastAPI()

    @app.post("/embed")
    def embed(request: EmbedRequest) -> dict[str, list[list[float]]]:
        return {"vectors": encode(request.texts).tolist()}

    return app


def onnx(folder: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    chosen = {"file_name": ONNX_FILE, "provider": "CPUExecutionProvider"}
    model = SentenceTransformer(folder, device="cpu", backend="onnx", model_kwargs=chosen)
    return lambda texts: model.encode(texts, normalize_embeddings=True)


def openvino(folder: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    chosen = {"file_name": OPENVINO_FILE, "ov_config": {"PERFORMANCE_HINT": "LATENCY"}}
    model = SentenceTransformer(folder, device="cpu", backend="openvino", model_kwargs=chosen)
    lock = threading.Lock()

    def encode(texts: list[str]) -> np.ndarray:
        with lock:
            return model.encode(texts, normalize_embeddings=True)

    return encode


def fastembed(folder: str) -> Encode:
    import json
    from pathlib import Path

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
    cores = len(os.sched_getaffinity(0))
    model = TextEmbedding(name, specific_model_path=folder, threads=cores)
    return lambda texts: np.stack(list(model.embed(texts)))


LIBRARIES = {each.__name__: each for each in (onnx, openvino, fastembed)}


def main() -> None:
    """Load the model and warm it up, then serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=8091)
    args = parser.parse_args()

    encode = LIBRARIES[args.library](args.folder)
    for length in (*range(1, 64), *range(64, 512, 16)):
        encode(["天" * length])
    uvicorn.run(create_app(encode), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
