"""A section: a piece of a file that becomes one document, and the error for a file without any."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from server.errors import BadSettings
from server.messages.message import SentenceError
from server.store.records import MAX_TITLE


class Unreadable(SentenceError):
    """Raised for a file that cannot be read; the sentence says why, without the file's name."""


class UnreadableFile(BadSettings):
    """Raised for the same, with the file's name in the sentence; other files can be read."""


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of a file.

    tag: its place, as it stands in the document's id after the "#": page=3. place: the same as metadata.
    share: of the file that has been read by its end. id: of the document, where the file names it.
    """

    text: str
    title: str | None
    tag: str
    place: Mapping[str, object] = field(default_factory=dict)
    share: float = 1.0
    id: str | None = None

    def within(self, begin: float, length: float) -> "Section":
        """Return the section with its share of a file in which this part has a place and a length."""
        return replace(self, share=begin + self.share * length)


def clean(text: str) -> str:
    """Return a text without what cannot be stored: NULs and halves of characters."""
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(text: str) -> str:
    """Return a title: white space as single blanks, at most as long as one may be."""
    return " ".join(clean(text).split())[:MAX_TITLE]
