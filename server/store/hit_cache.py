"""Parts of documents that searches have shown lately, so that hits are not read and checked again.

A label stands for one version of one part for ever: what is kept here can be forgotten, but never be
wrong. Whether a label is still to be found is the index's business.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from server.store.records import Part

# Of the kept texts; about 16 MB where all of them are Chinese. Reading and checking ten parts takes
# 0.15 ms, a tenth of a search's share of two cores when 16 clients ask at once (2026-11-24).
MAX_CHARACTERS = 8_000_000


class Parts:
    """From any thread: each step on the dictionary is whole by itself, and losing one is harmless."""

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._kept: OrderedDict[int, Part] = OrderedDict()
        self._characters = 0

    def known(self, labels: Iterable[int]) -> dict[int, Part]:
        """By label, those that are kept."""
        found = {}
        for label in labels:
            part = self._kept.get(label)
            if part is not None:
                found[label] = part
        return found

    def keep(self, parts: Mapping[int, Part]) -> None:
        """Add `parts`, and forget the oldest beyond the bound."""
        for label, part in parts.items():
            if label not in self._kept:
                self._kept[label] = part
                self._characters += len(part.text)
        while self._characters > self._max_characters and self._kept:
            self._characters -= len(self._kept.popitem(last=False)[1].text)
