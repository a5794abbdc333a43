"""Divides a query into what is asked for, what stands between quotation marks, and what a minus excludes.

"劳动 合同" and "labour law" are phrases: a text must have them in a row. -draft and -"first draft" exclude
the texts that have them. A minus excludes only at the beginning of a word, so state-of-the-art and A - B
exclude nothing, nor does -5, which is a number; -"5" does. A quotation mark without another one is text.
So is everything in a query of several lines: it is more likely a text than a search. Chinese and other
quotation marks are part of a question more often than not, so they require nothing.
"""

import re
from dataclasses import dataclass

# subtle: 17" and 19" are inches, so no letter and no digit of ASCII stands before the first mark.
QUOTED = re.compile(r'(?<![a-z0-9"])(?:(?<!\S)(-))?"([^"]+)"(?![a-z0-9])')
EXCLUDED = re.compile(r"(?<!\S)-([^\W\d_]\S*)")
# Takes the place of what was cut out: neither a word nor a blank.
APART = "\0"


@dataclass(frozen=True, slots=True)
class Divided:
    """A folded query, divided. rest: what is asked for beside the phrases."""

    rest: str
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def divide(folded: str, *, in_place: bool = False) -> Divided:
    """Divide a folded query. in_place: whether each character of the rest keeps its place."""
    if "\n" in folded.strip():
        return Divided(folded)
    required: list[str] = []
    excluded: list[str] = []

    def apart(match: re.Match[str]) -> str:
        return APART * len(match.group()) if in_place else APART

    def quoted(match: re.Match[str]) -> str:
        minus, text = match.groups()
        if not any(map(str.isalnum, text)):
            return match.group()
        (excluded if minus else required).append(text)
        return apart(match)

    def minus(match: re.Match[str]) -> str:
        excluded.append(match.group(1))
        return apart(match)

    rest = EXCLUDED.sub(minus, QUOTED.sub(quoted, folded))
    return Divided(rest, tuple(required), tuple(excluded))
