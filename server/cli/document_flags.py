"""Flags of the commands on stored documents and on collections."""

from pathlib import Path

from server.cli.commands import collections, stored, vocabulary
from server.cli.flags import (
    Parser,
    chunk_flags,
    filter_flag,
    number,
    subcommands,
    target_flags,
    url_flag,
)
from server.config import add_flags
from server.messages.terminal import Terminal
from server.store.collection_name import normal


def delete_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add("ids", nargs="*", metavar="ID", help=words("ids of documents"))
    add("--ids-file", type=Path, metavar="FILE", help=words("file with ids, one a line"))
    filter_flag(parser, terminal)
    _yes_flag(parser, terminal)
    target_flags(parser, terminal)


def documents_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, subcommands(parser)
    listing = add("list", stored.list_, words("list documents, oldest first"))
    listing.add_argument(
        "--limit",
        type=number(terminal, least=1),
        default=20,
        metavar="N",
        help=words("number of documents to list (default: 20)"),
    )
    listing.add_argument(
        "--after",
        type=number(terminal, least=0),
        default=0,
        metavar="N",
        help=words("continue after the number that the list before has named"),
    )
    filter_flag(listing, terminal)
    one = add("get", stored.get, words("show one document"))
    one.add_argument("id", metavar="ID", help=words("id of the document"))
    for each in (listing, one):
        each.add_argument("--json", action="store_true", help=words("print a JSON document a line"))
        target_flags(each, terminal)


def transfer_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add("collection", type=normal, metavar="COLLECTION", help=words("name of the collection"))
    add(
        "--to",
        type=normal,
        required=True,
        metavar="NAME",
        help=words("name of the copy, which is created if it is missing"),
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--database", metavar="NAME", help=words("vector database that keeps the copy")
    )
    where.add_argument(
        "--local", action="store_true", help=words("keep the copy on the disk of the server")
    )
    add(
        "--alias",
        type=normal,
        metavar="NAME",
        help=words("let an alias lead to the copy once it is whole"),
    )
    add(
        "--prune",
        action="store_true",
        help=words("remove documents of the copy that the collection does not have"),
    )
    url_flag(parser, terminal)
    add_flags(parser, terminal, "data", "log_level")


def words_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, subcommands(parser)
    shown = add("get", vocabulary.get, words("print both lists as JSON"))
    put = add("set", vocabulary.put, words("replace both lists"))
    put.add_argument(
        "file",
        metavar="FILE",
        help=words('file with JSON as `words get` prints it; "-" for standard input'),
    )
    for each in (shown, put):
        target_flags(each, terminal)


def collections_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, subcommands(parser, required=False)
    listing = add("list", collections.list_, words("list collections, as without an action"))
    create = add("create", collections.create, words("create an empty collection"))
    remove = add("remove", collections.remove, words("remove a collection with its documents"))
    rename = add("rename", collections.rename, words("give a collection another name"))
    alias = add("alias", collections.alias, words("let an alias lead to a collection"))
    unalias = add("unalias", collections.unalias, words("delete an alias"))
    listed = add("aliases", collections.aliases, words("list the aliases"))
    for each in (alias, unalias):
        each.add_argument("alias", type=normal, metavar="ALIAS", help=words("name of the alias"))
    for each in (unalias, listed):
        each.set_defaults(collection="default")
    for each in (create, remove, rename, alias):
        each.add_argument(
            "collection", type=normal, metavar="NAME", help=words("name of the collection")
        )
    rename.add_argument("new", type=normal, metavar="NEW", help=words("the new name"))
    rename.add_argument(
        "--keep-alias",
        action="store_true",
        default=False,
        help=words("let the old name lead to the collection"),
    )
    chunk_flags(create, terminal)
    create.set_defaults(chunk_tokens=None, chunk_overlap=None)
    _yes_flag(remove, terminal)
    for each in (parser, listing, create, remove, rename, alias, unalias, listed):
        url_flag(each, terminal)
        add_flags(each, terminal, "model", "data", "lanes", "log_level")


def _yes_flag(parser: Parser, terminal: Terminal) -> None:
    parser.add_argument(
        "--yes",
        action="store_true",
        default=False,
        help=terminal.words("remove without a question"),
    )
