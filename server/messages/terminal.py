"""Standard output and standard error, with the language of the sentences on them."""

import argparse
import codecs
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from server.messages.arguments import TWICE, Parser
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
# Half of a character, as in a file's name that is not UTF-8. No encoding has it.
SURROGATE = re.compile("[\ud800-\udfff]")

# What would move the cursor, change colours or turn the direction of a line, as in a name from a file that is not
# trusted: control characters but line ends and tabs, and Unicode's controls of direction.
DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{DIRECTION}]|\r(?!\n)")
# JSON has escapes for all of them; those below a blank are always escaped.
CONTROL_IN_JSON = re.compile(f"[\x7f-\x9f{DIRECTION}]")


def as_json(value: object) -> str:
    """Return a value as one line of JSON that can be read, and cannot steer a terminal."""
    line = json.dumps(value, ensure_ascii=False)
    return CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@dataclass(frozen=True, slots=True)
class Terminal:
    """Prints results on `out`, progress and errors on `err`, all in one language.

    colour: whether results are coloured: `out` is a terminal that can, and NO_COLOR is not set.
    """

    language: Language
    out: TextIO
    err: TextIO
    colour: bool = False

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Terminal":
        """Return the terminal of this process, in the language of its locale.

        Characters that its encoding lacks are printed as escapes, so that no text ends a command.
        """
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        able = environ.get("TERM") != "dumb" and not environ.get("NO_COLOR")
        colour = able and sys.stdout.isatty()
        return cls(language_of(environ), sys.stdout, sys.stderr, colour)

    def parser(self, prog: str, description: str) -> argparse.ArgumentParser:
        """Return a parser whose own sentences are in the language of this terminal."""
        chinese = self.language == "zh"

        def said(text: str) -> str:
            return chinese_of(text) if chinese and text in (*OF_ARGPARSE, TWICE) else text

        # subtle: it asks gettext under these names. The process has one terminal, so one language.
        vars(argparse).update(_=said, ngettext=lambda one, many, n: said(one if n == 1 else many))
        Parser.words = said
        return Parser(prog=prog, description=description)

    def words(self, template: str | Message, /, **fields: object) -> str:
        """Return a sentence in the language of this terminal, with control characters as escapes."""
        message = template if isinstance(template, Message) else Message(template, **fields)
        return CONTROL.sub(_escaped, message.text(self.language))

    def styled(self, text: str, style: str) -> str:
        """Return a text in a style, the number of an escape sequence; plain without colours."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and text else text

    def say(self, template: str | Message, /, **fields: object) -> None:
        """Print a line of results."""
        self.out.write(self.words(template, **fields) + "\n")

    def say_json(self, value: object) -> None:
        """Print a value as one line of JSON, in ASCII where the output is not UTF-8."""
        line = as_json(value)
        utf_8 = codecs.lookup(self.out.encoding or "utf-8").name == "utf-8"
        if not utf_8 or SURROGATE.search(line):
            line = json.dumps(value)
        self.out.write(line + "\n")

    def inform(self, template: str | Message, /, **fields: object) -> None:
        """Print a line about the work: progress, advice or an error."""
        self.err.write(self.words(template, **fields) + "\n")
