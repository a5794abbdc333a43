"""What stands above chunks in their documents: headings, and the first row of a table that is cut."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.store.documents import Documents
from server.store.passages.outline import Outline
from server.store.sqlite.read_limit import within_limit

# A document and where one of its chunks begins.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Above:
    """What stands above a chunk. headings: outermost first. context: what is read before it, whole lines."""

    headings: tuple[str, ...] = ()
    context: str = ""


NOTHING = Above()


def above(documents: Documents, places: Iterable[Place]) -> dict[Place, Above]:
    """Return what stands above chunks, by document id and beginning.

    Each document is read again and outlined, 10 to 80 ns a character. So nothing is read for a chunk at the
    beginning of its document, where nothing stands above it.
    """
    found = dict.fromkeys(places, NOTHING)
    begins: dict[str, list[int]] = {}
    for id, begin in found:
        if begin:
            begins.setdefault(id, []).append(begin)
    # One at a time: the documents of a page may not fit into memory.
    for id in within_limit(begins):
        for document in documents.get([id]).values():
            outline = Outline.of(document.text)
            for begin in begins[id]:
                title = document.title
                found[id, begin] = Above(
                    tuple(outline.path(begin, title)), outline.context(begin, title)
                )
    return found
