"""The project's own form: POST /embed {"texts": [...]} -> {"vectors": [[...]]}.

TEI's clients use the same path: a body with `inputs` is in TEI's form.
"""

import re
from typing import Any, Literal

import msgspec
import orjson

from server.api.body import decoded, only_one_of
from server.api.endpoint import by_key
from server.api.instruction import input_type_of
from server.api.native_errors import NATIVE
from server.api.operation import Call, Handler, Operation
from server.api.replies import Reply, base64_rows, json_body, truncated_header
from server.inference.answers import Embedded

BEGINNING = re.compile(rb'\s*{\s*"texts"\s*:')


class EmbedRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Texts to embed.

    input_type: query, document or none; also other APIs' words for them. If left out, document or what
    the model's name says.
    inputs: not allowed; a body with this key instead of `texts` is in TEI's form.
    """

    texts: list[str]
    inputs: Any = None
    input_type: str = ""
    model: str = ""
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    truncate: bool = True


class EmbedReply(msgspec.Struct):
    """One vector for each text: numbers, or base64 of little-endian float32."""

    vectors: list[list[float] | str]


def operations(tei: Operation) -> list[Operation]:
    """Return the operation on /embed. tei: the operation for bodies in TEI's form."""
    return [
        Operation(
            NATIVE,
            "POST",
            "/embed",
            _native_or(tei),
            "Vectors of texts, in this server's form or in TEI's",
            needs="embed",
            request=(EmbedRequest, *tei.request),
            response=(EmbedReply, *tei.response),
            errors=(tei.dialect.error,),
        )
    ]


def _native_or(tei: Operation) -> Handler:
    by_either = by_key("texts", embed, "inputs", tei)

    async def handle(call: Call) -> Reply:
        # Most bodies of this form begin so, and need not be scanned for their keys first.
        return await (embed(call) if BEGINNING.match(call.body) else by_either(call))

    return handle


async def embed(call: Call) -> Reply:
    request = await decoded(call.body, EmbedRequest)
    if request.inputs is not None:
        raise only_one_of("texts", "inputs")
    choice = call.models.choose(request.model)
    embedded = await choice.engine.embed(
        request.texts,
        input_type_of(request.input_type, "input_type")
        if request.input_type
        else choice.input_type or "document",
        truncate=request.truncate,
        dimensions=request.dimensions,
    )
    return _reply(embedded, request.encoding_format)


def _reply(embedded: Embedded, encoding_format: str) -> Reply:
    headers = [truncated_header(len(embedded.truncated))]
    if encoding_format == "base64":
        return Reply(json_body({"vectors": base64_rows(embedded.vectors)}), headers=headers)
    body = orjson.dumps({"vectors": embedded.vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body, headers=headers)
