"""Refuses a tokenizer.json whose time or memory for a text has no known bound.

Some patterns take exponential time on a short text: one request would then hold the server. Trying a
pattern does not show whether it does. So two kinds are accepted: the patterns of published tokenizers, and
patterns of a form that reads every character once. The exporter and the server both check.
"""

import re
import reprlib
from collections.abc import Iterator
from typing import Any

from server.errors import BadArtifact

# Of GPT-2, Llama 3 and Qwen 2.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_WORDS}",
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_WORDS}",
    }
)
# One character: itself, a class in brackets, or an escape such as \s or \p{L}; no reference to a group.
_ONE = (
    r"(?:[^\\^$*+?()\[\]{}|]|\[\^?(?:\\.|[^\[\]\\&])+\]|\\[pP]\{\^?\w+\}|\\[dDwWsSnrtfv]|\\[^\w])"
)
# Only the last of a branch may repeat: nothing after it can fail and make it try again.
_BRANCH = rf"\^?{_ONE}*(?:{_ONE}(?:[*+?]|\{{\d{{1,2}}(?:,\d{{0,2}})?\}})|\$)?"
READS_ONCE = re.compile(rf"{_BRANCH}(?:\|{_BRANCH})*", re.ASCII)
LONGEST_PATTERN = 1_000
# How many times longer all replacements together may make a text.
MOST_GROWTH = 64


def check_bounds(description: Any) -> None:
    """Raise BadArtifact for a pattern, or for replacements, without a known bound.

    description: the decoded tokenizer.json. The error does not name the file; the caller does.
    """
    growth = 1
    for part in _parts(description):
        if "Regex" in part or "String" in part:
            _check_pattern(part)
        if isinstance(part.get("content"), str) and "pattern" in part:
            growth *= max(1, len(part["content"]))
    if growth > MOST_GROWTH:
        raise BadArtifact(
            "it has replacements that make a text up to {growth:.0e} times longer, at most {most} times "
            "is allowed",
            growth=float(min(growth, 10**300)),
            most=MOST_GROWTH,
        )


def _check_pattern(pattern: dict[str, Any]) -> None:
    regex = pattern.get("Regex")
    if pattern.get("String") == "" or not isinstance(regex, str | None):
        raise BadArtifact("it has an empty pattern")
    if regex is None or regex in PUBLISHED:
        return
    if len(regex) > LONGEST_PATTERN or not READS_ONCE.fullmatch(regex):
        raise BadArtifact(
            "it has the pattern {shown}, whose time for a text has no known bound; patterns of published "
            "tokenizers and simple ones such as \\s+ are read",
            shown=reprlib.repr(regex),
        )


def _parts(description: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in the description, except those of the vocabulary.

    subtle: the library also reads a part written as a list, ["Split", {"Regex": ...}, ...]. So a pattern is
    recognised by its own keys, wherever it stands.
    """
    waiting = [
        value
        for key, value in (description.items() if isinstance(description, dict) else ())
        if key not in ("model", "added_tokens")
    ]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
