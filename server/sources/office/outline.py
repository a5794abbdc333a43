"""Headings and paragraphs in the order of a text, as sections under their heading paths."""

from collections.abc import Iterator

from server.sources.office.section import Section, clean, one_line
from server.sources.place import HEADING

# Characters of a section. A text without headings is divided at the end of a paragraph, so that no write
# is large.
MOST_CHARACTERS = 100_000
# Between the headings of a path.
UNDER = " > "
# Characters of a heading; what is longer is a paragraph that was formatted as one.
LONGEST_HEADING = 300


class Outline:
    """Collects headings and paragraphs; gives a section for each heading with a text under it.

    A heading without a text of its own, whose subheadings follow at once, is only part of their paths.
    """

    def __init__(self, title: str, first: int = 1) -> None:
        """Take the title of the file, for what comes before the first heading."""
        self._title = one_line(title)
        self._path: list[tuple[int, str]] = []
        self._texts: list[str] = []
        self._length = 0
        self._bare = False
        self.number = first

    def heading(self, level: int, text: str) -> Iterator[Section]:
        """Begin the section of a heading; level: 1 for the highest."""
        text = one_line(text)
        if not text:
            return
        if len(text) > LONGEST_HEADING:
            yield from self.paragraph(text)
            return
        above = bool(self._path) and self._path[-1][0] < level
        yield from self._ended(keep_bare=not above)
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        self._path.append((level, text))
        self._bare = True

    def paragraph(self, text: str) -> Iterator[Section]:
        """Add a paragraph."""
        text = clean(text).strip()
        while text:
            part, text = text[:MOST_CHARACTERS], text[MOST_CHARACTERS:]
            if self._texts and self._length + len(part) > MOST_CHARACTERS:
                yield from self._ended()
            self._texts.append(part)
            self._length += len(part)
            self._bare = False

    def end(self) -> Iterator[Section]:
        """End the last section."""
        yield from self._ended()
        self._path.clear()

    def _ended(self, *, keep_bare: bool = True) -> Iterator[Section]:
        texts = self._texts
        if not texts and self._bare and keep_bare:
            texts = [self._path[-1][1]]
        if texts:
            path = UNDER.join(text for _, text in self._path)
            place: dict[str, object] = {HEADING: path} if path else {}
            title = one_line(path) or self._title
            yield Section("\n".join(texts), title, f"section={self.number}", place)
            self.number += 1
        self._texts, self._length, self._bare = [], 0, False
