"""Flags of the command `evaluate`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from server.cli.flags import Parser, encoding_flag, json_object, target_flags
from server.messages.terminal import Terminal

# As `judging` has them, which loads more than a parser should.
WAYS = ("dense", "lexical", "hybrid", "reranked")


def evaluate_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "questions",
        type=Path,
        metavar="QUESTIONS",
        help=words(
            "file of questions with the ids or texts of their right documents: jsonl, csv or tsv; or a"
            " folder in BEIR's layout"
        ),
    )
    add(
        "--question-column",
        metavar="NAME",
        help=words("column of the question (default: one with a usual name)"),
    )
    add(
        "--answer-column",
        metavar="NAME",
        help=words(
            "column of the ids or texts of right documents (default: one with a usual name)"
        ),
    )
    add(
        "--modes",
        type=_modes(terminal),
        metavar="MODES",
        help=words(
            "one or several of {modes}, with commas (default: all that can be asked)",
            modes=",".join(WAYS),
        ),
    )
    add(
        "--filter",
        type=json_object(terminal),
        help=words("condition on metadata as JSON, e.g. {example}", example='{"year": 2024}'),
    )
    add(
        "--rerank-model",
        metavar="NAME",
        default="",
        help=words("model to rerank with (default: the first that scores pairs)"),
    )
    add("--json", action="store_true", help=words("print the report as JSON"))
    add(
        "--verbose",
        action="store_true",
        help=words("also list the questions that each mode answers worst"),
    )
    encoding_flag(parser, terminal)
    target_flags(parser, terminal)


def _modes(terminal: Terminal) -> Callable[[str], tuple[str, ...]]:
    """Return what parses names of modes with commas."""

    def parse(text: str) -> tuple[str, ...]:
        asked = [name.strip() for name in text.split(",")]
        if not set(asked) <= set(WAYS):
            raise argparse.ArgumentTypeError(
                terminal.words(
                    "{text!r} is not one or several of {modes}, with commas",
                    text=text,
                    modes=",".join(WAYS),
                )
            )
        return tuple(way for way in WAYS if way in asked)

    return parse
