"""Cohere's embeddings: POST /v1/embed and /v2/embed."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import msgspec
import orjson

from server.api.body import decoded
from server.api.instruction import Instructed, instruction_of
from server.api.operation import Call, Dialect, Handler, Operation
from server.api.other_vectors import Keys, refuse_other_vectors
from server.api.replies import (
    REQUEST_ID,
    Meta,
    Reply,
    base64_rows,
    error_reply_of,
    meta_of,
    truncated_header,
)
from server.api.truncation import truncation_of
from server.errors import ServerError
from server.inference.answers import Embedded

# Kinds of numbers. The others of Cohere's need a model that was trained for them.
Kind = Literal["float", "base64"]
# Pictures, texts among them, another length of texts, and another dialect's word for output_dimension.
REFUSED: Keys = {"images": (), "inputs": (), "max_tokens": (), "dimensions": ()}


class EmbedRequest(Instructed, kw_only=True):
    """Texts to embed. truncate: NONE, START or END, the part that is cut off a text that is too long.

    images, inputs, max_tokens, dimensions: refused, see REFUSED.
    """

    texts: list[str]
    model: str = ""
    embedding_types: list[Kind] = []
    truncate: str = "END"
    output_dimension: int | None = None
    images: Any = None
    inputs: Any = None
    max_tokens: Any = None
    dimensions: Any = None


class EmbeddingsByType(msgspec.Struct):
    """Vectors of each kind that was asked for; base64 is little-endian float32."""

    id: str
    embeddings: dict[Kind, list[list[float] | str]]
    texts: list[str]
    meta: Meta
    response_type: Literal["embeddings_by_type"]


class Embeddings(msgspec.Struct):
    """Vectors as numbers: the answer of /v1/embed where no kind was asked for."""

    id: str
    embeddings: list[list[float]]
    texts: list[str]
    meta: Meta
    response_type: Literal["embeddings_floats"]


class Error(msgspec.Struct):
    message: str


def operations() -> list[Operation]:
    post = partial(
        Operation,
        COHERE,
        "POST",
        summary="Vectors of texts",
        needs="embed",
        request=(EmbedRequest,),
    )
    return [
        post("/v1/embed", handler=_embed("1"), response=(Embeddings, EmbeddingsByType)),
        post("/v2/embed", handler=_embed("2"), response=(EmbeddingsByType,)),
    ]


def _embed(version: str) -> Handler:
    """Return the handler of one version. The first returns a plain list where no kind is asked for."""
    default: Sequence[Kind] = () if version == "1" else ("float",)

    async def embed(call: Call) -> Reply:
        request = await decoded(call.body, EmbedRequest)
        refuse_other_vectors(request, REFUSED)
        choice = call.models.choose(request.model)
        truncation = truncation_of(request.truncate)
        embedded = await choice.engine.embed(
            request.texts,
            instruction_of(request, choice),
            truncate=truncation.allowed,
            keep=truncation.keep,
            dimensions=request.output_dimension,
        )
        kinds = request.embedding_types or default
        body = {
            "id": call.scope[REQUEST_ID].decode(),
            "embeddings": _by_kind(embedded, kinds) if kinds else embedded.vectors,
            "texts": request.texts,
            "meta": meta_of(version, embedded.tokens),
            "response_type": "embeddings_by_type" if kinds else "embeddings_floats",
        }
        headers = [truncated_header(len(embedded.truncated))]
        return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)

    return embed


def _by_kind(embedded: Embedded, kinds: Sequence[Kind]) -> dict[Kind, Any]:
    vectors = embedded.vectors
    return {kind: base64_rows(vectors) if kind == "base64" else vectors for kind in kinds}


def error_reply(error: ServerError) -> Reply:
    return error_reply_of(error, Error(error.public))


COHERE = Dialect("Cohere", error_reply, Error)
