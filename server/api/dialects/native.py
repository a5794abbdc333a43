"""The project's own form: POST /embed {"texts": [...]} -> {"vectors": [[...]]}.

TEI's clients post to the same path; a body with `inputs` is handed to the function given for it.
"""

from typing import Literal

import msgspec
import orjson

from server.api.endpoint import (
    Call,
    Handler,
    Reply,
    base64_rows,
    decode,
    json_body,
    truncated_header,
)
from server.api.native_errors import NATIVE
from server.api.operation import Operation
from server.errors import InvalidRequest
from server.inference.engine import Embedded
from server.types import InputType


class EmbedRequest(msgspec.Struct):
    """The native request; `inputs` is only looked at to tell TEI's form.

    input_type: "document" unless the model's name says otherwise.
    """

    texts: list[str] | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input_type: InputType | None = None
    model: str = ""
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    truncate: bool = True


class EmbedReply(msgspec.Struct):
    """A vector a text: numbers, or base64 of little-endian float32."""

    vectors: list[list[float] | str]


def operations(tei: Operation) -> list[Operation]:
    """tei: what answers bodies in TEI's form on the same path."""
    return [
        Operation(
            NATIVE,
            "POST",
            "/embed",
            _embed(tei.handler),
            "Vectors of texts, in this server's form or in TEI's",
            needs="embed",
            request=(EmbedRequest, *tei.request),
            response=(EmbedReply, *tei.response),
            errors=(tei.dialect.error,),
        )
    ]


def _embed(tei: Handler) -> Handler:
    async def handle(call: Call) -> Reply:
        # subtle: a TEI body may have keys that this struct would refuse, so the form is told first.
        form = decode(call.body, _Form)
        if form.inputs is not msgspec.UNSET and form.texts is msgspec.UNSET:
            return await tei(call)
        request = decode(call.body, EmbedRequest)
        if request.texts is msgspec.UNSET or request.inputs is not msgspec.UNSET:
            raise InvalidRequest('exactly one of "texts" and "inputs" is needed', param="texts")
        choice = call.models.choose(request.model)
        embedded = await choice.engine.embed(
            request.texts,
            request.input_type or choice.input_type or "document",
            truncate=request.truncate,
            dimensions=request.dimensions,
        )
        return _reply(embedded, request.encoding_format)

    return handle


class _Form(msgspec.Struct):
    texts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _reply(embedded: Embedded, encoding_format: str) -> Reply:
    headers = [truncated_header(len(embedded.truncated))]
    if encoding_format == "base64":
        return Reply(json_body({"vectors": base64_rows(embedded.vectors)}), headers=headers)
    body = orjson.dumps({"vectors": embedded.vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body, headers=headers)
