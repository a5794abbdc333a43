"""OpenAI's embeddings: POST /v1/embeddings, GET /v1/models and /v1/models/{id}."""

from functools import partial
from typing import Any, Literal

import msgspec
import orjson

from server.api.body import decode
from server.api.operation import Call, Dialect, Operation
from server.api.replies import Reply, base64_rows, error_reply_of, json_body, truncated_header
from server.errors import (
    CallerError,
    InvalidRequest,
    RetryableError,
    RouteNotFound,
    ServerError,
    TooManyTexts,
)
from server.types import InputType, Vectors

# The limit of OpenAI's own API for one request. The server's own limit may be lower.
MAX_INPUTS = 2048


class EmbeddingsRequest(msgspec.Struct):
    """Texts to embed. Unknown keys are ignored, as OpenAI's clients expect."""

    input: str | list[Any]
    model: str = ""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: InputType | None = None


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


class ModelEntry(msgspec.Struct):
    """A served model. created: always 0, because an artifact does not say when it was made."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "local"


class ModelList(msgspec.Struct):
    data: list[ModelEntry]
    object: Literal["list"] = "list"


class Fault(msgspec.Struct):
    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class Error(msgspec.Struct):
    error: Fault


def operations() -> list[Operation]:
    speaking = partial(Operation, OPENAI)
    embeddings_on = partial(
        speaking,
        "POST",
        handler=embeddings,
        summary="Vectors of texts",
        needs="embed",
        request=(EmbeddingsRequest,),
        response=(EmbeddingsReply,),
    )
    get = partial(speaking, "GET", needs="key")
    return [
        embeddings_on("/v1/embeddings"),
        embeddings_on("/embeddings"),
        get("/v1/models", list_models, "Names of the served models", response=(ModelList,)),
        get("/v1/models/{model:path}", get_model, "One served model", response=(ModelEntry,)),
    ]


async def embeddings(call: Call) -> Reply:
    request = decode(call.body, EmbeddingsRequest)
    choice = call.models.choose(request.model)
    embedded = await choice.engine.embed(
        texts_of(request.input),
        request.input_type or choice.input_type or "document",
        dimensions=request.dimensions,
    )
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": row}
            for index, row in enumerate(_rows(embedded.vectors, request.encoding_format))
        ],
        "model": choice.name,
        "usage": usage,
    }
    headers = [truncated_header(len(embedded.truncated))]
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)


def texts_of(given: str | list[Any]) -> list[str]:
    """Return the request's texts; refuses token ids, and says what to set instead."""
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
    return base64_rows(vectors) if encoding_format == "base64" else list(vectors)


async def list_models(call: Call) -> Reply:
    return Reply(json_body(ModelList([ModelEntry(name) for name in call.models.listed])))


async def get_model(call: Call) -> Reply:
    name = call.scope["path_params"]["model"]
    if not name:
        raise RouteNotFound("no such path: /v1/models/")
    return Reply(json_body(ModelEntry(call.models.choose(name).name)))


def error_reply(error: ServerError) -> Reply:
    """Return an error in OpenAI's form, always with all four keys: its clients need them."""
    kind: Literal["invalid_request_error", "rate_limit_error", "server_error"] = "server_error"
    if isinstance(error, CallerError):
        kind = "invalid_request_error"
    elif isinstance(error, RetryableError):
        kind = "rate_limit_error"
    param = error.param if isinstance(error, CallerError) else None
    return error_reply_of(error, Error(Fault(error.message, kind, param, error.code)))


OPENAI = Dialect("OpenAI", error_reply, Error)
