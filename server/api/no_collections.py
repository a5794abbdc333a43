"""Operations of collections on a server that keeps none: each is refused by name, not as an unknown path."""

from typing import cast

from server.api.operation import Call, CollectionOperation, Operation
from server.api.replies import Reply
from server.errors import TaskNotServed


def refused(operation: CollectionOperation) -> Operation:
    """Return the operation with a handler that refuses every request; keys are checked as before."""
    # As a file: a body of any type gets this refusal, not one of its type.
    plain = operation._replace(handler=_refuse, stream=None, stream_types=(), is_file=True)
    # The handler takes any call.
    return cast(Operation, plain)


async def _refuse(_: Call) -> Reply:
    raise TaskNotServed(
        "this server keeps no collections (its setting `collections` is off); send documents and"
        " searches to one that does"
    )
