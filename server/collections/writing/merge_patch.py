"""Changes of a document's metadata by a merge patch (RFC 7396), without reading or writing any."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from server.collections.document_limits import checked_paths
from server.errors import shown
from server.store.records import Document

Patch = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Changed:
    """The result of a change. documents: those that are different now. missing: ids that are not stored."""

    documents: list[Document]
    missing: list[str]


class Patched(NamedTuple):
    """A document with other metadata. paths: characters of the paths of its values."""

    document: Document
    paths: int


def merged(target: object, patch: object) -> object:
    """Return JSON with a merge patch applied: null removes a key, an object is merged."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def patched(document: Document, patch: Patch) -> Patched | None:
    """Return a document after a patch, None where nothing changes; raises InvalidRequest beyond a limit."""
    metadata = merged(document.metadata, patch)
    assert isinstance(metadata, Mapping)
    if json.dumps(metadata) == json.dumps(document.metadata):
        return None
    paths = checked_paths(metadata, f"the metadata of document {shown(document.id)}")
    return Patched(replace(document, metadata=metadata), paths)
