"""Reads what is typed at the prompt: with editing, history and completion on a terminal.

Python's readline does it: GNU readline or libedit of the system. Both know the widths of Chinese in a UTF-8
locale. prompt_toolkit would be two more packages to install, lock and bundle, for colours while typing.
Where Python was built without readline, lines are read without it.
"""

import locale
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from server.cli.history import History
from server.messages.terminal import Terminal

# Returns the whole words that may stand in place of the last one of a line, by the line before it.
Complete = Callable[[str, str], Sequence[str]]


class LineReader:
    """Lines of standard input. interactive: whether a person types them."""

    def __init__(self, terminal: Terminal, history: History | None = None) -> None:
        self._terminal = terminal
        self._history = history
        self.interactive = sys.stdin.isatty()
        # Only then does Python's `input` use readline; else it would print the prompt into the results.
        self._editing = self.interactive and sys.stdout.isatty()

    def edit(self, complete: Complete) -> None:
        """Turn on editing, history and completion, where there is a terminal."""
        if not self._editing:
            return
        try:
            import readline
        except ImportError:
            return
        if locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX"):
            # The locale that the environment names is not installed, as in many containers. Readline would
            # take the bytes of a Chinese character for keys.
            with suppress(locale.Error):
                locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(" ")
        readline.set_auto_history(False)
        readline.clear_history()
        found: list[str] = []

        def next_word(text: str, state: int) -> str | None:
            if state == 0:
                before = readline.get_line_buffer()[: readline.get_begidx()]
                found[:] = [each for each in complete(before, text) if each.startswith(text)]
            return found[state] if state < len(found) else None

        readline.set_completer(next_word)
        for line in self._history.lines if self._history else ():
            readline.add_history(line)

    def line(self, prompt: str) -> str:
        """Return the next line; raises EOFError at the end, UnicodeError for what is not text."""
        if self._editing:
            found = input(f"\n{prompt}")
        else:
            if self.interactive:
                self._terminal.err.write(prompt)
                self._terminal.err.flush()
            found = sys.stdin.readline()
            if not found:
                raise EOFError
        found.encode()
        return " ".join(found.split())

    def remember(self, line: str) -> None:
        """Keep a line for the arrow keys, here and next time."""
        if not self._editing or self._history is None:
            return
        repeated = self._history.lines[-1:] == [line]
        self._history.add(line)
        if "readline" in sys.modules and not repeated:
            sys.modules["readline"].add_history(line)
