"""Whole documents by their ids, read one at a time, so that a limit counts each before the next."""

from collections.abc import Sequence

from server.store.documents import Documents
from server.store.records import Document
from server.store.sqlite.read_limit import spend, within_limit


def whole_documents(documents: Documents, ids: Sequence[str]) -> dict[str, Document]:
    """Return the documents of these ids that exist, by id in the order of `ids`, all of one moment.

    Raises RequestTooLarge where they have more bytes than the current read may keep; the first one may.
    """
    found: dict[str, Document] = {}
    with documents.snapshot():
        for id in within_limit(dict.fromkeys(ids)):
            for document in documents.get([id]).values():
                if found:
                    spend(_n_bytes(document))
                found[id] = document
    return found


def _n_bytes(document: Document) -> int:
    """Return about how many bytes the texts of a document have in a reply."""
    texts = (document.text, document.title or "")
    return sum(len(text) if text.isascii() else 3 * len(text) for text in texts)
