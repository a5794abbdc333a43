"""Standard output and standard error, with the language of the sentences on them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from server.messages.message import Language, Message, language_of


@dataclass(frozen=True, slots=True)
class Terminal:
    """Prints results on `out`, progress and errors on `err`, all in one language."""

    language: Language
    out: TextIO
    err: TextIO

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Terminal":
        """Return the terminal of this process, in the language of its locale."""
        return cls(language_of(environ), sys.stdout, sys.stderr)

    def words(self, template: str | Message, /, **fields: object) -> str:
        """Return a sentence in the language of this terminal."""
        message = template if isinstance(template, Message) else Message(template, **fields)
        return message.text(self.language)

    def say(self, template: str | Message, /, **fields: object) -> None:
        """Print a line of results."""
        self.out.write(self.words(template, **fields) + "\n")

    def inform(self, template: str | Message, /, **fields: object) -> None:
        """Print a line about the work: progress, advice or an error."""
        self.err.write(self.words(template, **fields) + "\n")
