"""What the index of words reads of the chunks of one document: title, headings above, and the chunk's text.

To remove a chunk the index must be given the very same words again. So this depends on the document and the
place alone, and the schema's WORDS_RECIPE names the version of the outline.
"""

from functools import cached_property

from server.store.lexical import indexed
from server.store.passages.outline import Outline
from server.store.records import titled


class ChunkWords:
    """The words of one document's chunks."""

    def __init__(self, title: str | None, text: str, outline: Outline | None = None) -> None:
        """Take the words of a text. outline: of this very text, where it is known."""
        self._title = title
        self._text = text
        self._known = outline

    def of(self, begin: int, end: int) -> str:
        """Return what the index of words reads of a chunk."""
        return indexed(self.text_of(begin, end))

    def text_of(self, begin: int, end: int) -> str:
        """Return the text that the words of a chunk are made of."""
        # Above the beginning there is nothing; most documents have one chunk, and no outline is made.
        context = self._outline.context(begin, self._title) if begin else ""
        return titled(self._title, context + self._text[begin:end])

    @cached_property
    def _outline(self) -> Outline:
        return self._known or Outline.of(self._text)
