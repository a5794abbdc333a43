"""Standard output and standard error, with the language of the sentences on them."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from server.messages.message import Language, Message, chinese_of, language_of

# What argparse itself says most often, as it stands in its source.
OF_ARGPARSE = frozenset(
    {
        "usage: ",
        "positional arguments",
        "options",
        "show this help message and exit",
        "%(prog)s: error: %(message)s\n",
        "argument %(argument_name)s: %(message)s",
        "invalid choice: %(value)r (choose from %(choices)s)",
        "unrecognized arguments: %s",
        "the following arguments are required: %s",
        "expected one argument",
        "expected %s arguments",
        "ignored explicit argument %r",
        "ambiguous option: %(option)s could match %(matches)s",
    }
)


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

    def parser(self, prog: str, description: str) -> argparse.ArgumentParser:
        """Return a parser whose own sentences are in the language of this terminal."""
        chinese = self.language == "zh"

        def said(text: str) -> str:
            return chinese_of(text) if chinese and text in OF_ARGPARSE else text

        # subtle: it asks gettext under these names. The process has one terminal, so one language.
        vars(argparse).update(_=said, ngettext=lambda one, many, n: said(one if n == 1 else many))
        return argparse.ArgumentParser(prog=prog, description=description)

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
