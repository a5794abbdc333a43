"""Flags of the command `search`."""

from server.cli.flags import Parser, filter_flag, number, rerank_model_flag, target_flags
from server.cli.searching.options import option_flags
from server.config_sources import HISTORY
from server.messages.terminal import Terminal


def search_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "query",
        nargs="?",
        metavar="QUERY",
        help=words(
            "leave it out to open a prompt; with --mode lexical or hybrid {phrase} is a phrase, and"
            " {excluded} excludes documents that have this word",
            phrase='"labour law"',
            excluded="-draft",
        ),
    )
    add(
        "--top-k",
        type=number(terminal, least=1),
        default=3,
        help=words("number of hits to show (default: 3)"),
    )
    add("--json", action="store_true", help=words("print the hits as JSON"))
    add(
        "--no-history",
        action="store_true",
        help=words("do not keep what is typed at the prompt ({name} names its file)", name=HISTORY),
    )
    add(
        "--mode",
        choices=("dense", "lexical", "hybrid"),
        default="dense",
        help=words("search by meaning, by words, or by both (default: dense)"),
    )
    filter_flag(parser, terminal)
    add(
        "--rerank",
        action="store_true",
        help=words("order the hits by a model that reads each together with the query"),
    )
    rerank_model_flag(parser, terminal)
    add(
        "--rerank-top-n",
        metavar="N",
        type=number(terminal, least=1),
        help=words("candidates to rerank, at most {most} (default: {number})", most=200, number=50),
    )
    option_flags(parser, terminal)
    target_flags(parser, terminal)
