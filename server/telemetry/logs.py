"""The log, on standard error: lines for people, or one JSON object for each event.

Each module decides what it logs, and never logs a text or a key. Requests are counted by `metrics` and
listed by `audit`, not logged.
"""

import json
import logging
from typing import Any

from server.clock import utc
from server.config import Config

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class PlainLines(logging.Formatter):
    """Formats a record as one line: characters that end a line or move the cursor are escaped."""

    def __init__(self) -> None:
        super().__init__(PLAIN)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)


def visible(text: str) -> str:
    """Return the text with its unprintable characters escaped as in a Python string."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and maybe request and exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hasattr(record, "request"):
            line["request"] = record.request
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # The name of a file may not be valid Unicode: then only the escaped form can be written.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def start(config: Config) -> None:
    """Send the log of this server and its libraries to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if config.log_format == "json" else PlainLines())
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    if config.log_format == "json":
        # Otherwise Python's own warnings would stand between the objects.
        logging.captureWarnings(True)
    # faiss logs every instruction set that it tries.
    logging.getLogger("faiss").setLevel(logging.WARNING)
