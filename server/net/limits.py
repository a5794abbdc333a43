"""Limits of one connection, and the refusals that name them.

`config.py` says how to choose the settings among them. A body's limits are the endpoint's.
"""

from dataclasses import dataclass
from typing import NamedTuple

from server.config import Config
from server.errors import InvalidRequest, Overloaded, RequestTooLarge, ServerError

# Browsers send some 20, proxies add ten.
MAX_HEADERS = 128
# Requests of one connection that wait for the answers before theirs. One read brings up to 256,000 bytes,
# of which uvicorn made 14,221 requests and 34 MB (2026-11-25). Clients that pipeline at all send some ten.
MAX_PIPELINED = 16
# Chunks of a body in one read that may be smaller than TINY_CHUNK_BYTES on average. One read brings up to 43,000
# chunks of one byte, and eight such clients held the loop for 0.9 s (2026-11-29, 2 cores).
MAX_TINY_CHUNKS, TINY_CHUNK_BYTES = 4_096, 8
# Seconds that a connection over the limit has to send the request that is then refused.
REFUSED_S = 1.0


class Refusal(NamedTuple):
    """An error for the client. reason: its label in the metric of unread requests."""

    error: ServerError
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that bound a connection."""

    connections: int
    head_bytes: int
    head_s: float
    send_s: float

    @classmethod
    def of(cls, config: Config) -> "Limits":
        return cls(config.max_connections, config.max_head_bytes, config.head_s, config.send_s)

    def late_head(self) -> Refusal:
        error = InvalidRequest(f"the head is incomplete after {self.head_s:g} s")
        return Refusal(error, "head_time")

    def large_head(self, size: int, what: str = "head has") -> Refusal:
        return Refusal(
            RequestTooLarge(
                f"the request's {what} {size} bytes, at most {self.head_bytes} are read"
            ),
            "head_bytes",
        )

    def full(self, connections: int) -> Refusal:
        """Refuse a connection over the limit, when its request has come."""
        error = Overloaded(
            f"there are {connections} connections, at most {self.connections} are allowed;"
            " try again later",
            retry_after_s=1,
        )
        return Refusal(error, "connections")


def many_headers(number: int) -> Refusal:
    error = RequestTooLarge(f"the request has {number} headers, at most {MAX_HEADERS} are read")
    return Refusal(error, "headers")


def many_pipelined(waiting: int) -> Refusal:
    error = Overloaded(
        f"{waiting} requests wait on this connection,"
        f" at most {MAX_PIPELINED} are allowed; read answers before sending more",
        retry_after_s=1,
    )
    return Refusal(error, "pipelined")


def tiny_chunks(size: int, number: int) -> Refusal:
    error = RequestTooLarge(
        f"the body came in {number} chunks for {size} bytes; send chunks of {TINY_CHUNK_BYTES} bytes"
        " or more, or a content-length"
    )
    return Refusal(error, "chunks")
