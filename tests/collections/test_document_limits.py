"""Limits on documents: each refusal names value, limit and what to do, and usual documents pass."""

import re
from pathlib import Path
from typing import Any

import pytest

from server.collections import document_limits as limits
from server.collections.document_limits import check_chunks, check_documents
from server.errors import EmptyInput, InvalidRequest, RequestTooLarge
from server.store.records import MAX_ALL_PATHS, MAX_ID, MAX_PATHS, MAX_TITLE, Document, Span

ROOT = Path(__file__).parents[2]


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
    # Two values of their own: the object and the list.
    document(metadata={"t": list(range(limits.MAX_LEAVES - 2))}),
    # The list and 255 values, each under 256 characters.
    document(metadata={"k" * 255: list(range(255))}),
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
    (document(metadata={"t": list(range(limits.MAX_LEAVES - 1))}), "more than 4096 values"),
    (document(metadata={"k" * 255: list(range(256))}), "more than 65536 characters"),
    (document(title="题" * (MAX_TITLE + 1)), "title has 2001 characters"),
    (document(metadata={"k" * (limits.MAX_KEY + 1): 1}), "has 257 characters, at most 256"),
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


BLANK = [
    "",
    " \n",
    "\u3000",
    "\u200b",
    "\ufeff\u2060",
    "\u00ad",
    "\u3164",
    "\u2800",
    "\ufe0f",
    "\0",
    "\U000e0041",
]


@pytest.mark.parametrize("text", BLANK)
def test_text_without_a_visible_character_is_empty(text: str) -> None:
    with pytest.raises(EmptyInput, match=r"documents\[1\]\.text is empty: ") as refused:
        check_documents([document(), document(text=text), document(text=f"{text}墨{text}")])
    assert refused.value.param == "documents"
    with pytest.raises(EmptyInput, match=r"\[0\]\.text is empty, and so are 2 of the others"):
        check_documents([document(text=text)] * 3)


def test_marks_and_signs_are_visible() -> None:
    check_documents(
        [document(text=text) for text in ("\u0301", "\u0600", "\ue000", "。", "👩\u200d🔬")]
    )


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


def test_chunks_at_the_limits_pass_and_one_more_does_not() -> None:
    one = [Span(0, 1)]
    titled = document(title="题" * 1_024)
    for item, most in ((document(), limits.MAX_CHUNKS), (titled, limits.MAX_REPEATED // 1_024)):
        check_chunks([item], [one * most])
        with pytest.raises(RequestTooLarge):
            check_chunks([item], [one * (most + 1)])


def test_paths_of_all_documents_may_have_as_many_characters_as_the_limit() -> None:
    # The list and 255 values, each under 256 characters.
    full = document(metadata={"k" * 255: list(range(255))})
    most = MAX_ALL_PATHS // MAX_PATHS
    check_documents([full] * most)
    with pytest.raises(RequestTooLarge):
        check_documents([*[full] * most, document(metadata={"k": 1})])


@pytest.mark.parametrize(
    ("row", "numbers"),
    [
        ("characters of an id, of a title", [MAX_ID, MAX_TITLE]),
        ("values, levels of one document's metadata", [limits.MAX_LEAVES, limits.MAX_DEPTH]),
        ("characters of a key of metadata", [limits.MAX_KEY]),
        (
            "characters of the paths of all values: of a document, of a request",
            [MAX_PATHS, MAX_ALL_PATHS],
        ),
        ("chunks of one request", [limits.MAX_CHUNKS]),
        (
            "characters of titles, repeated before each chunk of a request",
            [limits.MAX_REPEATED],
        ),
    ],
)
def test_limits_are_those_that_are_documented(row: str, numbers: list[int]) -> None:
    documented = (ROOT / "docs/en/reference/search.md").read_text(encoding="utf-8")
    assert f"| {row} | {', '.join(f'{number:,}' for number in numbers)} |" in documented
