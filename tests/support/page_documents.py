"""Documents for the tests and images of the page: a company's handbook, hostile texts, and many rows."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Questions about it use other words than it does.
LINES = (ROOT / "tests/web/handbook.jsonl").read_text(encoding="utf-8").splitlines()
HANDBOOK: list[dict[str, Any]] = [json.loads(line) for line in LINES]

SCRIPT = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
OVERRIDE = "\u202etxt.exe\u2066"
# Whatever a stranger may have stored: markup, addresses that are code, and characters that turn the direction.
HOSTILE: list[dict[str, Any]] = [
    {
        "id": "<b onmouseover='window.ran = 3'>",
        "title": f"markup {SCRIPT}",
        "text": f"hostile text {SCRIPT} and more",
        "metadata": {SCRIPT: SCRIPT, "link": "javascript:window.ran = 4"},
    },
    {"id": f"id{OVERRIDE}", "title": f"report{OVERRIDE}", "text": f"hostile override {OVERRIDE} text"},
    {"id": "a/b c?d#e%2F", "title": "slashes", "text": "hostile path 😀😀 in an id"},
    {"id": "javascript:window.ran = 5", "title": "", "text": "hostile id", "metadata": {"deep": {"a": [1]}}},
]  # fmt: skip

# One document of many passages, with characters before them that JavaScript counts as two.
LONG: list[dict[str, Any]] = [
    {
        "id": "handbook.txt",
        "title": "员工手册（全文）",
        "text": "😀😀\n"
        + "\n".join(f"{each['title']}\n{each['text']}" for each in reversed(HANDBOOK)),
        "metadata": {"file": "handbook.txt", "year": 2025},
    }
]


def many(number: int) -> list[dict[str, Any]]:
    """Return short rows that all share a word, so that one search finds all of them."""
    return [
        {"id": f"row-{place}", "text": f"row {place}", "metadata": {"even": place % 2 == 0}}
        for place in range(1, number + 1)
    ]
