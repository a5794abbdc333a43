"""Long texts in fields that take 65,535 bytes: the first piece in the row itself, the others in rows of their own."""

import json
from collections.abc import Mapping

MOST_BYTES = 65_535


def packed(value: object) -> str:
    """Return JSON that is valid UTF-8 and has no NUL, also of halves of characters."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def cut(text: str) -> list[str]:
    """Return the pieces of a text, each of at most MOST_BYTES bytes and of whole characters; at least one."""
    data = text.encode()
    pieces, begin = [], 0
    while len(data) - begin > MOST_BYTES:
        end = begin + MOST_BYTES
        while data[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        pieces.append(data[begin:end].decode())
        begin = end
    return [*pieces, data[begin:].decode()]


def key(label: int, field: str, number: int) -> str:
    """Return the key of a piece of a row's field; number: from 1, for the row has the first."""
    return f"{label}.{field}.{number}"


def keys(label: int, field: str, n_pieces: int) -> list[str]:
    """Return the keys of all pieces but the first."""
    return [key(label, field, number) for number in range(1, n_pieces)]


def joined(first: str, label: int, field: str, n_pieces: int, others: Mapping[str, str]) -> str:
    """Return the text of all pieces; raises KeyError where one is missing."""
    return first + "".join(others[each] for each in keys(label, field, n_pieces))
