"""Asks before something is removed."""

import sys

from server.cli.invocation import Invocation
from server.errors import BadSettings
from server.messages.message import Message

YES = {"y", "yes", "是"}


def confirm(given: Invocation, question: Message) -> bool:
    """Return whether the user agrees: by --yes, or by an answer at the terminal.

    Raises BadSettings where no terminal can ask: nothing is removed on suspicion.
    """
    if given.arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise BadSettings(
            "{question} Standard input is no terminal that could answer: give --yes",
            question=question,
        )
    terminal = given.terminal
    terminal.err.write(f"{terminal.words(question)} [y/N] ")
    terminal.err.flush()
    agreed = sys.stdin.readline().strip().lower() in YES
    if not agreed:
        terminal.inform("nothing was removed")
    return agreed
