"""Backups of collections and restoring them, in the native format; both are streams of bytes."""

import msgspec
from starlette.datastructures import QueryParams

from server.api.administration.collections import Stats, stats_of
from server.api.body import decoded
from server.api.decoding import check_parameters
from server.api.native_errors import NATIVE
from server.api.operation import CollectionCall, CollectionOperation, collection_name
from server.api.replies import Reply, json_body
from server.api.streaming.body_stream import BodyStream
from server.api.streaming.reply_stream import begun
from server.errors import InvalidRequest, UnsupportedMediaType

OCTETS = b"application/octet-stream"
TYPES = (OCTETS, b"application/vnd.sqlite3", b"application/x-sqlite3")
OPTIONS = ("replace",)


class BackupRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A backup has no options."""


def inside() -> list[CollectionOperation]:
    """Return the operations that copy one collection to a client and back."""
    return [
        CollectionOperation(
            NATIVE,
            "POST",
            "/backup",
            backup,
            "Get a backup of the collection",
            "admin",
            (BackupRequest,),
            plain=OCTETS.decode(),
        ),
        CollectionOperation(
            NATIVE,
            "POST",
            "/restore",
            refuse,
            "Make the collection from a backup",
            "admin",
            response=(Stats,),
            query=OPTIONS,
            status=201,
            is_file=True,
            stream=restore,
            stream_types=TYPES,
        ),
    ]


async def backup(call: CollectionCall) -> Reply:
    """Send the collection as it is at one moment, in the form that restoring reads."""
    await decoded(call.body, BackupRequest)
    pieces = await begun(call.collections.backup(collection_name(call)))
    return Reply(b"", content_type=OCTETS, stream=pieces)


async def restore(call: CollectionCall, body: BodyStream) -> Reply:
    options = QueryParams(call.scope["query_string"])
    check_parameters(options, OPTIONS)
    asked = options.get("replace", "false")
    if asked not in ("true", "false"):
        raise InvalidRequest(f"replace is {asked[:80]!r}; give true or false", param="replace")
    made = await call.collections.restore(
        collection_name(call), aiter(body), replace=asked == "true"
    )
    return Reply(json_body(await stats_of(call.collections, made)), status=201)


async def refuse(call: CollectionCall) -> Reply:
    """Make the collection from a backup, checked as a whole before anything changes."""
    raise UnsupportedMediaType(
        "send the backup as application/octet-stream (with curl: -H 'Content-Type:"
        " application/octet-stream' -T FILE -X POST)"
    )
