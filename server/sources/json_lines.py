"""Lines of JSON as documents: an object with a text and perhaps an id, a title and metadata, or a text alone.

Keys of other names are found as the columns of a table are, for each line by its own keys.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import NotADocument, checked, placed, shown, wrong
from server.sources.columns import Columns, Roles, roles_of
from server.sources.decoding import can_be_read_twice, lines, shown_name
from server.sources.notes import Notes
from server.sources.source import Read, Source
from server.sources.values import Types, converted
from server.store.records import Document

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Sets of keys whose roles are remembered.
MOST_SHAPES = 1_000


def documents_of_json(file: Path | None, source: Source) -> Iterator[Read]:
    """Yield a document for each line that is not blank."""
    keys = Keys(file, source)
    for number, line, n_read in lines(file, source.encoding, source.notes):
        if stripped := line.strip():
            try:
                with placed(file, number):
                    document = document_of(parsed(stripped), keys)
            except BadSettings as error:
                source.problems.add(error)
                continue
            yield document, n_read


def parsed(line: str) -> dict[str, Any]:
    """Parse a line; "_id" is another spelling of "id"."""
    try:
        given = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        if SURROGATE.search(line):
            raise NotADocument(
                "not JSON: {error} (a lone surrogate is half a character)", error=error
            ) from None
        raise NotADocument("not JSON: {error}", error=error) from None
    if isinstance(given, str):
        given = {"text": given}
    if not isinstance(given, dict):
        raise NotADocument("{shown} is neither an object nor a string", shown=shown(given))
    if "id" in given and "_id" in given:
        raise NotADocument('it has both "id" and "_id"')
    if "_id" in given:
        given["id"] = given.pop("_id")
    return given


def document_of(given: dict[str, Any], keys: "Keys") -> Document:
    """Return the document of an object. Keys that a document does not have become metadata, unless it has any.

    null means that the key is missing.
    """
    roles = keys.of(given)
    text = given.pop(roles.text)
    id = given.pop(roles.id, None) if roles.id else None
    title = given.pop(roles.title, None) if roles.title else None
    metadata = given.pop("metadata", None)
    if metadata is not None and given:
        key = shown(next(iter(given)))
        raise NotADocument('{key} stands beside "metadata"; move it into "metadata"', key=key)
    metadata = given if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise wrong("metadata", metadata, Message("an object"))
    return checked(
        text,
        id,
        title,
        _typed(metadata, keys.types),
        names=(roles.text, roles.id or "id", roles.title or "title"),
        path=keys.path,
    )


def _typed(metadata: dict[str, Any], types: Types) -> dict[str, Any]:
    """Return metadata with the values of columns whose types were named."""
    for name, kind in types.named.items():
        value = metadata.get(name)
        if kind == "text" and isinstance(value, bool | int | float):
            metadata[name] = shown(value)
        elif isinstance(value, str) and not value.strip() and kind != "text":
            del metadata[name]
        elif isinstance(value, str):
            metadata[name] = converted(name, value.strip() if kind != "text" else value, kind)
    return metadata


@dataclass(slots=True)
class Keys:
    """The keys of the text, the title and the id, by all keys of a line."""

    file: Path | None
    source: Source
    _shapes: dict[tuple[str, ...], Roles] = field(default_factory=dict)
    _ids: dict[str, bool] = field(default_factory=dict)

    @property
    def types(self) -> Types:
        return self.source.options.types

    @property
    def path(self) -> str | None:
        return self.source.row_path(self.file)

    def of(self, given: dict[str, Any]) -> Roles:
        """Return the keys of an object; raises NotADocument where none is the text."""
        shape = tuple(given)
        found = self._shapes.get(shape)
        if found is None:
            found = self._chosen(shape)
            if len(self._shapes) < MOST_SHAPES:
                self._shapes[shape] = found
        return found

    def _chosen(self, shape: tuple[str, ...]) -> Roles:
        asked = self.source.options.columns
        if self._shapes:
            # The first object must have what was asked for; later ones may lack a title or an id.
            asked = Columns(
                asked.text,
                asked.title if asked.title in shape else None,
                asked.id if asked.id in shape else None,
            )
        roles = roles_of([name for name in shape if name != "metadata"], asked)
        if "id" in roles.guessed and roles.id and not self._is_id(roles.id):
            roles = roles.without_id()
        self.source.notes.guess(shown_name(self.file), roles.guesses)
        return roles

    def _is_id(self, key: str) -> bool:
        """Return whether the values of a key name the documents of the file, one each."""
        if key not in self._ids:
            self._ids[key] = can_be_read_twice(self.file) and _distinct(self.file, self.source, key)
            if not self._ids[key]:
                self.source.notes.repeated[shown_name(self.file)] = key
        return self._ids[key]


def _distinct(file: Path | None, source: Source, key: str) -> bool:
    seen = set[int]()
    for _, line, _ in lines(file, source.encoding, Notes()):
        try:
            given = msgspec.json.decode(line) if line.strip() else None
        except (msgspec.DecodeError, RecursionError):
            continue
        if not isinstance(given, dict) or given.get(key) is None:
            continue
        value = hash(str(given[key]))
        if value in seen:
            return False
        seen.add(value)
    return True
