"""The options of a search, as flags of the command and as commands of the prompt.

Each is named after a key of POST /search: `--group-by-hits` sets `group_by.hits`. Only single values are checked
here. The search itself checks what goes together, in this process as on a server, so both refuse the same.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.cli.flags import Parser, json_value, number
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.collection_name import normal

Json = dict[str, Any]
# Makes a value of a text; raises argparse.ArgumentTypeError.
Parse = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its name, its place in the body of a request, what help says of it, and how its value is written.

    values: what may follow it, if those are few; on and off where there is no metavar.
    """

    name: str
    path: tuple[str, ...]
    about: Message
    metavar: str = ""
    parse: Callable[[Terminal], Parse] | None = None
    values: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """Return how the prompt's command is written."""
        return f"/{self.name} {self.metavar or 'on|off'}"

    def value(self, text: str, terminal: Terminal) -> object:
        """Return the value of a text; raises argparse.ArgumentTypeError."""
        if self.parse is not None:
            return self.parse(terminal)(text)
        if text != "on":
            raise argparse.ArgumentTypeError(text)
        return True


def _whole(least: int) -> Callable[[Terminal], Parse]:
    return partial(number, least=least)


def _number(terminal: Terminal) -> Parse:
    def parse(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise argparse.ArgumentTypeError(terminal.words("{text!r} is not a number", text=text))
        return found

    return parse


def _text(_: Terminal) -> Parse:
    return str


def _names(terminal: Terminal) -> Callable[[str], list[str]]:
    """Return what parses names with commas between, or a JSON list where a name has a comma."""

    def parse(text: str) -> list[str]:
        found = json_value(text) if text.startswith("[") else text.split(",")
        if not (isinstance(found, list) and all(isinstance(each, str) and each for each in found)):
            raise argparse.ArgumentTypeError(
                terminal.words(
                    "{text!r} is neither names with commas nor a JSON list of texts", text=text
                )
            )
        return found

    return parse


def _collections(terminal: Terminal) -> Parse:
    names = _names(terminal)
    return lambda text: [normal(each) for each in names(text)]


def _order(terminal: Terminal) -> Parse:
    """Return what parses keys with commas, each with `:asc` or `:desc` behind it if that is wanted."""
    names = _names(terminal)

    def parse(text: str) -> list[Json]:
        found = []
        for each in names(text):
            key, _, order = each.rpartition(":")
            known = order in ("asc", "desc") and key
            found.append({"key": key, "order": order} if known else {"key": each})
        return found

    return parse


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _vector(terminal: Terminal) -> Parse:
    def parse(text: str) -> list[float]:
        found = json_value(text)
        if not (isinstance(found, list) and all(map(_is_number, found))):
            raise argparse.ArgumentTypeError(
                terminal.words("{text!r} is not a JSON list of numbers", text=text[:80])
            )
        return found

    return parse


FUSIONS = ("blend", "rrf")


def _fusion(terminal: Terminal) -> Parse:
    def parse(text: str) -> str:
        if text not in FUSIONS:
            raise argparse.ArgumentTypeError(
                terminal.words("{text!r} is not one of {names}", text=text, names=FUSIONS)
            )
        return text

    return parse


OPTIONS: Sequence[Option] = (
    Option("offset", ("offset",), Message("leave out so many hits"), "N", _whole(0)),
    Option(
        "cursor",
        ("cursor",),
        Message('continue a search: "" for its first page, then what the page before has named'),
        "CURSOR",
        _text,
    ),
    Option(
        "facets",
        ("facets",),
        Message("count documents by the values of these keys, with commas"),
        "KEYS",
        _names,
    ),
    Option(
        "group-by",
        ("group_by", "key"),
        Message("group the hits by a key; --top-k is then the number of groups"),
        "KEY",
        _text,
    ),
    Option(
        "group-by-hits",
        ("group_by", "hits"),
        Message("hits of each group (default: 3)"),
        "N",
        _whole(1),
    ),
    Option(
        "sort",
        ("sort", "by"),
        Message("order by keys, with commas, such as year:desc; without a query: all documents"),
        "KEYS",
        _order,
    ),
    Option(
        "sort-candidates",
        ("sort", "candidates"),
        Message("put so many of the best hits in order (default: 100)"),
        "N",
        _whole(1),
    ),
    Option(
        "diversity",
        ("diversity", "lambda"),
        Message("choose hits unlike each other: 0 for difference alone, 1 for relevance alone"),
        "LAMBDA",
        _number,
    ),
    Option(
        "diversity-candidates",
        ("diversity", "candidates"),
        Message("choose from so many of the best hits (default: 50)"),
        "N",
        _whole(1),
    ),
    Option(
        "like",
        ("like", "ids"),
        Message("instead of a query: find documents like those of these ids, with commas"),
        "IDS",
        _names,
    ),
    Option(
        "unlike",
        ("like", "unlike"),
        Message("with --like: keep away from the documents of these ids"),
        "IDS",
        _names,
    ),
    Option(
        "collections",
        ("collections",),
        Message("search these collections together, with commas"),
        "NAMES",
        _collections,
    ),
    Option("explain", ("explain",), Message("show how each score came about")),
    Option(
        "parts",
        ("parts",),
        Message("show so many of the best chunks of each document"),
        "N",
        _whole(0),
    ),
    Option(
        "include-document", ("include_document",), Message("show the whole text of each document")
    ),
    Option("include-vectors", ("include_vectors",), Message("show the vector of each hit")),
    Option(
        "highlight",
        ("highlight",),
        Message("with --json: the places of the words of the query in each text"),
    ),
    Option("min-score", ("min_score",), Message("leave out hits with a lower score"), "X", _number),
    Option(
        "rerank-min-score",
        ("rerank", "min_score"),
        Message("leave out hits whose relevance is lower, 0 to 1"),
        "X",
        _number,
    ),
    Option(
        "weights-dense",
        ("weights", "dense"),
        Message("weight of meaning in the mode hybrid (default: 1)"),
        "X",
        _number,
    ),
    Option(
        "weights-lexical",
        ("weights", "lexical"),
        Message("weight of words in the mode hybrid (default: 1)"),
        "X",
        _number,
    ),
    Option(
        "fusion",
        ("fusion",),
        Message("how the mode hybrid joins both: blend or rrf (default: blend)"),
        "|".join(FUSIONS),
        _fusion,
        FUSIONS,
    ),
    Option(
        "vector",
        ("vector",),
        Message("instead of a query: a vector, as a JSON list of numbers"),
        "NUMBERS",
        _vector,
    ),
)
BY_NAME: Mapping[str, Option] = {each.name: each for each in OPTIONS}


def option_flags(parser: Parser, terminal: Terminal) -> None:
    """Add a flag for each option; its value is None where it is not given."""
    for each in OPTIONS:
        about = terminal.words(each.about)
        if each.parse is None:
            parser.add_argument(
                f"--{each.name}", dest=_place(each), action="store_const", const=True, help=about
            )
        else:
            parser.add_argument(
                f"--{each.name}",
                dest=_place(each),
                metavar=each.metavar,
                type=each.parse(terminal),
                help=about,
            )


def given_options(arguments: argparse.Namespace) -> Json:
    """Return the options that flags have given, as keys of a request."""
    found: Json = {}
    for each in OPTIONS:
        value = getattr(arguments, _place(each))
        if value is not None:
            found = with_option(found, each.path, value)
    return found


def _place(option: Option) -> str:
    """Return where the parser keeps a flag: not where a setting of the same name would be."""
    return f"search_option {option.name}"


def with_option(options: Mapping[str, Any], path: Sequence[str], value: object) -> Json:
    """Return the options with another value at a place; None removes what is there."""
    name, *inner = path
    found = dict(options)
    if inner:
        value = with_option(found.get(name, {}), inner, value) or None
    if value is None:
        found.pop(name, None)
    else:
        found[name] = value
    return found


def shown_options(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield each option that is set with its value, as it could be typed again."""
    for each in OPTIONS:
        value: Any = options
        for key in each.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            yield f"{each.name} {_shown(value)}"


def _shown(value: object) -> str:
    if value is True:
        return "on"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = [":".join(each.values()) for each in value]
    if isinstance(value, list) and not any("," in str(each) for each in value):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
