"""OpenAI's embeddings: POST /v1/embeddings, GET /v1/models and /v1/models/{id}."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import orjson

from server.api.http import Call, Reply, decode, json_body, retry_headers, status_of
from server.errors import (
    CallerError,
    InvalidRequest,
    ModelNotFound,
    MomentError,
    RouteNotFound,
    ServerError,
    TooManyTexts,
)
from server.manifest import Manifest
from server.types import InputType, Vectors

# What OpenAI's own API takes in one request; the server's own limit may be lower.
MAX_INPUTS = 2048
Handler = Callable[[Call], Awaitable[Reply]]


class EmbeddingsRequest(msgspec.Struct):
    """Unknown keys are ignored, as OpenAI's clients expect of a compatible server."""

    input: str | list[Any]
    model: str = ""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: InputType = "document"


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsReply(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelNames:
    """The names under which clients may ask for the served model."""

    def __init__(self, manifest: Manifest, alias: str) -> None:
        short = manifest.model_id.rsplit("/", 1)[-1]
        self.listed = list(dict.fromkeys(filter(None, (manifest.model_id, alias))))
        self._known = {"", short, *self.listed}

    def check(self, name: str) -> None:
        if name not in self._known:
            raise ModelNotFound(
                f"the model {name!r} does not exist here; this server has {self.listed[0]!r}",
                param="model",
            )


def embeddings(names: ModelNames) -> Handler:
    async def handle(call: Call) -> Reply:
        request = decode(call.body, EmbeddingsRequest)
        names.check(request.model)
        embedded = await call.engine.embed(
            texts_of(request.input), request.input_type, dimensions=request.dimensions
        )
        usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
        body = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": row}
                for index, row in enumerate(_rows(embedded.vectors, request.encoding_format))
            ],
            "model": request.model or names.listed[0],
            "usage": usage,
        }
        headers = [(b"x-truncated", str(len(embedded.truncated)).encode())]
        return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)

    return handle


def texts_of(given: str | list[Any]) -> list[str]:
    """The request's texts; token ids are refused with what to set instead."""
    if isinstance(given, str):
        return [given]
    if len(given) > MAX_INPUTS:
        raise TooManyTexts(
            f"input has {len(given)} texts, at most {MAX_INPUTS} are allowed", param="input"
        )
    for index, text in enumerate(given):
        if isinstance(text, str):
            continue
        if isinstance(text, int | list) and not isinstance(text, bool):
            raise InvalidRequest(
                "input must be text, not token ids: they are of another model's vocabulary; with"
                " LangChain set check_embedding_ctx_length=False",
                param="input",
            )
        raise InvalidRequest(f"input[{index}] must be a string", param="input")
    return given


def _rows(vectors: Vectors, encoding_format: str | None) -> list[Any]:
    if encoding_format == "base64":
        # numpy is little-endian on every machine that onnxruntime runs on.
        return [base64.b64encode(row.tobytes()).decode() for row in vectors]
    return list(vectors)


def list_models(names: ModelNames) -> Handler:
    async def handle(_: Call) -> Reply:
        data = [_model(name) for name in names.listed]
        return Reply(json_body({"object": "list", "data": data}))

    return handle


def get_model(names: ModelNames) -> Handler:
    async def handle(call: Call) -> Reply:
        name = call.scope["path_params"]["model"]
        if not name:
            raise RouteNotFound("no such path: /v1/models/")
        names.check(name)
        return Reply(json_body(_model(name)))

    return handle


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "local"}


def error_reply(error: ServerError) -> Reply:
    """{"error": {"message", "type", "param", "code"}}, all four always there."""
    kind = "server_error"
    if isinstance(error, CallerError):
        kind = "invalid_request_error"
    elif isinstance(error, MomentError):
        kind = "rate_limit_error"
    param = error.param if isinstance(error, CallerError) else None
    body = {"message": error.message, "type": kind, "param": param, "code": error.code}
    return Reply(json_body({"error": body}), status_of(error), retry_headers(error))
