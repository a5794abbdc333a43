"""Flags of `bulk embed` and `bulk load`."""

from pathlib import Path

from server.cli.commands import bulk
from server.cli.flags import Parser, subcommands, target_flags
from server.cli.indexing.flags import column_flags
from server.config import add_flags
from server.messages.terminal import Terminal


def bulk_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, subcommands(parser)
    _embed_flags(add("embed", bulk.embed, words("embed a corpus into Parquet files")), terminal)
    load = add("load", bulk.load, words("store what `bulk embed` wrote in a collection"))
    load.add_argument(
        "folder", type=Path, metavar="FOLDER", help=words("folder that `bulk embed` has completed")
    )
    target_flags(load, terminal)


def _embed_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help=words("Parquet, JSON lines and CSV: files, folders, or patterns in quotes"),
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help=words("folder of the vectors; with the same one, an earlier run is continued"),
    )
    column_flags(parser, terminal)
    add(
        "--with-text",
        action="store_true",
        help=words("write title and text beside the vectors, for `bulk load`"),
    )
    add(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN[:TYPE]",
        help=words("copy a column, of type string, int, float or bool; may be repeated"),
    )
    add(
        "--strict", action="store_true", help=words("stop at the first row that cannot be embedded")
    )
    add(
        "--forget",
        action="store_true",
        help=words("drop rows of files that an earlier run was given and this one is not"),
    )
    add(
        "--address",
        metavar="ADDRESS",
        help=words(
            "scheduler of a Dask cluster, such as {example} (default: this machine)",
            example="tls://10.0.0.1:8786",
        ),
    )
    add_flags(parser, terminal, "model", "lanes", "log_level")
