"""Commands on stored documents: list, show, delete."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.confirmation import confirm
from server.cli.invocation import Invocation
from server.errors import BadSettings, DocumentNotFound, shown
from server.messages.message import Message

if TYPE_CHECKING:
    from server.store.records import Document

# Ids of one request; a server takes ten times as many.
IDS_AT_ONCE = 1000
PAGE_DOCUMENTS = 256


def list_(given: Invocation) -> int:
    """List documents, oldest first: id, title and the beginning of the text."""
    from server.cli.display import listed

    arguments, terminal = given.arguments, given.terminal
    left, after = arguments.limit, str(arguments.after)
    with opening.target(given) as (target, run):
        while left > 0 and after:
            page = run(target.page(after, min(left, PAGE_DOCUMENTS), arguments.filter))
            for document in page.documents:
                if arguments.json:
                    terminal.say_json(document.fields())
                else:
                    terminal.out.write(listed(document, terminal) + "\n")
            left, after = left - len(page.documents), page.next
    for warning in page.warnings:
        terminal.inform("warning: {warning}", warning=warning)
    if after:
        terminal.inform("there are more: --after {number}", number=after)
    return 0


def get(given: Invocation) -> int:
    """Show one document whole."""
    arguments, terminal = given.arguments, given.terminal
    with opening.target(given) as (target, run):
        document: Document | None = run(target.get(arguments.id))
    if document is None:
        raise DocumentNotFound(f"there is no document {shown(arguments.id)}")
    if arguments.json:
        terminal.say_json(document.fields())
        return 0
    from server.cli.display import whole

    terminal.out.write(whole(document, terminal) + "\n")
    return 0


def delete(given: Invocation) -> int:
    """Delete documents by ids or by a filter, and print how many there were."""
    arguments = given.arguments
    by_ids = bool(arguments.ids) or arguments.ids_file is not None
    if by_ids == (arguments.filter is not None):
        raise BadSettings("name documents by ids (ID, --ids-file) or by --filter, not by both")
    ids = [*arguments.ids, *_ids_in(given)]
    with opening.target(given) as (target, run):
        if by_ids:
            removed = sum(run(target.delete(some)) for some in _grouped(ids))
        else:
            counted = run(target.matching(arguments.filter))
            for warning in counted.warnings:
                given.terminal.inform("warning: {warning}", warning=warning)
            question = Message(
                "delete {number:,} documents of collection {name}?",
                number=counted.number,
                name=target.name,
            )
            if counted.number and not confirm(given, question):
                return 1
            removed = run(target.delete_where(arguments.filter)) if counted.number else 0
    given.terminal.say("deleted {number:,}", number=removed)
    if by_ids and removed < (wanted := len(set(ids))):
        given.terminal.inform("not stored: {number:,} of the ids", number=wanted - removed)
    return 0


def _ids_in(given: Invocation) -> list[str]:
    """Return the ids in --ids-file, one a line; "-" is standard input."""
    file = given.arguments.ids_file
    if file is None:
        return []
    from server.sources.decoding import lines
    from server.sources.notes import Notes

    source = None if str(file) == "-" else file
    return [line for _, line, _ in lines(source, None, Notes()) if line]


def _grouped(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(dict.fromkeys(ids))
    while group := list(islice(rest, IDS_AT_ONCE)):
        yield group
