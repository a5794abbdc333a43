"""Text Embeddings Inference's form of POST /embed, and GET /info."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import orjson

from server import errors
from server.api.http import Call, Reply, answered, decode, json_body, retry_headers, status_of
from server.api.operation import Dialect, Operation
from server.config import Config
from server.engine import Engine, unit
from server.errors import InvalidRequest, ServerError
from server.types import InputType

STATUS: Mapping[type[ServerError], int] = {
    errors.CallerError: 422,
    errors.EmptyInput: 400,
    errors.RequestTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.InferenceFailed: 424,
    errors.Overloaded: 429,
    errors.ShuttingDown: 503,
    errors.ServerFault: 500,
    errors.ServerError: 500,
}
KIND: Mapping[type[ServerError], str] = {
    errors.CallerError: "Validation",
    errors.EmptyInput: "Empty",
    errors.Overloaded: "Overloaded",
    errors.MomentError: "Unhealthy",
    errors.ServerError: "Backend",
}
PROMPTS: Mapping[str, InputType] = {
    "query": "query",
    "document": "document",
    "passage": "document",
}


class EmbedRequest(msgspec.Struct):
    inputs: str | list[str]
    truncate: bool | None = True
    truncation_direction: Literal["right", "Right"] = "right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None
    model: str = ""


class Error(msgspec.Struct):
    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


def operations(config: Config, version: str) -> list[Operation]:
    async def information(call: Call) -> Reply:
        return Reply(json_body(info(call.models.default, config, version)))

    return [
        Operation(
            TEI, "GET", "/info", information, "The first model and its limits", response=(dict,)
        )
    ]


async def embed(call: Call) -> Reply:
    """Answers in TEI's shapes, its errors included."""
    return await answered(_embed, error_reply, call)


async def _embed(call: Call) -> Reply:
    request = decode(call.body, EmbedRequest)
    choice = call.models.choose(request.model)
    manifest = choice.engine.manifest
    if not request.normalize and manifest.normalized:
        raise InvalidRequest(
            "normalize: false is not available: the model's last step normalises its vectors"
        )
    if request.prompt_name is not None and request.prompt_name not in PROMPTS:
        raise InvalidRequest(
            f"prompt_name {request.prompt_name!r} is not one of {', '.join(PROMPTS)}"
        )
    asked = PROMPTS[request.prompt_name] if request.prompt_name else choice.input_type
    embedded = await choice.engine.embed(
        [request.inputs] if isinstance(request.inputs, str) else request.inputs,
        asked or "document",
        truncate=request.truncate is not False,
        dimensions=request.dimensions,
    )
    vectors = embedded.vectors
    if request.normalize and not manifest.normalized:
        vectors = unit(vectors)
    headers = [
        (b"x-truncated", str(len(embedded.truncated)).encode()),
        (b"x-compute-tokens", str(embedded.tokens).encode()),
    ]
    return Reply(orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)


def error_reply(error: ServerError) -> Reply:
    kind = next(KIND[base] for base in type(error).__mro__ if base in KIND)
    body = json_body({"error": error.message, "error_type": kind})
    return Reply(body, status_of(error, STATUS), retry_headers(error))


TEI = Dialect("TEI", error_reply, Error)
EMBED = Operation(
    TEI,
    "POST",
    "/embed",
    embed,
    "Vectors of texts",
    request=(EmbedRequest,),
    response=(list[list[float]],),
)


def info(engine: Engine, config: Config, version: str) -> dict[str, Any]:
    """TEI's keys, and this server's own beside them."""
    manifest = engine.manifest
    return {
        "model_id": manifest.model_id,
        "model_sha": manifest.revision,
        "model_dtype": manifest.precision,
        "served_model_name": config.model_alias or manifest.model_id,
        "model_type": {"embedding": {"pooling": manifest.pooling}},
        "max_concurrent_requests": None,
        "max_input_length": manifest.text.max_tokens,
        "max_batch_tokens": config.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": config.max_texts,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version,
        "sha": None,
        "docker_label": None,
        "dimension": manifest.dimension,
        "normalized": manifest.normalized,
        "fingerprint": manifest.fingerprint,
        "query_instruction": manifest.text.query_instruction,
        "agreement_with_float32": msgspec.to_builtins(manifest.agreement),
    }
