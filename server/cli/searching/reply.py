"""The request of a search and its reply, as POST /search has them."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from server.cli.target import Found, Question
from server.errors import InvalidRequest
from server.store.records import Span
from server.store.search import Hit

Json = dict[str, Any]


def body_of(question: Question) -> Json:
    """Return the body of the request; raises InvalidRequest for a query that is no text."""
    try:
        question.text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"text 0 is not valid Unicode, and UTF-8 cannot hold it: {error.reason}", param="query"
        ) from None
    body: Json = {"top_k": question.top_k, "mode": question.mode, **question.options}
    if question.text or not question.is_without_text:
        body["query"] = question.text
    if question.filter:
        body["filter"] = question.filter
    if question.rerank is not None:
        body["rerank"] = asdict(question.rerank) | body.get("rerank", {})
    return body


def encoded(body: Json) -> bytes:
    """Return a body as JSON in UTF-8; raises InvalidRequest."""
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"a text is not valid Unicode: {error.reason}") from None


def found_of(reply: Json) -> Found:
    """Return what a reply says; raises an error for an object of another form."""
    return Found([_hit(each) for each in _every_hit(reply)], reply.get("warnings", ()), reply)


def reply_of(found: Found) -> Json:
    """Return the reply that has these hits."""
    if found.reply is not None:
        return dict(found.reply)
    warnings = {"warnings": list(found.warnings)} if found.warnings else {}
    return {"hits": [_json_of(hit) for hit in found.hits], **warnings}


def details_of(found: Found) -> Sequence[Json]:
    """Return the hits as objects of the reply, in the order of `hits`."""
    return _every_hit(reply_of(found))


def _every_hit(reply: Json) -> Sequence[Json]:
    """Return the hits of a reply, group by group where it has groups."""
    groups = reply.get("groups")
    if groups is None:
        return list(reply["hits"])
    return [hit for each in groups for hit in each["hits"]]


def _hit(found: Json) -> Hit:
    part, score = found["part"], found["score"]
    return Hit(
        found["id"],
        math.nan if score is None else score,
        found["text"],
        found["title"],
        found["metadata"],
        Span(part["begin"], part["end"]),
        part["whole"],
        found.get("rerank_score"),
    )


def _json_of(hit: Hit) -> Json:
    begin, end = hit.span
    relevance = {} if hit.rerank_score is None else {"rerank_score": hit.rerank_score}
    return {
        "id": hit.id,
        "score": hit.score,
        **relevance,
        "text": hit.text,
        "title": hit.title,
        "metadata": hit.metadata,
        "part": {"begin": begin, "end": end, "whole": hit.whole},
    }
