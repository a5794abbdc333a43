"""Reads JSON that comes from elsewhere, and values in it, and names the file at fault.

Size and depth are bounded, and every value's type is checked before it is used.
"""

import json
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from export.errors import CorruptFile, UnsupportedModel
from export.source.file import MOST_SETTINGS, read_file

Json = Mapping[str, Any]

# Larger than any number of a network that fits in memory. A damaged number is refused early by it.
LARGEST_SIZE = 10_000_000
# Objects and arrays inside each other. Settings have about five levels, a tokenizer about ten.
DEEPEST = 64


class TooDeep(ValueError):
    """Raised for JSON that nests objects or arrays deeper than DEEPEST."""


def decode(content: bytes) -> Any:
    """Return the JSON value in UTF-8 text, with or without a byte order mark; raises ValueError."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise TooDeep from None
    level = [value]
    for _ in range(DEEPEST):
        level = [child for each in level for child in _containers(each)]
        if not level:
            return value
    raise TooDeep


def _containers(value: Any) -> list[Any]:
    """Return the objects and arrays directly inside a value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return []
    return [child for child in value if isinstance(child, dict | list)]


def parse_json(path: Path, content: bytes) -> Any:
    """Return the JSON value that `path` holds; raises CorruptFile."""
    try:
        return decode(content)
    except TooDeep:
        raise CorruptFile("{path} nests objects or arrays too deeply", path=path) from None
    except ValueError as error:
        raise CorruptFile("{path} is not valid JSON: {error}", path=path, error=error) from None


def parse_object(path: Path, content: bytes) -> dict[str, Any]:
    """Return the JSON object that `path` holds; raises CorruptFile for any other value."""
    value = parse_json(path, content)
    if not isinstance(value, dict):
        raise CorruptFile("{path} must hold a JSON object", path=path)
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file; raises an ExportError for anything else."""
    return parse_object(path, read_file(path, MOST_SETTINGS))


def size(
    config: Json, key: str, default: int | None = None, most: int = LARGEST_SIZE, least: int = 1
) -> int:
    """Return a number from config.json, `least` to `most`; without a default the key must be there."""
    if default is None and key not in config:
        raise CorruptFile("config.json lacks {key}", key=key)
    # A null counts as the default, and is refused where there is none.
    found = whole_number("config.json", config, key, default)
    if not least <= found <= most:
        raise CorruptFile(
            "config.json: {key} {shown} is outside {least} to {most}",
            key=key,
            shown=shown(found),
            least=least,
            most=most,
        )
    return found


def whole_number(file: str, settings: Json, key: str, default: int | None) -> int:
    """Return a whole number of a settings file; a key that is missing or null has the default."""
    value = settings.get(key)
    if value is None and default is not None:
        return default
    # 512.0 is whole, too: some files write 1e30 for "no limit".
    if not is_number(value) or (isinstance(value, float) and not value.is_integer()):
        raise CorruptFile(
            "{file}: {key} is {shown}, not a whole number", file=file, key=key, shown=shown(value)
        )
    return int(value)


def check_known(file: str, keys: Iterable[str], known: Collection[str]) -> None:
    """Refuse a key of a module's settings that is not known: it may change what the module computes."""
    if unknown := sorted(set(keys).difference(known)):
        raise UnsupportedModel(
            "{file} has the key {shown}, which is not known; it may change what the layer computes",
            file=file,
            shown=shown(unknown[0]),
        )


def check_aliases(config: Json, **aliases: str) -> None:
    """Refuse a number that config.json gives twice, differently: transformers takes the alias.

    aliases: of a key, by the other name that transformers knows for it.
    """
    for alias, key in aliases.items():
        if alias in config and config[alias] != config.get(key):
            raise CorruptFile(
                "config.json: {alias} {other} and {key} {shown} are two names of one number; remove the wrong "
                "one",
                alias=alias,
                other=shown(config[alias]),
                key=key,
                shown=shown(config.get(key)),
            )


def boolean(file: str, settings: Json, key: str, default: bool) -> bool:
    """Return true or false of a settings file; a key that is missing or null has the default."""
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CorruptFile(
            "{file}: {key} is {shown}, not true or false", file=file, key=key, shown=shown(value)
        )
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_object_of_strings(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def shown(value: object) -> str:
    """Return a value for a message: on one line, short, and printable whatever it holds."""
    return reprlib.repr(value)
