"""What Qdrant keeps of a document's fields so that it evaluates filters exactly as they are evaluated here.

A field's name may hold any character, a number more digits than Qdrant compares, and a text is ordered by its
characters. None of this is what Qdrant's own filters on JSON do. So each value is stored in three forms, under
names that do not depend on the data, and with three indexes whatever the fields are:

    facts   hashes of "the field is there" and of "the field has this value": equality and existence
    order   for each number, text and instant the whole numbers that put it in order, each below 2^53
    texts   for each text its first characters: parts and beginnings

The truth of the metadata is its JSON, which is stored beside them and never compared.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Literal

from server.databases.values import ranked, values_of
from server.store.filters.instants import instant
from server.store.filters.sql import SqlValue
from server.store.filters.tree import MAX_PART, RESERVED, Instant

Kind = Literal["number", "text", "date"]

HASH_BYTES = 16
# Bytes of UTF-8 in one number of an ordered text; the order of the bytes is that of code points. Each counts from
# 1, so that 0 is where a text ends, and six of them stay below 2^53, as far as Qdrant compares whole numbers.
STEP, BASE = 6, 257
# Only the beginning of a longer text is ordered, and one that is compared with it must be shorter: a condition of
# n numbers has n (n + 1) / 2 parts.
MAX_STEPS = 12
MAX_ORDERED = MAX_STEPS * STEP - 1
WORD = 1 << 32


def facts_of(
    id: str, title: str | None, metadata: Mapping[str, object]
) -> tuple[list[str], list[dict[str, object]], list[dict[str, object]]]:
    """Return the facts, orders and texts of a document's fields, each once."""
    facts: dict[str, None] = {}
    order: list[dict[str, object]] = []
    texts: list[dict[str, object]] = []
    for key, value in values_of(id, title, metadata):
        facts[there(key)] = None
        facts[has(key, value)] = None
        if isinstance(value, bytes):
            continue
        order.append(_ordered(key, value))
        if isinstance(value, str):
            most = None if key in RESERVED else MAX_PART
            texts.append({"k": field(key, "text"), "v": value[:most]})
            when = instant(value)
            if when is not None:
                facts[has(key, Instant(when))] = None
                order.append(_ordered(key, Instant(when)))
    return list(facts), order, texts


def there(key: str) -> str:
    """Return the fact that a field is there."""
    return _hash("there", key, "")


def has(key: str, value: SqlValue | Instant) -> str:
    """Return the fact that a field has a value; of 1 and 1.0 it is the same, of 1 and true it is not."""
    if isinstance(value, Instant):
        return _hash("date", key, str(value.microseconds))
    if isinstance(value, bytes):
        return _hash("kind", key, value.decode())
    if isinstance(value, str):
        return _hash("text", key, value)
    if isinstance(value, float):
        return _hash("number", key, str(int(value)) if value.is_integer() else value.hex())
    return _hash("number", key, str(value))


def field(key: str, kind: Kind) -> str:
    """Return what `order` and `texts` name a field by, for values of this kind."""
    return _hash("field", key, kind)


def kind_of(value: str | int | float | Instant) -> Kind:
    return "date" if isinstance(value, Instant) else "text" if isinstance(value, str) else "number"


def steps(value: str | int | float | Instant) -> list[int]:
    """Return whole numbers from 0 to 2^53 that are in the order of the values of this kind.

    The first that differs decides. No list is the beginning of another one, where a text has at most MAX_ORDERED
    bytes.
    """
    if isinstance(value, str):
        coded = value.encode("utf-8", "surrogatepass")
        # One more than its bytes: where a text ends, a digit is 0.
        ends = range(0, min(len(coded) + 1, MAX_STEPS * STEP), STEP)
        return [_step(coded[at : at + STEP]) for at in ends]
    number = value.microseconds if isinstance(value, Instant) else value
    rank, rest = ranked(number)
    return [rank // WORD, rank % WORD, rest + WORD // 2]


def _step(part: bytes) -> int:
    number = 0
    for at in range(STEP):
        number = number * BASE + (part[at] + 1 if at < len(part) else 0)
    return number


def _ordered(key: str, value: str | int | float | Instant) -> dict[str, object]:
    numbered = {f"n{at}": step for at, step in enumerate(steps(value))}
    return {"k": field(key, kind_of(value)), **numbered}


def _hash(what: str, key: str, value: str) -> str:
    """Return 128 bits of what is stated of a field; no two of a trillion facts share them by chance."""
    # The length keeps apart where a name ends and a value begins.
    stated = f"{what} {len(key)} {key} {value}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(stated, digest_size=HASH_BYTES).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
