"""Reads the JSON files of a model's folder, and numbers in them, and names the file at fault."""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from export.errors import CorruptFile, NoSuchModel

Json = Mapping[str, Any]

# Larger than any number of a network that fits in memory. A damaged number is refused early by it.
LARGEST_SIZE = 10_000_000


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file; raises an ExportError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoSuchModel("{path} does not exist", path=path) from None
    except OSError as error:
        raise CorruptFile(
            "{path} cannot be read: {strerror}", path=path, strerror=error.strerror
        ) from None
    except ValueError as error:
        raise CorruptFile("{path} is not valid JSON: {error}", path=path, error=error) from None
    except RecursionError:
        raise CorruptFile("{path} nests objects or arrays too deeply", path=path) from None
    if not isinstance(value, dict):
        raise CorruptFile("{path} must hold a JSON object", path=path)
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file, or an empty one where there is no file."""
    return read_json(path) if path.exists() else {}


def size(config: Json, key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int:
    """Return a count from config.json, 1 to `most`; without a default the key must be there."""
    if default is None and key not in config:
        raise CorruptFile("config.json lacks {key}", key=key)
    # A null counts as the default, and is refused where there is none.
    found = whole_number("config.json", config, key, default)
    if not 1 <= found <= most:
        raise CorruptFile(
            "config.json: {key} {shown} is outside 1 to {most}",
            key=key,
            shown=shown(found),
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


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_object_of_strings(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def shown(value: object) -> str:
    """Return a value for a message: on one line, short, and printable whatever it holds."""
    return reprlib.repr(value)
