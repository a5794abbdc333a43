"""Commands on the synonyms and stop words of a collection."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.errors import BadSettings
from server.messages.message import Message


def get(given: Invocation) -> int:
    """Print the synonyms and stop words, in the form that `put` reads."""
    with opening.target(given) as (target, run):
        found = run(target.words())
    given.terminal.say_json(found)
    return 0


def put(given: Invocation) -> int:
    """Replace the synonyms and stop words by those of a file."""
    asked = _read(given.arguments.file)
    with opening.target(given) as (target, run):
        run(target.set_words(asked))
        found = run(target.words())
    given.terminal.say(
        "{name} has {synonyms:,} groups of synonyms and {stop_words:,} stop words",
        name=given.arguments.collection,
        synonyms=len(found["synonyms"]),
        stop_words=len(found["stop_words"]),
    )
    return 0


def _read(file: str) -> dict[str, Any]:
    """Return the JSON object of a file; raises BadSettings."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        found = json.loads(raw.decode("utf-8-sig"))
    except OSError as error:
        why: object = os.strerror(error.errno or 0)
    except (ValueError, RecursionError):
        why = Message("it is not JSON in UTF-8")
    else:
        if isinstance(found, dict):
            return found
        why = Message("it is not a JSON object")
    raise BadSettings(
        "{file} cannot be read: {why}; it needs {example}",
        file=file,
        why=why,
        example='{"synonyms": [["AI", "人工智能"]], "stop_words": []}',
    )
