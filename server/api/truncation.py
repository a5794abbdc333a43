"""The words by which clients say what happens to a text that is longer than the model reads."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from server.errors import InvalidRequest, shown
from server.inference.tokenizer import Kept


class Truncation(NamedTuple):
    """Whether a long text is cut, and which part of it is kept."""

    allowed: bool = True
    keep: Kept = "beginning"


# TEI's word for the side of a text that is cut off.
Direction = Literal["right", "Right", "left", "Left"]
# The words of Cohere and NVIDIA name the part that is cut off. TEI's direction does so too.
TRUNCATIONS: Mapping[str, Truncation] = {
    "": Truncation(),
    "none": Truncation(allowed=False),
    "end": Truncation(),
    "start": Truncation(keep="end"),
}


def truncation_of(given: bool | str) -> Truncation:
    """Return what a request's `truncate` means; raises InvalidRequest for an unknown word."""
    if isinstance(given, bool):
        return Truncation(given)
    found = TRUNCATIONS.get(given.lower())
    if found is None:
        raise InvalidRequest(
            f"truncate {shown(given)} is not known; use 'NONE', 'START' or 'END'", param="truncate"
        )
    return found


def truncation_from(side: Direction, *, allowed: bool) -> Truncation:
    """Return what TEI's direction means. allowed: whether a long text is cut at all."""
    return Truncation(allowed, "end" if side in ("left", "Left") else "beginning")
