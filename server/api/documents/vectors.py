"""Vectors in requests and replies: lists of numbers, or base64 as OpenAI's API has it."""

import base64
import binascii
from collections.abc import Sequence

import numpy as np

from server.collections.writing.given import check_vectors
from server.errors import InvalidRequest
from server.store.reading.parts import Parts
from server.store.records import Info, Span
from server.types import Vectors

# A vector as JSON: numbers, or their float32 bytes, little-endian, in base64.
Written = list[float] | str


def row_of(given: Written, place: str) -> Vectors:
    """Return a vector as float32 (D,); raises InvalidRequest. Numbers beyond float32 become infinite."""
    if not isinstance(given, str):
        with np.errstate(over="ignore"):
            return np.array(given, dtype=np.float32)
    try:
        found = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise _refusal(f"a vector of {place} is a text that is not base64") from None
    if len(found) % 4:
        raise _refusal(f"a vector of {place} has {len(found)} bytes, and a float32 number has 4")
    return np.frombuffer(found, dtype="<f4").astype(np.float32)


def parts_in(
    text: str,
    vector: Written | None,
    vectors: Sequence[Written] | None,
    spans: Sequence[tuple[int, int]] | None,
    info: Info,
    place: str,
) -> Parts | None:
    """Return the given chunks of a document, None where it has no vectors; raises InvalidRequest."""
    if vector is None and vectors is None:
        if spans is not None:
            raise _refusal(f'{place} has "parts" and no "vectors"; give a vector for each part')
        return None
    if vector is not None:
        if vectors is not None or spans is not None:
            raise _refusal(
                f'{place} has "vector" beside "vectors" or "parts"; give "vector" alone, or the other two'
            )
        vectors = [vector]
    assert vectors is not None
    found = _spans(text, spans, len(vectors), place)
    if len(found) > 1 and not info.in_parts:
        raise _refusal(
            f"{place} has {len(found)} parts, and this collection keeps documents whole (chunks: null);"
            ' give one "vector"'
        )
    rows = [row_of(each, place) for each in vectors]
    for row in rows:
        check_vectors(row[None], info.dimension, place)
    return Parts(tuple(found), np.stack(rows))


def _spans(
    text: str, given: Sequence[tuple[int, int]] | None, number: int, place: str
) -> list[Span]:
    if given is None:
        if number != 1:
            raise _refusal(
                f'{place} has {number} vectors; give "parts", the characters [begin, end] of each'
            )
        return [Span(0, len(text))]
    if not 1 <= len(given) == number:
        raise _refusal(f"{place} has {len(given)} parts and {number} vectors; give one for each")
    last = 0
    for begin, end in given:
        if not (last <= begin < end <= len(text)):
            raise _refusal(
                f"{place} has a part [{begin}, {end}]; parts begin in the order of the text, are not empty"
                f" and end within its {len(text)} characters"
            )
        last = begin
    return [Span(begin, end) for begin, end in given]


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="documents")
