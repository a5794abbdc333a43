"""A small client of the server, with nothing but Python's own library.

The other examples import it. Copy it into your project, or take an HTTP library that you know.
"""

import json
import os
import urllib.error
import urllib.request
from typing import Any

# The address of `make serve`, and the key of a server with --keys.
URL = os.environ.get("INKWELL_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("INKWELL_API_KEY", "")
TIMEOUT_S = 120


def ask(method: str, path: str, body: Any = None) -> Any:
    """Return the server's answer; ends the program with the server's message if it refuses."""
    headers = {"content-type": "application/json"}
    if KEY:
        headers["authorization"] = f"Bearer {KEY}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{URL}{path}: {error.read().decode(errors='replace')}") from None
    except urllib.error.URLError as error:
        raise SystemExit(
            f"{URL} does not answer ({error.reason}): is `make serve` running?"
        ) from None


def create_collection(name: str) -> None:
    """Create a collection if there is none of this name."""
    listed = ask("GET", "/collections")["collections"]
    if name not in [each["name"] for each in listed]:
        ask("POST", "/collections", {"name": name})
