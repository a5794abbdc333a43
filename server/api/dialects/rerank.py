"""Reranking and scoring, as clients of Cohere, Jina, Voyage, Xinference, NVIDIA and vLLM ask for them.

POST /v1/rerank, /v2/rerank and /rerank (TEI's clients use it too: a body with `texts` is in TEI's form),
NVIDIA's /v1/ranking, and vLLM's /v1/score and /score.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import orjson

from server.api.body import decoded, prepared
from server.api.endpoint import by_key
from server.api.operation import Call, Dialect, Handler, Operation
from server.api.replies import (
    REQUEST_ID,
    Meta,
    Reply,
    Usage,
    error_reply_of,
    meta_of,
    truncated_header,
    usage_of,
)
from server.api.truncation import truncation_of
from server.api.written import ON_LOOP
from server.errors import InvalidRequest, ServerError
from server.inference.answers import Scored, ranking
from server.inference.engine import pairs_with
from server.types import Pair

Json = dict[str, Any]
Number = Annotated[int, msgspec.Meta(ge=1)]


class Document(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct):
    """Documents to rank. Keys that only one provider has are ignored.

    top_n: how many of the best documents to return; all of them if it is left out. top_k: Voyage's word for it.
    truncation: Voyage's; false refuses a document that is too long together with the query. instruction: in
    place of the one in the model's prompt, for models that read one.
    """

    query: str
    documents: list[str | Document]
    model: str = ""
    top_n: Number | None = None
    top_k: Number | None = None
    # RAGFlow sends it to Xinference as a string.
    return_documents: bool | Literal["true", "false"] | None = None
    truncation: bool = True
    instruction: str = ""


class Ranked(msgspec.Struct):
    """A document: its place in the request, and its relevance from 0 to 1.

    document: only where asked for.
    """

    index: int
    relevance_score: float
    document: Document | msgspec.UnsetType = msgspec.UNSET


class RerankReply(msgspec.Struct):
    """Documents by relevance, best first.

    data: the same without the documents, where Voyage's clients look for it.
    """

    id: str
    object: Literal["list"]
    model: str
    usage: Usage
    meta: Meta
    data: list[Ranked]
    results: list[Ranked]


class Query(msgspec.Struct):
    """NVIDIA's form of a query or passage."""

    text: str


class RankingRequest(msgspec.Struct):
    """Passages to rank. truncate: NONE, or END for texts that are too long. instruction: as in /v1/rerank."""

    query: Query
    passages: list[Query]
    model: str = ""
    truncate: str = ""
    instruction: str = ""


class Logit(msgspec.Struct):
    index: int
    logit: float


class RankingReply(msgspec.Struct):
    """Passages by the number that the network gives them, best first."""

    rankings: list[Logit]
    usage: Usage


class ScoreRequest(msgspec.Struct):
    """Pairs to score: one text with each of others, or two lists of the same length.

    instruction: as in /v1/rerank.
    """

    text_1: str | list[str]
    text_2: str | list[str]
    model: str = ""
    instruction: str = ""


class Score(msgspec.Struct):
    index: int
    object: Literal["score"]
    score: float


class ScoreReply(msgspec.Struct):
    """Scores in the order of the pairs, by the model's own activation.

    created: always 0, as in the list of models.
    """

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class Error(msgspec.Struct):
    """An error, with one sentence under both keys: Cohere's clients read `message`, Jina's `detail`."""

    message: str
    detail: str


def operations(tei: Operation) -> list[Operation]:
    """Return the operations. tei: the operation for bodies in TEI's form on /rerank."""
    on = partial(Operation, RERANK, "POST", needs="embed")
    ranks = partial(
        on,
        summary="Documents by their relevance to a query",
        request=(RerankRequest,),
        response=(RerankReply,),
    )
    scores = partial(
        on,
        handler=score,
        summary="Scores of pairs of texts",
        request=(ScoreRequest,),
        response=(ScoreReply,),
    )
    shared = ranks("/rerank", handler=by_key("documents", _rerank("1"), "texts", tei))
    return [
        shared._replace(
            request=(*shared.request, *tei.request),
            response=(*shared.response, *tei.response),
            errors=(tei.dialect.error,),
        ),
        ranks("/v1/rerank", handler=_rerank("1")),
        ranks("/v2/rerank", handler=_rerank("2")),
        on(
            "/v1/ranking",
            handler=rank,
            summary="Passages by their relevance to a query",
            request=(RankingRequest,),
            response=(RankingReply,),
        ),
        scores("/v1/score"),
        scores("/score"),
    ]


