"""Flags of the command `evaluate`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from server.cli.flags import Parser, encoding_flag, filter_flag, rerank_model_flag, target_flags
from server.messages.terminal import Terminal

# As `judging` has them, which loads more than a parser should.
WAYS = ("dense", "lexical", "hybrid", "reranked")
# Each embeds all documents again.
MOST_SIZES = 8


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
        "--documents",
        nargs="+",
        metavar="SOURCE",
        help=words(
            "files or folders to judge with instead of a collection: they are indexed for this only"
        ),
    )
    add(
        "--chunk-tokens",
        type=_sizes(terminal),
        metavar="SIZES",
        help=words(
            "sizes of chunks to compare, in tokens with commas, 0 for whole documents: for each, all"
            " documents are embedded again, in a folder that is removed afterwards"
        ),
    )
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help=words("write a picture of the figures to an SVG file"),
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
    filter_flag(parser, terminal)
    rerank_model_flag(parser, terminal)
    add("--json", action="store_true", help=words("print the report as JSON"))
    add(
        "--verbose",
        action="store_true",
        help=words("also list the questions that each mode answers worst"),
    )
    encoding_flag(parser, terminal)
    target_flags(parser, terminal)


def _sizes(terminal: Terminal) -> Callable[[str], tuple[int, ...]]:
    """Return what parses sizes of chunks with commas."""

    def parse(text: str) -> tuple[int, ...]:
        asked = [each.strip() for each in text.split(",")]
        if not all(each.isascii() and each.isdigit() and len(each) <= 6 for each in asked):
            raise argparse.ArgumentTypeError(
                terminal.words("{text!r} is not numbers of tokens, with commas", text=text)
            )
        sizes = tuple(dict.fromkeys(map(int, asked)))
        if len(sizes) > MOST_SIZES:
            raise argparse.ArgumentTypeError(
                terminal.words(
                    "{n} sizes, at most {most} are compared at once", n=len(sizes), most=MOST_SIZES
                )
            )
        return sizes

    return parse


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
