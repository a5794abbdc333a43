"""Keys with which other servers return other vectors, and which this one cannot follow.

They are refused: a vector that was made without them looks like any other. Keys that change no vector are
ignored, as clients of those servers expect.
"""

from collections.abc import Mapping, Sequence

import msgspec

from server.errors import InvalidRequest

# Keys, each with the values that change nothing. Null and empty values never do.
Keys = Mapping[str, Sequence[object]]
EMPTY: Sequence[object] = (None, "", {})


def refuse_other_vectors(request: msgspec.Struct, keys: Keys) -> None:
    """Raise InvalidRequest where the request has one of these keys with another value.

    A list is harmless if all of its elements are.
    """
    for key, harmless in keys.items():
        given = getattr(request, key)
        values = given if isinstance(given, list) else [given]
        if not all(value in EMPTY or value in harmless for value in values):
            raise InvalidRequest(
                f"{key} is not available with this value: it asks for other vectors than this server"
                " makes; leave it out",
                param=key,
            )
