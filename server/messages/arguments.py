"""The parser of a command's arguments: an option that takes one value may be given once."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

# Where a parsed namespace keeps the options that it has seen.
SEEN = "_seen_options"
TWICE = "given twice; give it once"


class StoreOnce(argparse.Action):
    """Stores a value; refuses a second one, of which argparse would keep only the last without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        seen: set[str] = vars(namespace).setdefault(SEEN, set())
        if self.option_strings and self.dest in seen:
            raise argparse.ArgumentError(self, Parser.words(TWICE))
        seen.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser whose options take one value once, also in its sub-commands.

    words: puts a sentence into the language of the terminal; set by `Terminal.parser`.
    """

    words: ClassVar[Callable[[str], str]] = str

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for action in (None, "store"):
            self.register("action", action, StoreOnce)
