"""Filters as Qdrant evaluates them: the tree of conditions, over what `facts` keeps of each document."""

from collections.abc import Sequence

from qdrant_client import models

from server.databases.qdrant.facts import MAX_ORDERED, field, has, kind_of, steps, there
from server.errors import InvalidRequest
from server.store.filters.sql import NULL, operand
from server.store.filters.tree import (
    TEXT,
    AllOf,
    AnyOf,
    Begins,
    Compared,
    Contains,
    Exists,
    Filter,
    Instant,
    Not,
    OneOf,
    Scalar,
    Sign,
    shown,
)

CONDITIONS = frozenset({AllOf, AnyOf, Not, OneOf, Compared, Exists, Contains, Begins})
# The whole text of a document is in its first row: beside the chunk's, where the chunk is not all of it.
CHUNK, WHOLE, REST = "text", "whole", "document"


def condition(filter: Filter) -> models.Filter:
    """Return what Qdrant evaluates; raises InvalidRequest for a comparison that it cannot.

    Conditions on the whole text hold for the first rows of documents alone.
    """
    match filter:
        case AllOf(conditions):
            return models.Filter(must=[condition(each) for each in conditions])
        case AnyOf(conditions):
            return models.Filter(should=[condition(each) for each in conditions])
        case Not(inner):
            return models.Filter(must_not=[condition(inner)])
        case Exists(key) if key == TEXT:
            return models.Filter()
        case Exists(key):
            return every(_fact(there(key)))
        case OneOf(key, values):
            return _one_of(key, values)
        case Compared(key, sign, bound):
            return _compared(key, sign, bound)
        case Contains(key, part) if key == TEXT:
            # A part of a chunk is a part of the whole, which the chunk begins.
            return either(_substring(CHUNK, part), _substring(REST, part))
        case Contains(key, part):
            return _of_texts(key, _substring("v", part))
        case Begins(key, prefix) if key == TEXT:
            whole = every(matched(WHOLE, True), _prefix(CHUNK, prefix))
            return either(whole, _prefix(REST, prefix))
        case Begins(key, prefix):
            return _of_texts(key, _prefix("v", prefix))


def every(*conditions: models.Condition) -> models.Filter:
    return models.Filter(must=list(conditions))


def either(*conditions: models.Condition) -> models.Filter:
    return models.Filter(should=list(conditions))


def matched(key: str, value: str | int | bool) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def among(key: str, values: Sequence[str] | Sequence[int]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))


def _fact(fact: str) -> models.FieldCondition:
    return matched("facts", fact)


def _one_of(key: str, values: Sequence[Scalar]) -> models.Filter:
    stored = [each if isinstance(each, Instant) else operand(key, each) for each in values]
    if not stored:
        return models.Filter(must_not=[models.Filter()])
    found = among("facts", [has(key, each) for each in stored])
    if NULL in stored:
        return either(found, models.Filter(must_not=[_fact(there(key))]))
    return every(found)


def _compared(key: str, sign: Sign, bound: str | int | float | Instant) -> models.Filter:
    if isinstance(bound, str) and len(bound.encode()) > MAX_ORDERED:
        raise InvalidRequest(
            f"the condition on {shown(key)} compares with a text of {len(bound.encode())} bytes, which"
            f" cannot be evaluated by Qdrant; compare with one of at most {MAX_ORDERED} bytes, or use $prefix",
            param="filter",
        )
    value = bound if isinstance(bound, Instant) else operand(key, bound)
    assert not isinstance(value, bytes), "a filter compares numbers, texts and instants"
    # It is ordered by the first number that differs: those before it are equal.
    equal: list[models.Condition] = []
    ways: list[models.Condition] = []
    numbers = steps(value)
    for at, number in enumerate(numbers):
        ways.append(every(*equal, _on_side(f"n{at}", sign[0], number)))
        equal.append(matched(f"n{at}", number))
    if sign in (">=", "<="):
        ways.append(every(*equal))
    return _nested("order", field(key, kind_of(value)), either(*ways))


def _on_side(key: str, side: str, number: int) -> models.FieldCondition:
    bounds = models.Range(gt=number) if side == ">" else models.Range(lt=number)
    return models.FieldCondition(key=key, range=bounds)


def _of_texts(key: str, test: models.Condition) -> models.Filter:
    return _nested("texts", field(key, "text"), test)


def _nested(of: str, name: str, test: models.Condition) -> models.Filter:
    """Return that one element of a list is of this field and meets the test."""
    inner = every(matched("k", name), test)
    return every(models.NestedCondition(nested=models.Nested(key=of, filter=inner)))


def _substring(key: str, part: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchSubstring(substring=part))


def _prefix(key: str, prefix: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchPrefix(prefix=prefix))
