"""Reranking and scoring, as clients of Cohere, Jina, Xinference, NVIDIA and vLLM ask for them.

POST /v1/rerank, /v2/rerank and /rerank (TEI's clients use it too: a body with `texts` is in TEI's form),
NVIDIA's /v1/ranking, and vLLM's /v1/score and /score.
"""

from functools import partial
from typing import Annotated

import msgspec

from server.api.body import decoded
from server.api.endpoint import by_key
from server.api.operation import Call, Dialect, Operation
from server.api.replies import Reply, error_reply_of
from server.api.truncation import truncation_of
from server.errors import InvalidRequest, ServerError


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


class Query(msgspec.Struct):
    """NVIDIA's form of a query or passage."""

    text: str


class RankingRequest(msgspec.Struct):
    """Passages to rank. truncate: NONE, or END for texts that are too long."""

    query: Query
    passages: list[Query]
    model: str = ""
    truncate: str = ""


class ScoreRequest(msgspec.Struct):
    """Pairs to score: one text with each of others, or two lists of the same length."""

    text_1: str | list[str]
    text_2: str | list[str]
    model: str = ""


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
        on("/v1/ranking", handler=ranking, request=(RankingRequest,)),
        on("/v1/score", handler=score, request=(ScoreRequest,)),
        on("/score", handler=score, request=(ScoreRequest,)),
    ]


async def rerank(call: Call) -> Reply:
    """Check the request and refuse it, because no reranker can be loaded yet."""
    request = await decoded(call.body, RerankRequest)
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    call.models.rerank(request.query, texts)


async def ranking(call: Call) -> Reply:
    """Check the request and refuse it, because no reranker can be loaded yet."""
    request = await decoded(call.body, RankingRequest)
    truncation_of(request.truncate)
    call.models.rerank(request.query.text, [each.text for each in request.passages])


async def score(call: Call) -> Reply:
    """Check the request and refuse it, because no reranker can be loaded yet."""
    request = await decoded(call.body, ScoreRequest)
    first, second = _listed(request.text_1), _listed(request.text_2)
    if len(first) not in (1, len(second)):
        raise InvalidRequest(
            f"text_1 has {len(first)} texts and text_2 has {len(second)}; give one, or as many",
            param="text_1",
        )
    call.models.default.check(first)
    call.models.rerank(first[0], second)


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def error_reply(error: ServerError) -> Reply:
    return error_reply_of(error, Error(error.public, error.public))


RERANK = Dialect("Rerank", error_reply, Error)
