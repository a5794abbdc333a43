"""What the process says about itself, on standard error: lines for people, or an object an event.

Which events there are, each module decides; none of them says a text or a key. Requests are counted by
`metrics` and listed by `audit`, not here.
"""

import json
import logging
from typing import Any

from server.clock import utc
from server.config import Config

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class PlainLines(logging.Formatter):
    """A record as one line, whatever it names: what would end the line or move a cursor is escaped."""

    def __init__(self) -> None:
        super().__init__(PLAIN)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)


def visible(text: str) -> str:
    """The text with everything that cannot be printed as Python would write it in a string."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, logger, message; request and exception where there are."""

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
        # The name of a file may be no Unicode, which only the escaped form can carry.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def start(config: Config) -> None:
    """To standard error, whatever library speaks."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if config.log_format == "json" else PlainLines())
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    if config.log_format == "json":
        # Python's own warnings would stand between the objects.
        logging.captureWarnings(True)
    # faiss tells how it tried each instruction set before the one it found.
    logging.getLogger("faiss").setLevel(logging.WARNING)
