"""The answers of the tools: what a model reads, bounded in size, with a mark where something was cut."""

import json
from collections.abc import Mapping
from typing import Any

# subtle: before Python 3.12 pydantic takes this TypedDict only.
from typing_extensions import TypedDict

from server.cli.searching.details import value_text
from server.cli.searching.reply import reply_of
from server.cli.target import Found
from server.store.records import Document
from server.store.search import Hit

# Characters of a hit's text, and of one part of a document: a model reads about 700 and 5,000 tokens.
HIT_CHARACTERS = 1_000
PART_CHARACTERS = 8_000
MOST_CHARACTERS = 20_000
# Characters of one string of metadata, and of all metadata as JSON.
VALUE_CHARACTERS = 200
METADATA_CHARACTERS = 2_000


class Listed(TypedDict):
    """A collection with its number of documents; null while its vector database does not answer."""

    name: str
    documents: int | None


class Collections(TypedDict):
    """The collections that can be searched."""

    collections: list[Listed]


class FoundDocument(TypedDict):
    """A place in a document that matches the query.

    text: the matching text, from character `begin` of the document to `end`. cut: what was left out, null
    where the text is complete. group: the document's value of the key in group_by, null without group_by.
    """

    id: str
    title: str | None
    text: str
    begin: int
    end: int
    cut: str | None
    score: float
    metadata: dict[str, Any]
    group: str | None


class Count(TypedDict):
    """The number of documents that have a value."""

    value: str
    documents: int


class Facet(TypedDict):
    """The most frequent values of a key. complete: there are no others."""

    key: str
    values: list[Count]
    complete: bool


class Hits(TypedDict):
    """The documents found, best first.

    facets: counts by the keys that were asked for. warnings: conditions of the filter that nothing can meet.
    """

    hits: list[FoundDocument]
    facets: list[Facet]
    warnings: list[str]


class DocumentPart(TypedDict):
    """A part of a document: the characters from `begin` to `end` of `characters`.

    next: where the next part begins, null at the end of the document.
    """

    id: str
    title: str | None
    text: str
    begin: int
    end: int
    characters: int
    next: int | None
    metadata: dict[str, Any]


class Added(TypedDict):
    """The ids of the stored documents, in the order of the request."""

    ids: list[str]


def hits_of(found: Found) -> Hits:
    """Return what a search found, group by group where it is grouped."""
    reply = reply_of(found)
    groups = [
        _short(value_text(each["value"])) for each in reply.get("groups", ()) for _ in each["hits"]
    ]
    named = groups or [None] * len(found.hits)
    facets = [
        Facet(
            key=each["key"],
            values=[
                Count(value=_short(value_text(one["value"])) or "", documents=one["documents"])
                for one in each["values"]
            ],
            complete=each["complete"],
        )
        for each in reply.get("facets", ())
    ]
    hits = [_found_document(hit, group) for hit, group in zip(found.hits, named, strict=True)]
    return Hits(hits=hits, facets=facets, warnings=list(found.warnings))


def _found_document(hit: Hit, group: str | None) -> FoundDocument:
    """Return a hit with at most HIT_CHARACTERS of its text."""
    text = hit.text[:HIT_CHARACTERS]
    end = hit.span.begin + len(text)
    cut = None
    if len(text) < len(hit.text):
        cut = f"{len(hit.text) - len(text)} more characters: call get_document with this id and begin {end}"
    return FoundDocument(
        id=hit.id,
        title=_short(hit.title),
        text=text,
        begin=hit.span.begin,
        end=end,
        cut=cut,
        score=round(hit.score, 4),
        metadata=bounded(hit.metadata),
        group=group,
    )


def document_part(document: Document, begin: int, length: int) -> DocumentPart:
    """Return the characters of a document from `begin`, at most `length`."""
    characters = len(document.text)
    end = min(begin + length, characters)
    return DocumentPart(
        id=document.id,
        title=_short(document.title),
        text=document.text[begin:end],
        begin=min(begin, characters),
        end=end,
        characters=characters,
        next=end if end < characters else None,
        metadata=bounded(document.metadata),
    )


def bounded(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata with long strings cut; values that do not fit are left out and named."""
    kept: dict[str, Any] = {}
    left = METADATA_CHARACTERS
    for count, (key, value) in enumerate(metadata.items()):
        shown = _short(value) if isinstance(value, str) else value
        left -= len(key) + len(json.dumps(shown, ensure_ascii=False))
        if left < 0:
            kept["..."] = f"{len(metadata) - count} more values were left out"
            break
        kept[key] = shown
    return kept


def _short(text: str | None) -> str | None:
    if text is None or len(text) <= VALUE_CHARACTERS:
        return text
    return f"{text[:VALUE_CHARACTERS]}... [cut: {len(text)} characters]"
