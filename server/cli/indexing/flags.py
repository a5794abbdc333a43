"""The flags of the command `index`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from server.messages.terminal import Terminal

if TYPE_CHECKING:
    from server.sources.values import Types


def add_index_flags(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    """Add the flags that say what is read, how, and what happens after an error."""
    words, add = terminal.words, parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help=words('files, folders, patterns such as "docs/**/*.md", or "-" for standard input'),
    )
    add(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help=words("read only files of folders that fit; may be repeated"),
    )
    add(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help=words("leave out files and folders that fit; may be repeated"),
    )
    add(
        "--format",
        help=words("format of the files, such as jsonl or pdf (default: by the suffix of each)"),
    )
    column_flags(parser, terminal)
    _type_flags(parser, terminal)
    _sync_flags(parser, terminal)
    add(
        "--keep-going",
        action="store_true",
        help=words("store what is right and list what is wrong; status 3 if anything is"),
    )
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help=words("write all that is left out or wrong to a file, a JSON object a line"),
    )
    add("--verbose", action="store_true", help=words("name all files that are left out"))


def without_index_flags(parser: argparse.ArgumentParser) -> None:
    """Give a command that stores documents the values of the flags that it lacks."""
    parser.set_defaults(
        keep_going=False,
        report=None,
        verbose=False,
        sync=False,
        sync_name=None,
        allow_empty=False,
        dry_run=False,
        watch=False,
    )


def _sync_flags(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "--sync",
        action="store_true",
        help=words(
            "remove documents, too, that an earlier --sync of the same sources stored and they no longer have"
        ),
    )
    add(
        "--watch",
        action="store_true",
        help=words("as --sync, and go on: store what changes in the folders as it changes"),
    )
    add(
        "--sync-name",
        metavar="NAME",
        help=words("name of the source that documents follow (default: by machine and path)"),
    )
    add(
        "--allow-empty",
        action="store_true",
        help=words("with --sync, remove all where a source has become empty"),
    )
    add(
        "--dry-run",
        action="store_true",
        help=words("print what would be added, replaced and removed, and write nothing"),
    )


def column_flags(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    """Add the flags that name the columns of text, title and id."""
    words, add = terminal.words, parser.add_argument
    add(
        "--text-column",
        metavar="NAME",
        help=words("column or key of the text (default: by a usual name, such as text)"),
    )
    add(
        "--title-column",
        metavar="NAME",
        help=words("column or key of the title, or none (default: by a usual name, such as title)"),
    )
    add(
        "--id-column",
        metavar="NAME",
        help=words("column or key of the id, or none (default: by a usual name, such as id)"),
    )


def _type_flags(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "--types",
        type=_types(terminal),
        metavar="COLUMN=TYPE,...",
        help=words(
            "types of columns: text, number, boolean or date; * is every other column (default: by the"
            " values)"
        ),
    )
    add("--numbers", type=_replaced(terminal), help=argparse.SUPPRESS)


def _types(terminal: Terminal) -> Callable[[str], "Types"]:
    """Return what parses types of columns."""

    def parse(text: str) -> "Types":
        from server.sources.values import parse_types

        found = parse_types(text)
        if found is None:
            raise argparse.ArgumentTypeError(
                terminal.words(
                    "{text!r} is not columns with their types, such as {example}",
                    text=text,
                    example="year=number,code=text",
                )
            )
        return found

    return parse


def _replaced(terminal: Terminal) -> Callable[[str], None]:
    """Return what refuses a flag that is no more."""

    def parse(text: str) -> None:
        kinds = ",".join(f"{name}=number" for name in text.split(","))
        raise argparse.ArgumentTypeError(
            terminal.words(
                "it has become --types; give {flag}",
                flag="--types '*=text'" if text == "none" else f"--types {kinds}",
            )
        )

    return parse
