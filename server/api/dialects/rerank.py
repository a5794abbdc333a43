"""Reranking as Cohere's and Jina's clients ask for it: POST /v1/rerank, /v2/rerank and /rerank.

TEI's clients use /rerank too: a body with `texts` is in TEI's form.
"""

from functools import partial
from typing import Annotated

import msgspec

from server.api.body import decode
from server.api.endpoint import by_key
from server.api.operation import Call, Dialect, Operation
from server.api.replies import Reply, error_reply_of
from server.errors import ServerError


class Document(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct):
    """Documents to rank. Keys that only one provider has are ignored.

    top_n: how many of the best documents to return; all of them if it is left out.
    """

    query: str
    documents: list[str | Document]
    model: str = ""
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool | None = None


class Error(msgspec.Struct):
    """An error, with one sentence under both keys: Cohere's clients read `message`, Jina's `detail`."""

    message: str
    detail: str


def operations(tei: Operation) -> list[Operation]:
    """Return the operations. tei: the operation for bodies in TEI's form on /rerank."""
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
    shared = on("/rerank", handler=by_key("documents", rerank, "texts", tei))
    return [
        shared._replace(request=(*shared.request, *tei.request), errors=(tei.dialect.error,)),
        on("/v1/rerank"),
        on("/v2/rerank"),
    ]


async def rerank(call: Call) -> Reply:
    """Check the request and refuse it, because no reranker can be loaded yet."""
    request = decode(call.body, RerankRequest)
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    call.models.rerank(request.query, texts)


def error_reply(error: ServerError) -> Reply:
    return error_reply_of(error, Error(error.message, error.message))


RERANK = Dialect("Rerank", error_reply, Error)
