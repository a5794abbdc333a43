"""Search at the terminal: a prompt that asks until the user leaves, with commands that begin with a slash.

From a pipe the same lines are read without a prompt, and only hits are printed on standard output.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, get_args

from server.cli.flags import json_value
from server.cli.hits import for_people, show_hits
from server.cli.line_reader import LineReader
from server.cli.searching.options import BY_NAME, OPTIONS, Option, shown_options, with_option
from server.cli.searching.reply import details_of
from server.cli.target import Found, Question, Rerank
from server.errors import BadSettings, ServerError, StartupError
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.collection_name import normal
from server.store.filters.tree import parse
from server.store.search import Mode

LEAVE = {"exit", "quit", "退出"}
MODES: tuple[str, ...] = get_args(Mode)
MAX_TOP_K = 1000
OFF = "off"
# A search over several collections names none itself.
DEFAULT = "default"
# Options that belong to one search; the prompt has other commands for them, or none.
OF_ONE_SEARCH = ("cursor", "like", "unlike", "vector", "highlight")


class Searching(Protocol):
    """Collections that can be searched."""

    def search(self, name: str, question: Question) -> Found: ...

    def count(self, name: str) -> int:
        """Return the number of documents; raises an error where there is no such collection."""

    def names(self) -> Sequence[str]:
        """Return the names and aliases that can be searched."""


class Command(NamedTuple):
    """A command of the prompt. values: what may follow it, for completion."""

    usage: str
    about: Message
    run: Callable[[str], None]
    values: Callable[[], Sequence[str]] = tuple


class _Search(NamedTuple):
    """A search that was shown. name: of its collection."""

    name: str
    question: Question
    found: Found


class Prompt:
    """A conversation. question: how to search, until a command changes it."""

    def __init__(
        self,
        searching: Searching,
        name: str,
        question: Question,
        terminal: Terminal,
        reader: LineReader,
    ) -> None:
        self._searching = searching
        self._name = name
        self._question = question
        self._rerank = question.rerank or Rerank()
        # The last search and its hits, which others go on from.
        self._last: _Search | None = None
        self._terminal = terminal
        self._reader = reader
        self._open = True
        self._commands = self._all_commands()

    def run(self) -> int:
        """Answer until the user leaves or the input ends; status 1 if a query from a pipe failed."""
        terminal, reader = self._terminal, self._reader
        count, failed = self._searching.count(self._name), False
        if not count:
            terminal.inform(empty(self._name))
            return 0
        if reader.interactive:
            reader.edit(self._complete)
            terminal.inform(
                "{count:,} documents in {name}. Type a query and press Enter; /help lists the commands,"
                " /quit leaves.",
                count=count,
                name=self._name,
            )
        try:
            while self._open:
                failed = not self._turn() or failed
        except (EOFError, KeyboardInterrupt):
            if reader.interactive:
                terminal.err.write("\n")  # the cursor still stands behind the prompt
        if reader.interactive:
            terminal.inform("bye")
            return 0
        return 1 if failed else 0

    def _turn(self) -> bool:
        """Read a line and do what it says; return whether that went well."""
        terminal = self._terminal
        try:
            line = self._reader.line(terminal.words("query> "))
        except UnicodeError:
            # Such as half of a deleted Chinese character.
            terminal.inform("that was not valid text, try again")
            return False
        if not line:
            return True
        self._reader.remember(line)
        if line.lower() in LEAVE:
            self._open = False
            return True
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._command(line)
            else:
                self._search(line.removeprefix("/") if line.startswith("//") else line)
            return True
        except StartupError as error:
            terminal.inform("error: {error}", error=error)
        except ServerError as error:
            terminal.inform("error: {error}", error=error.message)
        except KeyboardInterrupt:
            # It ends the search, not the conversation.
            terminal.inform("stopped")
        return False

    def _search(self, text: str) -> None:
        self._show(replace(self._question, text=text))

    def _show(self, question: Question, name: str = "") -> None:
        """Search and show the hits. name: of the collection, if it is not the one that is set."""
        several = "collections" in question.options
        name = name or (DEFAULT if several else self._name)
        found = self._searching.search(name, for_people(question, self._terminal))
        self._last = _Search(name, question, found)
        show_hits(found, question, self._terminal)

    # --- commands -------------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        name, _, value = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise BadSettings(
                "there is no command {name}; /help lists them, and //TEXT searches for /TEXT",
                name=name,
            )
        command.run(value.strip())

    def _all_commands(self) -> Mapping[str, Command]:
        modes = "|".join(MODES)
        found = (
            Command(
                f"/mode {modes}",
                Message("search by meaning, by words, or both"),
                self._set_mode,
                lambda: MODES,
            ),
            Command("/top-k N", Message("number of hits to show"), self._set_top_k),
            Command(
                '/filter {"year": 2024}',
                Message("condition on metadata; /filter off removes it"),
                self._set_filter,
                lambda: (OFF,),
            ),
            Command(
                "/collection NAME",
                Message("search another collection"),
                self._set_collection,
                self._searching.names,
            ),
            Command(
                "/rerank on|off",
                Message("order hits by a model that reads them with the query"),
                self._set_rerank,
                lambda: ("on", OFF),
            ),
            Command("/next", Message("show the next hits of the last search"), self._next),
            Command("/more N", Message("find documents like hit N of the last search"), self._more),
            Command("/like IDS", Message("find documents like those of these ids"), self._like),
            *(self._setting(each) for each in OPTIONS if each.name not in OF_ONE_SEARCH),
            Command("/help", Message("list the commands and show what is set"), self._help),
            Command("/quit", Message("leave"), self._quit),
        )
        return {each.usage.partition(" ")[0]: each for each in found}

    def _set_mode(self, value: str) -> None:
        if value not in MODES:
            raise self._misused("/mode", value)
        self._question = replace(self._question, mode=value)  # type: ignore[arg-type]
        self._show_settings()

    def _set_top_k(self, value: str) -> None:
        if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MAX_TOP_K):
            raise self._misused("/top-k", value)
        self._question = replace(self._question, top_k=int(value))
        self._show_settings()

    def _set_filter(self, value: str) -> None:
        found = None
        if value and value != OFF:
            found = json_value(value)
            if not isinstance(found, dict):
                raise self._misused("/filter", value)
            parse(found)
        self._question = replace(self._question, filter=found)
        self._show_settings()

    def _set_collection(self, value: str) -> None:
        name = normal(value)
        if name not in (names := self._searching.names()):
            raise BadSettings(
                "there is no collection {name}, only {names}",
                name=name or "/collection",
                names=tuple(names) or Message("none"),
            )
        self._name, self._last = name, None
        self._show_settings()

    def _set_rerank(self, value: str) -> None:
        if value not in ("on", OFF):
            raise self._misused("/rerank", value)
        self._question = replace(self._question, rerank=self._rerank if value == "on" else None)
        self._show_settings()

    def _setting(self, option: Option) -> Command:
        """Return the command that sets an option of all further searches."""
        values = option.values if option.metavar else ("on",)
        return Command(
            option.usage,
            option.about,
            lambda value: self._set(option, value),
            lambda: (*values, OFF),
        )

    def _set(self, option: Option, value: str) -> None:
        found = None if value in ("", OFF) else self._value(option, value, f"/{option.name}")
        options = with_option(self._question.options, option.path, found)
        self._question = replace(self._question, options=options)
        self._show_settings()

    def _value(self, option: Option, text: str, command: str) -> object:
        try:
            return option.value(text, self._terminal)
        except (argparse.ArgumentTypeError, ServerError):
            raise self._misused(command, text) from None

    def _next(self, _: str) -> None:
        name, question, _found = self._searched()
        end = question.options.get("offset", 0) + question.top_k
        options = with_option(question.options, ("offset",), end)
        self._show(replace(question, options=options), name)

    def _more(self, value: str) -> None:
        name, question, found = self._searched()
        first = question.options.get("offset", 0) + 1
        place = int(value) - first if value.isascii() and value.isdigit() and len(value) < 9 else -1
        if not 0 <= place < len(found.hits):
            raise self._misused("/more", value)
        # One of several collections has the document.
        name = details_of(found)[place].get("collection", name)
        self._show_like([found.hits[place].id], name)

    def _like(self, value: str) -> None:
        self._show_like(self._value(BY_NAME["like"], value, "/like"))

    def _show_like(self, ids: object, name: str = "") -> None:
        """Search one collection by the vectors of documents: by meaning, whatever mode is set."""
        options = with_option(self._question.options, ("like", "ids"), ids)
        for each in ("offset", "collections", "rerank"):
            options = with_option(options, (each,), None)
        question = replace(self._question, text="", mode="dense", rerank=None, options=options)
        self._show(question, name)

    def _searched(self) -> "_Search":
        if self._last is None:
            raise BadSettings("nothing has been searched yet; type a query first")
        return self._last

    def _help(self, _: str) -> None:
        terminal = self._terminal
        longest = max(len(each.usage) for each in self._commands.values())
        for each in self._commands.values():
            terminal.err.write(f"{each.usage:{longest}}  {terminal.words(each.about)}\n")
        terminal.inform(
            "in the modes lexical and hybrid {phrase} is a phrase, and {excluded} excludes documents that"
            " have this word",
            phrase='"labour law"',
            excluded="-draft",
        )
        self._show_settings()

    def _quit(self, _: str) -> None:
        self._open = False

    def _misused(self, name: str, value: str) -> BadSettings:
        usage = self._commands[name].usage
        return BadSettings("{value!r} is not possible: {usage}", value=value, usage=usage)

    def _show_settings(self) -> None:
        question = self._question
        self._terminal.inform(
            "collection {name} ({count:,} documents) · mode {mode} · top-k {number} · filter {filter} ·"
            " rerank {rerank}",
            name=self._name,
            count=self._searching.count(self._name),
            mode=question.mode,
            number=question.top_k,
            filter=json.dumps(question.filter, ensure_ascii=False) if question.filter else OFF,
            rerank="on" if question.rerank else OFF,
        )
        options = " · ".join(shown_options(question.options))
        if options:
            self._terminal.inform("options: {options}", options=options)

    def _complete(self, before: str, _: str) -> Sequence[str]:
        """Return the commands, or what may follow one."""
        if not before.strip():
            # A space follows those that take a value; readline adds none.
            return tuple(
                f"{name} " if " " in each.usage else name for name, each in self._commands.items()
            )
        command = self._commands.get(before.strip())
        try:
            return command.values() if command else ()
        except ServerError:
            return ()


def empty(name: str) -> Message:
    """Return what to do with a collection that has no documents."""
    return Message(
        "collection {name} is empty; index a file or folder first: python -m server index FILE",
        name=name,
    )
