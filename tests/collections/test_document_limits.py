"""Limits on documents: each refusal names value, limit and what to do, and usual documents pass."""

import re
from typing import Any

import pytest

from server.collections import document_limits as limits
from server.collections.document_limits import check_chunks, check_documents
from server.errors import InvalidRequest, RequestTooLarge
from server.store.records import MAX_ALL_PATHS, MAX_ID, MAX_PATHS, MAX_TITLE, Document, Span


def document(**given: Any) -> Document:
    return Document(**{"id": "a", "text": "墨", **given})


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels - 1):
        inner = {"a": inner}
    return inner


FITS = [
    document(id="x" * MAX_ID),
    document(title="题" * MAX_TITLE),
    document(metadata=nested(limits.MAX_DEPTH)),
    document(metadata={"k" * limits.MAX_KEY: 1}),
    document(metadata={"tags": list(range(4_000))}),
]
BEYOND = [
    (document(id=""), f"has 0 characters; 1 to {MAX_ID}"),
    (document(id="x" * (MAX_ID + 1)), f"has {MAX_ID + 1} characters"),
    (document(title="题" * 320_000), f"title has 320000 characters, at most {MAX_TITLE}"),
    (document(metadata=nested(limits.MAX_DEPTH + 1)), f"deeper than {limits.MAX_DEPTH} levels"),
    (document(metadata=nested(100_000)), f"deeper than {limits.MAX_DEPTH} levels"),
    (document(metadata={"k" * 100_000: [1]}), f"100000 characters, at most {limits.MAX_KEY}"),
    (document(metadata={"t": [[n] for n in range(5_000)]}), f"than {limits.MAX_LEAVES} values"),
    (document(metadata={"t": list(range(11_000))}), f"than {limits.MAX_LEAVES} values"),
    (document(metadata={"k" * 200: list(range(400))}), f"than {MAX_PATHS} characters"),
]


def test_usual_documents_pass_and_documents_at_the_limit() -> None:
    check_documents([document(), *FITS])


@pytest.mark.parametrize(("wrong", "said"), BEYOND, ids=[said for _, said in BEYOND])
def test_a_document_beyond_a_limit_is_refused_by_place_and_limit(
    wrong: Document, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)) as refused:
        check_documents([document(), wrong])
    assert "documents[1]" in refused.value.message and refused.value.param == "documents"


def test_paths_of_all_documents_together_have_a_limit() -> None:
    one = document(metadata={"k" * 200: list(range(300))})
    check_documents([one] * 100)
    with pytest.raises(RequestTooLarge, match=str(MAX_ALL_PATHS)):
        check_documents([one] * 300)


def test_chunks_of_one_write_have_limits() -> None:
    many, few = [Span(0, 1)] * limits.MAX_CHUNKS, [Span(0, 1)] * 10
    check_chunks([document(), document()], [many[:-10], few])
    with pytest.raises(RequestTooLarge, match=f"{limits.MAX_CHUNKS + 10} parts"):
        check_chunks([document(), document()], [many, few])
    with pytest.raises(RequestTooLarge, match="titles"):
        check_chunks([document(title="题" * 2_000)], [many])
