"""Commands, flags and help of the command line; what a command does is in `commands`."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from server import VERSION
from server.cli.agents.flags import mcp_flags
from server.cli.commands import (
    agents,
    doctor,
    documents,
    evaluate,
    keys,
    maintenance,
    searching,
    serve,
    stored,
    transfer,
)
from server.cli.commands import collections as of_collections
from server.cli.commands import index as indexing
from server.cli.document_flags import (
    collections_flags,
    delete_flags,
    documents_flags,
    transfer_flags,
    words_flags,
)
from server.cli.evaluation.flags import evaluate_flags
from server.cli.exchange.bulk_flags import bulk_flags
from server.cli.first_model import MODEL_ID, with_fetched_model
from server.cli.flags import (
    Parser,
    chunk_flags,
    encoding_flag,
    number,
    pair_flag,
    subcommands,
    target_flags,
    url_flag,
)
from server.cli.indexing.flags import add_index_flags, without_index_flags
from server.cli.invocation import Command, Invocation
from server.cli.searching.flags import search_flags
from server.config import add_flags, effective, flags_given
from server.errors import ServerError, StartupError
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.collection_name import normal
from server.system.output import until_reader_leaves
from server.telemetry import logs

# What a shell reports of a command that Ctrl-C has ended.
INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    environ = os.environ
    terminal = Terminal.of(environ)
    arguments = _parser(terminal).parse_args(argv)
    try:
        found = effective(environ, flags_given(arguments))
        config, origins = with_fetched_model(found, environ)
        logs.start(config)
        command: Command = arguments.command
        return command(Invocation(config, arguments, terminal, origins, environ))
    except StartupError as error:
        terminal.inform("error: {error}", error=error)
        return error.exit_status
    except ServerError as error:
        terminal.inform("error: {error}", error=error.message)
    except KeyboardInterrupt:
        terminal.err.write("\n")
        terminal.inform("stopped")
        return INTERRUPTED
    return 1


def run() -> None:
    """Run the command of this process, and end the process with its status."""
    status = until_reader_leaves(lambda: main(sys.argv[1:]))
    if status == INTERRUPTED:
        # A thread may wait for a pipe or a terminal, and Python would wait for the thread.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _parser(terminal: Terminal) -> Parser:
    words = terminal.words
    parser = terminal.parser(
        "python -m server", words("Inkwell: private embeddings and search on a CPU")
    )
    parser.add_argument(
        "--version", action="version", version=VERSION, help=words("print the version and exit")
    )
    add = subcommands(parser, "COMMAND")
    for name, text, command, flags in COMMANDS:
        flags(add(name, command, words(text)), terminal)
    return parser


def _serve_flags(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--fetch",
        action="store_true",
        help=terminal.words(
            "if no model is named and none is there, download {model} and export it", model=MODEL_ID
        ),
    )
    add_flags(parser, terminal)


def _index_flags(parser: Parser, terminal: Terminal) -> None:
    add_index_flags(parser, terminal)
    encoding_flag(parser, terminal)
    chunk_flags(parser, terminal)
    target_flags(parser, terminal)


def _export_flags(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help=terminal.words('file to write, a JSON document a line; "-" for standard output'),
    )
    pair_flag(parser, terminal)
    parser.add_argument(
        "--with-vectors",
        action="store_true",
        help=terminal.words("write the vectors of each document too, for import --embedder"),
    )
    target_flags(parser, terminal)


def _import_flags(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        metavar="FILE",
        help=terminal.words("file to read, a JSON document a line"),
    )
    without_index_flags(parser)
    pair_flag(parser, terminal)
    parser.add_argument(
        "--embedder",
        metavar="NAME",
        help=terminal.words("what made the vectors of the documents; nothing is embedded then"),
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        metavar="FILE.npy",
        help=terminal.words("vectors, a row for each line of FILE (default: those in the lines)"),
    )
    encoding_flag(parser, terminal)
    chunk_flags(parser, terminal)
    target_flags(parser, terminal)


def _backup_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add("name", type=normal, metavar="NAME", help=words("name of the collection"))
    add("file", type=Path, metavar="FILE", help=words("file to write, replaced if it exists"))
    url_flag(parser, terminal, help=words("address of a server, also unix:PATH (default: --data)"))
    add_flags(parser, terminal, "data", "log_level")


def _restore_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add("file", type=Path, metavar="FILE", help=words("file that `backup` wrote"))
    add(
        "--collection",
        type=normal,
        help=words("name of the collection (default: its name in the backup)"),
    )
    add("--force", action="store_true", help=words("replace a collection of the same name"))
    url_flag(parser, terminal)
    add_flags(parser, terminal, "data", "log_level")


def _check_flags(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--collection",
        type=normal,
        help=terminal.words("check this collection only (default: all)"),
    )
    add_flags(parser, terminal, "data", "log_level")


def _reindex_flags(parser: Parser, terminal: Terminal) -> None:
    chunk_flags(parser, terminal)
    target_flags(parser, terminal)


def _doctor_flags(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--json", action="store_true", help=terminal.words("print the findings as JSON")
    )
    add_flags(parser, terminal)


def _key_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, subcommands(parser)
    new = add("new", keys.new, words("create a key and show it once"))
    listing = add("list", keys.list_, words("list names, scopes and quotas"))
    remove = add("remove", keys.remove, words("remove a key"))
    for each in (new, listing, remove):
        add_flags(each, terminal, "keys", "log_level")
    new.add_argument("name", metavar="NAME", help=words("name of the key"))
    new.add_argument(
        "--scopes",
        required=True,
        help=words(
            "one or several of {scopes}, with commas", scopes="embed,search,write,admin,metrics"
        ),
    )
    new.add_argument(
        "--expires", metavar="DATE", help=words("last day of the key, YYYY-MM-DD in UTC")
    )
    above_0 = number(terminal, least=1)
    new.add_argument(
        "--requests-per-minute", type=above_0, metavar="N", help=words("requests a minute, at most")
    )
    new.add_argument(
        "--tokens-per-minute", type=above_0, metavar="N", help=words("tokens a minute, at most")
    )
    new.add_argument(
        "--collections",
        # Not where the setting of this name would be.
        dest="allowed",
        metavar="NAMES",
        help=words(
            "collections that the key may use, with commas; {example} is every name that begins so"
            " (default: all)",
            example="laws-*",
        ),
    )
    remove.add_argument("name", metavar="NAME", help=words("name of the key"))


# Each with what its help says, what it runs and what adds its flags.
COMMANDS: tuple[tuple[str, Message, Command | None, Callable[[Parser, Terminal], None]], ...] = (
    ("serve", Message("start the HTTP server"), serve.serve, _serve_flags),
    ("index", Message("add the documents of files to a collection"), indexing.index, _index_flags),
    ("search", Message("search a collection"), searching.search, search_flags),
    (
        "evaluate",
        Message("judge search by questions whose right documents are known"),
        evaluate.evaluate,
        evaluate_flags,
    ),
    ("export", Message("write a collection to a file"), documents.export, _export_flags),
    ("import", Message("add what `export` wrote"), documents.import_, _import_flags),
    ("bulk", Message("embed a corpus into files, and load these files"), None, bulk_flags),
    (
        "backup",
        Message("copy a collection to a file, also while a server runs"),
        maintenance.backup,
        _backup_flags,
    ),
    ("restore", Message("restore a collection from a backup"), maintenance.restore, _restore_flags),
    (
        "check",
        Message("check collections for damage, status 1 if there is any"),
        maintenance.check,
        _check_flags,
    ),
    (
        "reindex",
        Message("compute the vectors of a collection again"),
        maintenance.reindex,
        _reindex_flags,
    ),
    (
        "transfer",
        Message("copy a collection into another store, with its vectors"),
        transfer.transfer,
        transfer_flags,
    ),
    ("key", Message("create, list and remove the keys of clients"), None, _key_flags),
    (
        "collections",
        Message("list, create and remove collections"),
        of_collections.list_,
        collections_flags,
    ),
    ("documents", Message("list and show stored documents"), None, documents_flags),
    ("words", Message("show and replace synonyms and stop words"), None, words_flags),
    ("delete", Message("delete documents of a collection"), stored.delete, delete_flags),
    ("mcp", Message("let agents search a running server (MCP)"), agents.mcp, mcp_flags),
    ("doctor", Message("examine machine, models and settings"), doctor.doctor, _doctor_flags),
    ("config", Message("print the effective settings as TOML"), doctor.show_config, add_flags),
)
