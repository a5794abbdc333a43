"""The only clocks of the server."""

import time

now = time.perf_counter
# The time of day: for keys that expire, the audit, traces and the time of a collection's last write. Nothing is
# computed from it.
wall_s = time.time


def utc(seconds: float) -> str:
    """Return a time in seconds since 1970 as ISO 8601 with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03}Z"
