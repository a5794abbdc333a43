"""A second look at a body that does not fit its type: what is forgiven, and what the refusal says.

Forgiven, in every dialect alike: null for a key that may be left out, and a whole number written with a
fraction (512.0). Only a body that does not fit is looked at twice, so others cost nothing.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec.inspect import (
    FloatType,
    IntType,
    ListType,
    NoneType,
    StructType,
    Type,
    UnionType,
    type_info,
)

from server.errors import InvalidRequest, shown

# msgspec's messages about values that may be forgiven, and about a key that a type does not have.
FORGIVABLE = re.compile(r"got `(?:null|float)`")
UNKNOWN = "Object contains unknown field `"
# An escape that begins a pair without its second half, or is a second half alone.
HALF_PAIR = re.compile(
    rb"\\u[dD][89aAbB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89aAbB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
# Bytes at the end of a body in which the decoder calls a half pair truncated input.
ESCAPES_AT_END = 32
# Beyond this a float does not have every whole number.
WHOLE = 2**53
BODY = "the body"


def may_be_forgiven(error: msgspec.ValidationError) -> bool:
    return FORGIVABLE.search(str(error)) is not None


def forgiven(value: Any, kind: Any) -> Any:
    """Return decoded JSON without what is forgiven, for a body of this type."""
    return _forgiven(value, _info(kind))


def parameter(name: str) -> str:
    """Return what a message calls a parameter behind the "?" of an address."""
    return f"the query parameter {shown(name)}"


def refusal(error: msgspec.ValidationError, kind: Any, name: str | None = None) -> InvalidRequest:
    """Return the refusal of JSON that does not fit its type.

    name: of the query parameter that holds it; None for a body.
    """
    text = str(error)
    if name is not None:
        return InvalidRequest(f"{parameter(name)} is not valid: {text}", param=name)
    if text.startswith(UNKNOWN):
        # subtle: the key may have 32 MB. A regular expression would hold the interpreter lock for 0.4 s.
        rest = text[len(UNKNOWN) :].removesuffix("`")
        key, at, path = rest.rpartition("` - at `$")
        key, path = (key, path) if at else (rest, "")
        return _unknown_key(key, path, _keys(_type_at(_info(kind), path)))
    place = text.rpartition("`$")[2].partition("`")[0] if text.endswith("`") else ""
    allowed = _allowed(_type_at(_info(kind), place)) if "Invalid enum value" in text else ""
    return InvalidRequest(f"the request is not valid: {text}{allowed}", param=_first_key(place))


def not_json(body: bytes, error: Exception, name: str | None = None) -> InvalidRequest:
    """Return the refusal of what is not JSON; says so where it is not UTF-8.

    name: of the query parameter that holds it; None for a body.
    """
    wrong = f"{BODY if name is None else parameter(name)} is not valid JSON"
    return InvalidRequest(f"{wrong}: {_why_not_json(body, error)}", param=name)


def _why_not_json(body: bytes, error: Exception) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        place = f"byte {body[wrong.start]:#04x} at position {wrong.start}"
        return f"it is not UTF-8 ({place}); send JSON in UTF-8"
    # subtle: the decoder does not say so of a half at the very end. Only the end is looked at, because a
    # search through 32 MB would hold the interpreter lock for 0.7 s.
    if "surrogate" in str(error) or HALF_PAIR.search(body, max(0, len(body) - ESCAPES_AT_END)):
        return f"{error}; an escape such as \\ud800 is half of a pair, which UTF-8 cannot hold"
    if b"\0" in body[:4]:
        return "it looks like UTF-16 or UTF-32; send JSON in UTF-8"
    return str(error)


@cache
def _info(kind: Any) -> Type:
    return type_info(kind)


def _kinds(kind: Type) -> Sequence[Type]:
    return kind.types if isinstance(kind, UnionType) else (kind,)


def _of(kind: Type, *wanted: type[Type]) -> Any:
    """Return the first of the types in a union, or the type itself, that is one of these kinds."""
    return next((each for each in _kinds(kind) if isinstance(each, wanted)), None)


def _forgiven(value: Any, kind: Type) -> Any:
    if isinstance(value, dict) and (struct := _of(kind, StructType)) is not None:
        return _without_nulls(value, struct)
    if isinstance(value, list) and (many := _of(kind, ListType)) is not None:
        return [_forgiven(each, many.item_type) for each in value]
    if isinstance(value, float) and _of(kind, IntType) and not _of(kind, FloatType):
        return int(value) if value.is_integer() and abs(value) <= WHOLE else value
    return value


def _without_nulls(value: Mapping[str, Any], struct: StructType) -> dict[str, Any]:
    """Return an object without null for keys that may be left out, where null is no value of theirs."""
    fields = {field.encode_name: field for field in struct.fields}
    found = {}
    for key, each in value.items():
        field = fields.get(key)
        if field is None:
            found[key] = each
        elif each is not None or field.required or _of(field.type, NoneType):
            found[key] = _forgiven(each, field.type)
    return found


def check_parameters(given: Iterable[str], known: Sequence[str]) -> None:
    """Raise InvalidRequest for a query parameter that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            raise _unknown(parameter(name), name, known)


def whole_number(given: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    """Return the whole number that a query parameter gives; raises InvalidRequest."""
    text = given.get(name, str(default))
    # subtle: int() raises for thousands of digits.
    short = len(text) <= len(str(high)) and text.isascii() and text.isdigit()
    if not (short and low <= int(text) <= high):
        raise InvalidRequest(
            f"{parameter(name)} is {shown(text)}, not a whole number from {low} to {high}",
            param=name,
        )
    return int(text)


def flag(given: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return whether a query parameter is true; raises InvalidRequest."""
    text = given.get(name, str(default)).lower()
    if text not in ("true", "false"):
        raise InvalidRequest(
            f"{parameter(name)} is {shown(text)}, neither true nor false", param=name
        )
    return text == "true"


def _unknown_key(key: str, path: str, known: Sequence[str]) -> InvalidRequest:
    place = f" in {path.removeprefix('.')}" if path else ""
    return _unknown(f"the key {shown(key)}{place}", key, known)


def _unknown(what: str, key: str, known: Sequence[str]) -> InvalidRequest:
    near = difflib.get_close_matches(key[:100].lower(), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(map(repr, known))}"
    return InvalidRequest(f"{what} is not known; {hint}", param=key[:100])


def _allowed(kind: Type) -> str:
    """Return the end of a message that lists the values of a type."""
    values = [repr(each) for one in _kinds(kind) for each in getattr(one, "values", ()) if each]
    return f"; use one of {', '.join(values)}" if values else ""


def _keys(kind: Type) -> list[str]:
    """Return the keys of an object of this type."""
    struct = _of(kind, StructType)
    return [] if struct is None else [field.encode_name for field in struct.fields]


def _type_at(kind: Type, path: str) -> Type:
    """Return the type of the value at a path such as ".documents[3].title"."""
    for key in re.findall(r"\.(\w+)|\[", path):
        struct, many = _of(kind, StructType), _of(kind, ListType)
        if key and struct is not None:
            kind = next((f.type for f in struct.fields if f.encode_name == key), kind)
        elif not key and many is not None:
            kind = many.item_type
    return kind


def _first_key(place: str) -> str | None:
    """Return the top-level key of a place such as ".input[3]"."""
    return re.split(r"[.\[]", place)[1] if place.startswith(".") else None
