"""The project's own form: POST /embed {"texts": [...]} -> {"vectors": [[...]]}.

TEI's clients use the same path: a body with `inputs` is in TEI's form.
"""

from typing import Literal

import msgspec
import orjson

from server.api.body import decode
from server.api.endpoint import by_key
from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation
from server.api.replies import Reply, base64_rows, json_body, truncated_header
from server.inference.engine import Embedded
from server.types import InputType


class EmbedRequest(msgspec.Struct):
    """input_type: if left out, "document" or what the model's name says."""

    texts: list[str]
    input_type: InputType | None = None
    model: str = ""
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    truncate: bool = True


class EmbedReply(msgspec.Struct):
    """One vector for each text: numbers, or base64 of little-endian float32."""

    vectors: list[list[float] | str]


def operations(tei: Operation) -> list[Operation]:
    """tei: the operation for bodies in TEI's form."""
    return [
        Operation(
            NATIVE,
            "POST",
            "/embed",
            by_key("texts", embed, "inputs", tei),
            "Vectors of texts, in this server's form or in TEI's",
            needs="embed",
            request=(EmbedRequest, *tei.request),
            response=(EmbedReply, *tei.response),
            errors=(tei.dialect.error,),
        )
    ]


async def embed(call: Call) -> Reply:
    request = decode(call.body, EmbedRequest)
    choice = call.models.choose(request.model)
    embedded = await choice.engine.embed(
        request.texts,
        request.input_type or choice.input_type or "document",
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
