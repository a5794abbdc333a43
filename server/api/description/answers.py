"""An example answer of each operation, recorded from a server with the shipped model.

`python -m tests.support.api_answers --write` records them again. Long lists of numbers are shortened.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("answers.json")


@cache
def answers() -> Mapping[str, Any]:
    """Return the answers by operationId; text where the answer is not JSON."""
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