def _rerank(version: str) -> Handler:
    """Return the handler of one version of Cohere's API."""

    async def rerank(call: Call) -> Reply:
        request = await decoded(call.body, RerankRequest)
        texts = [each if isinstance(each, str) else each.text for each in request.documents]
        pairs = pairs_with(request.query, texts)
        choice, found = await call.models.score(
            request.model,
            pairs,
            truncate=request.truncation,
            instruction=request.instruction,
        )
        top_n, relevance = request.top_n or request.top_k, found.relevance
        ranked = [
            {"index": index, "relevance_score": relevance[index]}
            for index in ranking(found.logits, top_n)
        ]
        head = {
            "id": call.scope[REQUEST_ID].decode(),
            "object": "list",
            "model": choice.name,
            "usage": usage_of(found.tokens),
            "meta": meta_of(version, found.tokens),
            "data": ranked,
        }
        returns = request.return_documents in (True, "true")
        # A reply that repeats the documents is about as long as its request.
        shown, on_loop = (texts, ON_LOOP) if returns else (None, len(call.body))
        body = await prepared(call.body, lambda _: _written(head, ranked, shown), on_loop)
        return Reply(body, headers=[truncated_header(len(found.truncated))])

    return rerank


def _written(head: Json, ranked: Sequence[Json], texts: Sequence[str] | None) -> bytes:
    """Return the body of the reply. Documents are written one by one: each holds the interpreter lock."""
    results: list[bytes] = []
    for each in ranked:
        shown = {} if texts is None else {"document": {"text": texts[each["index"]]}}
        results += (_json({**each, **shown}), b",")
    return b"".join((_json(head)[:-1], b',"results":[', *results[:-1], b"]}"))


async def rank(call: Call) -> Reply:
    """Return the passages' logits, best first."""
    request = await decoded(call.body, RankingRequest)
    truncation = truncation_of(request.truncate)
    pairs = pairs_with(request.query.text, [each.text for each in request.passages])
    _, found = await call.models.score(
        request.model,
        pairs,
        truncate=truncation.allowed,
        keep=truncation.keep,
        instruction=request.instruction,
    )
    rankings = [{"index": index, "logit": found.logits[index]} for index in ranking(found.logits)]
    return _reply({"rankings": rankings, "usage": usage_of(found.tokens)}, found)


async def score(call: Call) -> Reply:
    """Return the scores of pairs in their order."""
    request = await decoded(call.body, ScoreRequest)
    choice, found = await call.models.score(
        request.model, _pairs(request), instruction=request.instruction
    )
    data = [
        {"index": index, "object": "score", "score": each}
        for index, each in enumerate(found.scores)
    ]
    body = {
        "id": call.scope[REQUEST_ID].decode(),
        "object": "list",
        "created": 0,
        "model": choice.name,
        "data": data,
        "usage": usage_of(found.tokens),
    }
    return _reply(body, found)


def _pairs(request: ScoreRequest) -> list[Pair]:
    first, second = _listed(request.text_1), _listed(request.text_2)
    if len(first) not in (1, len(second)):
        raise InvalidRequest(
            f"text_1 has {len(first)} texts and text_2 has {len(second)}; give one, or as many",
            param="text_1",
        )
    return list(zip(first * len(second) if len(first) == 1 else first, second, strict=True))


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _reply(body: Json, found: Scored) -> Reply:
    return Reply(_json(body), headers=[truncated_header(len(found.truncated))])


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def error_reply(error: ServerError) -> Reply:
    return error_reply_of(error, Error(error.public, error.public))


RERANK = Dialect("Rerank", error_reply, Error)
