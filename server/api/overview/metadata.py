"""The metadata that the documents of a collection have, in the native format."""

import msgspec

from server.api.native_errors import NATIVE
from server.api.operation import CollectionCall, CollectionOperation, collection_of
from server.api.replies import Reply, json_body
from server.collections.overview.metadata import metadata_of
from server.store.metadata_summary import Kind


class Value(msgspec.Struct):
    value: str | int | float | bool
    documents: int


class Key(msgspec.Struct):
    """A key of the metadata; one inside an object has a path with dots.

    documents: that have the key. values: at most 20, the most frequent first. complete: there are no other values.
    least, greatest: of its numbers; null where there is none.
    """

    key: str
    kind: Kind
    documents: int
    values: list[Value]
    complete: bool
    least: float | None
    greatest: float | None


class Metadata(msgspec.Struct):
    """The keys, by name, at most 100.

    documents: that were looked at, of `total`. sampled: these are not all, so the numbers are of the sample.
    more_keys: there are others than these.
    """

    keys: list[Key]
    documents: int
    total: int
    sampled: bool
    more_keys: bool


def inside() -> list[CollectionOperation]:
    """Return the operation that describes the metadata of one collection."""
    about = "The keys and values of the metadata"
    return [
        CollectionOperation(
            NATIVE, "GET", "/metadata", metadata, about, "search", response=(Metadata,)
        )
    ]


async def metadata(call: CollectionCall) -> Reply:
    """List the keys of the metadata with their most frequent values, as a choice of filters."""
    found = await metadata_of(collection_of(call))
    keys = [
        Key(
            each.key,
            each.kind,
            each.documents,
            [Value(one.value, one.documents) for one in each.values],
            each.complete,
            each.least,
            each.greatest,
        )
        for each in found.keys
    ]
    return Reply(
        json_body(Metadata(keys, found.documents, found.total, found.sampled, found.more_keys))
    )
