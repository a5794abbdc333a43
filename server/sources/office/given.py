"""A file as a reader gets it: its bytes, its names, and how it is to be read."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from server.messages.message import Message
from server.sources.source import Source


@dataclass(frozen=True, slots=True)
class Given:
    """A file of a source, in memory.

    name: its path as documents have it, relative to the folder that is read. shown: as messages have it.
    """

    name: str
    shown: str
    data: bytes
    source: Source

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def note(self, template: Message) -> None:
        """Note what of the file was left out or assumed."""
        self.source.notes.add(Message("{name}: {why}", name=self.shown, why=template))
