"""The server that tutorials build: FastAPI, uvicorn and sentence-transformers on PyTorch.

    python -m venv VENV && VENV/bin/pip install -r benchmarks/comparison/contenders/requirements-tutorial.txt
    VENV/bin/python benchmarks/comparison/contenders/tutorial.py MODEL_DIR --port 8091

A benchmark contender, written as it usually is and left so on purpose: a plain `def` endpoint that
the framework runs in its thread pool and that calls model.encode for each request, with PyTorch's own
choice of threads. It listens on the loopback only and is not part of the product.
POST /embed {"texts": ["..."]} answers {"vectors": [[...]]}.
"""

import argparse

import offline  # noqa: F401  # isort: skip

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
