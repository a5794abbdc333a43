"""The server that tutorials build: FastAPI, uvicorn and sentence-transformers on PyTorch.

    python -m venv VENV && VENV/bin/pip install -r benchmarks/comparison/contenders/requirements-tutorial.txt
    VENV/bin/python benchmarks/comparison/contenders/tutorial.py MODEL_DIR --port 8091

A benchmark contender, written the way it is usually written and left so on purpose: a plain `def`
endpoint, run by the framework's thread pool, that calls model.encode for each request, with
PyTorch's own choice of threads. It listens on the loopback only and is no part of the product.
POST /embed {"texts": ["..."]} answers {"vectors": [[...]]}.
"""

import argparse
import os

# Before the imports below, which read them: the model comes from a folder, nothing is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class EmbedRequest(BaseModel):
    """The body of POST /embed."""

    texts: list[str]


def create_app(model: SentenceTransformer) -> FastAPI:
    """Return the application around a loaded model."""
    app = FastAPI()

    @app.post("/embed")
    def embed(request: EmbedRequest) -> dict[str, list[list[float]]]:
        return {"vectors": model.encode(request.texts, normalize_embeddings=True).tolist()}

    return app


def main() -> None:
    """Load the model, then serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_dir")
    parser.add_argument("--port", type=int, default=8091)
    args = parser.parse_args()

    model = SentenceTransformer(args.model_dir, device="cpu")
    uvicorn.run(create_app(model), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
