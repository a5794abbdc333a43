"""Flags that several commands have, and the values that they take."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.cli.invocation import Command
from server.config import add_flags
from server.config_sources import API_KEY
from server.messages.terminal import Terminal
from server.store.collection_name import normal

Parser = argparse.ArgumentParser


def subcommands(
    parser: Parser, metavar: str = "ACTION", *, required: bool = True
) -> Callable[[str, Command | None, str], Parser]:
    """Return what adds a subcommand: by its name, what it runs and what its help says.

    required: whether one must be given. Where none must, the parser has the flags of the subcommands, too.
    """
    parsers = parser.add_subparsers(required=required, metavar=metavar)
    # A flag that is left out behind a subcommand must not replace one before it.
    default = None if required else argparse.SUPPRESS

    def add(name: str, command: Command | None, text: str) -> Parser:
        added = parsers.add_parser(name, help=text, description=text, argument_default=default)
        added.set_defaults(command=command)
        return added

    return add


def target_flags(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--collection",
        type=normal,
        default="default",
        help=terminal.words("name of the collection (default: default)"),
    )
    url_flag(parser, terminal)
    add_flags(parser, terminal, "model", "data", "lanes", "log_level")


def url_flag(parser: Parser, terminal: Terminal, help: str = "") -> None:
    """Add --url and --key-file. help: of --url, where its default is another one."""
    words, add = terminal.words, parser.add_argument
    usual = words(
        "address of a server, also unix:PATH (default: the one that uses --data, if one runs)"
    )
    add("--url", help=help or usual)
    key_file_flag(parser, terminal)


def key_file_flag(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=terminal.words(
            "file with the key of the server (default: the variable {name})", name=API_KEY
        ),
    )


def filter_flag(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--filter",
        type=json_object(terminal),
        help=terminal.words(
            "condition on metadata as JSON, e.g. {example}", example='{"year": 2024}'
        ),
    )


def rerank_model_flag(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--rerank-model",
        metavar="NAME",
        default="",
        help=terminal.words("model to rerank with (default: the first that scores pairs)"),
    )


def encoding_flag(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--encoding",
        help=terminal.words(
            "encoding of the files (default: by their byte order mark, else utf-8 or gb18030)"
        ),
    )


def chunk_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "--chunk-tokens",
        type=number(terminal, least=0),
        help=words(
            "cut documents into chunks of this many tokens, 0 for whole documents"
            " (default: what the model reads, at most 512)"
        ),
    )
    add(
        "--chunk-overlap",
        type=number(terminal, least=0),
        help=words(
            "tokens that a chunk repeats of the one before (default: an eighth, at most 64)"
        ),
    )


def pair_flag(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--pair",
        nargs=2,
        type=Path,
        metavar=("INDEX.faiss", "TEXTS.txt"),
        help=terminal.words("vectors as a FAISS index, and their texts, one a line"),
    )


def number(terminal: Terminal, *, least: int) -> Callable[[str], int]:
    """Return what parses a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < least:
            raise argparse.ArgumentTypeError(
                terminal.words(
                    "{text!r} is not a whole number of at least {least}", text=text, least=least
                )
            )
        return int(text)

    return parse


def json_value(text: str) -> Any:
    """Return the value of a JSON text; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def json_object(terminal: Terminal) -> Callable[[str], dict[str, Any]]:
    """Return what parses a JSON object."""

    def parse(text: str) -> dict[str, Any]:
        found = json_value(text)
        if not isinstance(found, dict):
            raise argparse.ArgumentTypeError(
                terminal.words("{text!r} is not a JSON object", text=text)
            )
        return found

    return parse
