"""Documents that come with the id of another one.

A row without an id is named after its text. In a sheet of frequent questions several have one answer: such
rows differ in their title, and all of them are kept.
"""

from dataclasses import replace

from server.store.records import Document, text_id


class Replacements:
    """Recognises documents that take the place of another one: the same id, and another content.

    It keeps three hashes of each document, of some 150 bytes together.
    """

    def __init__(self) -> None:
        self._contents: dict[int, tuple[int, int]] = {}

    def settle(self, document: Document) -> tuple[Document, bool]:
        """Return the document to store, and whether one before it has its id and is another one.

        A document that is named after its text, which one of another title has too, is named after both.
        """
        before = self._contents.get(hash(document.id))
        if before is not None and before[1] != hash(document.title):
            name = text_id(document.text)
            if document.id == name or document.id.endswith(f"#{name}"):
                both = text_id(f"{document.title or ''}\n{document.text}")
                document = replace(document, id=document.id.removesuffix(name) + both)
                before = self._contents.get(hash(document.id))
        content = (content_hash(document), hash(document.title))
        self._contents[hash(document.id)] = content
        return document, before not in (None, content)


def content_hash(document: Document) -> int:
    """Return a hash of all but the id, for this process only."""
    return hash((document.text, document.title, repr(document.metadata)))
