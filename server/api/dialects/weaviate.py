"""The form in which Weaviate's text2vec-transformers module asks its container for vectors."""

from functools import partial
from typing import Any, cast

import msgspec
import orjson

from server.api.body import decoded
from server.api.instruction import input_type_of
from server.api.operation import Call, Dialect, Operation
from server.api.replies import Reply, error_reply_of, json_body, truncated_header
from server.errors import InvalidRequest, ServerError, shown
from server.inference.manifest import Manifest

# Kinds of pooling that have another name in Weaviate.
POOLING = {"mean": "masked_mean"}
# What Weaviate sends for a collection that does not choose one.
DEFAULT_POOLING = "masked_mean"


class VectorConfig(msgspec.Struct):
    """Options of one request. pooling_strategy: empty, Weaviate's default, or the model's own."""

    pooling_strategy: str = ""
    task_type: str = ""
    dimensions: int | None = None


class VectorRequest(msgspec.Struct):
    """One text or several, under either key."""

    text: str | None = None
    texts: list[str] | None = None
    config: VectorConfig | None = None


class VectorReply(msgspec.Struct):
    text: str
    vector: list[float]
    dim: int


class VectorsReply(msgspec.Struct):
    vectors: list[list[float]]
    dims: int


class Meta(msgspec.Struct):
    """Facts about the first model, which Weaviate only shows."""

    model: str
    revision: str
    model_type: str
    pooling_strategy: str
    dimensions: int
    max_tokens: int
    normalized: bool
    precision: str
    fingerprint: str


class Error(msgspec.Struct):
    error: str


def operations() -> list[Operation]:
    get = partial(Operation, WEAVIATE, "GET")
    probe = partial(get, needs="nothing", status=204)
    vectors_on = partial(
        Operation,
        WEAVIATE,
        "POST",
        handler=vectors,
        summary="Vector of a text",
        needs="embed",
        request=(VectorRequest,),
        response=(VectorReply, VectorsReply),
        # Weaviate's client sends no content-type.
        any_type=True,
    )
    return [
        vectors_on("/vectors"),
        vectors_on("/vectors/"),
        get("/meta", meta, "The first model", "key", response=(Meta,)),
        probe("/.well-known/live", live, "Check whether the process answers"),
        probe("/.well-known/ready", ready, "Check whether new requests are taken"),
    ]


async def vectors(call: Call) -> Reply:
    """Embed with the first model, because the request cannot name one."""
    request = await decoded(call.body, VectorRequest)
    config = request.config or VectorConfig()
    choice = call.models.choose("")
    _check_pooling(choice.engine.manifest, config.pooling_strategy)
    if (request.text is None) == (request.texts is None):
        raise InvalidRequest('exactly one of "text" and "texts" is needed')
    texts = [request.text] if request.texts is None else request.texts
    embedded = await choice.engine.embed(
        cast(list[str], texts),
        input_type_of(config.task_type, "task_type") if config.task_type else "document",
        dimensions=config.dimensions,
    )
    width = embedded.vectors.shape[1]
    body: dict[str, Any] = {"vectors": embedded.vectors, "dims": width}
    if request.texts is None:
        body = {"text": request.text, "vector": embedded.vectors[0], "dim": width}
    headers = [truncated_header(len(embedded.truncated))]
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)


def _check_pooling(manifest: Manifest, asked: str) -> None:
    own = _pooling(manifest)
    # Where the collection has not chosen one, the model's own is right.
    if asked not in (DEFAULT_POOLING, own, ""):
        raise InvalidRequest(
            f"pooling_strategy {shown(asked)} is not available: {manifest.model_id} has {own!r}; set"
            f' "poolingStrategy": "{own}" in the collection\'s text2vec-transformers settings'
        )


def _pooling(manifest: Manifest) -> str:
    return POOLING.get(manifest.pooling, manifest.pooling)


async def meta(call: Call) -> Reply:
    manifest = call.models.default.manifest
    found = Meta(
        model=manifest.model_id,
        revision=manifest.revision,
        model_type=manifest.family,
        pooling_strategy=_pooling(manifest),
        dimensions=manifest.dimension,
        max_tokens=manifest.text.max_tokens,
        normalized=manifest.normalized,
        precision=manifest.precision,
        fingerprint=manifest.fingerprint,
    )
    return Reply(json_body(found))


async def live(_: Call) -> Reply:
    return Reply(b"", 204)


async def ready(call: Call) -> Reply:
    call.models.check_ready()
    return Reply(b"", 204)


def error_reply(error: ServerError) -> Reply:
    """Return the error with its native status: Weaviate shows it, and checks only for 200."""
    return error_reply_of(error, Error(error.public))


WEAVIATE = Dialect("Weaviate", error_reply, Error)
