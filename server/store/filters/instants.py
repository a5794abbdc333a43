"""Dates and times as instants: ISO 8601 texts, compared by when they are and not by how they are written."""

import re
from datetime import UTC, datetime, timedelta

# 2024-01-01, 2024-01-01T08:30, 2024-01-01 08:30:15.5+08:00, 2024-01-01T00:30:15Z
WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def instant(text: str) -> int | None:
    """Return microseconds since 1970 of an ISO 8601 date or time; None for any other text.

    A time without a zone is UTC, and a date is its midnight in UTC. Digits beyond microseconds are cut.
    """
    if not WRITTEN.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None  # as the 30th of February
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return (found - EPOCH) // MICROSECOND
