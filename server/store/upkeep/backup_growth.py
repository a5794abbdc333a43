"""Bounds what the documents of a backup grow into when they are stored.

A title is indexed again with each part, and a path of metadata is stored with each value under it. So a
small file could take hours to restore and fill the disk. The API's limits on documents prevent that, but
older servers had none, and what they stored must stay restorable. So what exceeds the API's limits is
compared with the size of all that was read so far: a restore costs at most a fixed multiple of the file.
"""

from collections.abc import Mapping

from server.store.records import MAX_ALL_PATHS, MAX_PATHS, MAX_TITLE

# The characters of titles that the API repeats in one write: any backup may exceed the limits by so many.
ALLOWED = 1 << 25
# By so many more for each character and each byte of a vector that is stored. A part of 512 tokens with a
# vector of 512 numbers is stored as 3,000 to 4,500 of them, so titles of 30,000 characters in all
# documents are restored.
TIMES = 16


class Growth:
    """What the documents of one backup may still grow by; each method returns whether that is enough."""

    def __init__(self) -> None:
        self._left = ALLOWED
        self._title = 0

    def add_document(
        self, text: str, title: str | None, metadata: str, decoded: Mapping[str, object]
    ) -> bool:
        """Count a document; its parts follow. decoded: its metadata as an object."""
        self._title = len(title or "")
        paths = path_characters(decoded)
        self._left += TIMES * (len(text) + self._title + len(metadata))
        if paths > MAX_PATHS:
            self._left -= paths
        # All paths of one document are in memory together.
        return paths <= MAX_ALL_PATHS and self._left >= 0

    def add_part(self, characters: int, vector_bytes: int) -> bool:
        """Count a part of the last document, with its title before it; vector_bytes: as float32."""
        self._left += TIMES * vector_bytes - characters
        if self._title > MAX_TITLE:
            self._left -= self._title
        return self._left >= 0


def path_characters(metadata: Mapping[str, object]) -> int:
    """Return the characters of the paths of all values, each counted with every value under it."""
    total = 0
    # A stack and no recursion: metadata may be nested deeper than Python's stack.
    pending: list[tuple[int, object]] = [(0, metadata)]
    while pending:
        length, value = pending.pop()
        total += length
        if isinstance(value, Mapping):
            pending += [(length + len(key) + 1, inner) for key, inner in value.items()]
        elif isinstance(value, list):
            pending += [(length, inner) for inner in value]
    return total
