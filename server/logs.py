"""What the process says about itself, on standard error: lines for people, or an object an event.

Which events there are, each module decides; none of them says a text or a key. Requests are counted by
`metrics` and listed by `audit`, not here.
"""

import json
import logging
from typing import Any

from server.config import Config
from server.metrics import utc

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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
        # A request's path may hold half of a surrogate pair, which only the escaped form can carry.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def start(config: Config) -> None:
    """To standard error, whatever library speaks."""
    logging.basicConfig(level=config.log_level.upper(), format=PLAIN)
    if config.log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
        # Python's own warnings would stand between the objects.
        logging.captureWarnings(True)
    # faiss tells how it tried each instruction set before the one it found.
    logging.getLogger("faiss").setLevel(logging.WARNING)
