"""Reranking as Cohere's and Jina's clients ask for it: POST /v1/rerank, /v2/rerank and /rerank.

TEI's clients post to /rerank too; a body with `texts` is handed to the function given for it.
"""

from functools import partial
from typing import Annotated

import msgspec

from server.api.endpoint import Call, Handler, Reply, decode, headers_of, json_body, status_of
from server.api.operation import Dialect, Operation
from server.errors import InvalidRequest, ServerError


class Document(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct):
    """Keys of one provider only are ignored, as everywhere.

    top_n: how many of the best to tell; all of them if it is left out.
    """

    query: str
    documents: list[str | Document]
    model: str = ""
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool | None = None


class Error(msgspec.Struct):
    """The same sentence twice: Cohere's clients read `message`, Jina's `detail`."""

    message: str
    detail: str


def operations(tei: Operation) -> list[Operation]:
    """tei: what answers bodies in TEI's form on the path that both use."""
    on = partial(
        Operation,
        RERANK,
        "POST",
        handler=rerank,
        summary="Refused: no reranker is loaded",
        needs="embed",
        request=(RerankRequest,),
        response=(Error,),
        status=404,
    )
    shared = on("/rerank", handler=_either(tei.handler))
    return [
        shared._replace(request=(*shared.request, *tei.request), errors=(tei.dialect.error,)),
        on("/v1/rerank"),
        on("/v2/rerank"),
    ]


class _Form(msgspec.Struct):
    documents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    texts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _either(tei: Handler) -> Handler:
    async def handle(call: Call) -> Reply:
        form = decode(call.body, _Form)
        if (form.documents is msgspec.UNSET) == (form.texts is msgspec.UNSET):
            raise InvalidRequest('exactly one of "documents" and "texts" is needed')
        return await (rerank(call) if form.texts is msgspec.UNSET else tei(call))

    return handle


async def rerank(call: Call) -> Reply:
    """Refused until a reranker can be loaded, after the request has been checked."""
    request = decode(call.body, RerankRequest)
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    call.models.rerank(request.query, texts)


def error_reply(error: ServerError) -> Reply:
    body = json_body(Error(error.message, error.message))
    return Reply(body, status_of(error), headers_of(error))


RERANK = Dialect("Rerank", error_reply, Error)
