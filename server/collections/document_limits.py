"""Limits on documents: on what a small request could make large on disk, in memory or in time.

A title is repeated before each chunk, and a path of metadata with each value under it. So their lengths have
limits, and so has what becomes of them together.
"""

from collections.abc import Container, Mapping, Sequence

from server.errors import EmptyInput, InvalidRequest, RequestTooLarge
from server.store.records import (
    MAX_ALL_PATHS,
    MAX_ID,
    MAX_PATHS,
    MAX_TITLE,
    Document,
    Info,
    is_blank,
)

# Of metadata: levels of objects and lists, characters of a key, and values of a document.
MAX_DEPTH, MAX_KEY, MAX_LEAVES = 32, 256, 4_096
# Chunks of one write, whose vectors are in memory together: 200 MB, 512 wide.
MAX_CHUNKS = 100_000
# Characters that titles have where they are repeated, in one write.
MAX_REPEATED = 1 << 25


def check_documents(documents: Sequence[Document], textless: Container[str] = ()) -> None:
    """Raise InvalidRequest for the first document beyond a limit, EmptyInput for one without a text.

    textless: ids of documents that need no text, because their vectors are given. From any thread.
    """
    paths = 0
    blank = [
        index
        for index, document in enumerate(documents)
        if is_blank(document.text) and document.id not in textless
    ]
    if blank:
        others = len(blank) - 1
        more = f", and so are {others} of the others" if others else ""
        raise EmptyInput(
            f"documents[{blank[0]}].text is empty{more}: without a visible character; leave such documents"
            " out",
            param="documents",
        )
    for index, document in enumerate(documents):
        place = f"documents[{index}]"
        if not 1 <= len(document.id) <= MAX_ID:
            raise _refusal(
                f"{place}.id has {len(document.id)} characters; 1 to {MAX_ID} are possible"
            )
        if len(document.title or "") > MAX_TITLE:
            raise _refusal(
                f"{place}.title has {len(document.title or '')} characters, at most {MAX_TITLE} are"
                " possible; put the rest into the text"
            )
        if document.metadata:
            paths += checked_paths(document.metadata, f"{place}.metadata")
        check_all_paths(paths)


def check_all_paths(paths: int) -> None:
    """Raise RequestTooLarge where the paths of all documents of a write have too many characters."""
    if paths > MAX_ALL_PATHS:
        raise RequestTooLarge(
            f"the paths of the metadata have more than {MAX_ALL_PATHS} characters together, each"
            " counted with every value under it; send fewer documents at once, or use shorter keys"
        )


def check_texts(documents: Sequence[Document], info: Info, parts: Container[str]) -> None:
    """Raise EmptyInput for a document without a text, unless its vectors are given and no model reads it.

    parts: ids of documents whose vectors are given.
    """
    for index, document in enumerate(documents):
        if not (document.text or (info.embedder and document.id in parts)):
            raise EmptyInput(f"documents[{index}].text is empty", param="documents")


def check_chunks(documents: Sequence[Document], chunks_of: Sequence[Sequence[object]]) -> None:
    """Raise RequestTooLarge where the chunks of one write are too many, or repeat too much.

    chunks_of: the chunks of each document, of which only the number counts.
    """
    chunks = sum(map(len, chunks_of))
    if chunks > MAX_CHUNKS:
        raise RequestTooLarge(
            f"the documents have {chunks} parts, at most {MAX_CHUNKS} are stored at once; send fewer"
            " documents at once, or use a collection with longer parts"
        )
    repeated = sum(
        len(document.title or "") * len(of_one)
        for document, of_one in zip(documents, chunks_of, strict=True)
    )
    if repeated > MAX_REPEATED:
        raise RequestTooLarge(
            f"the titles have {repeated} characters where they are repeated before each part, at most"
            f" {MAX_REPEATED} are possible; send fewer documents at once, or use shorter titles"
        )


def checked_paths(metadata: Mapping[str, object], place: str) -> int:
    """Return the characters of the paths of all values of one document; raises InvalidRequest.

    place: what a message calls the metadata.
    """
    leaves = paths = 0
    # A stack and no recursion: a body may be nested deeper than Python's stack.
    pending: list[tuple[int, int, object]] = [(0, 1, metadata)]
    while pending:
        length, depth, value = pending.pop()
        if isinstance(value, Mapping | list) and depth > MAX_DEPTH:
            raise _refusal(
                f"{place} is nested deeper than {MAX_DEPTH} levels, the most possible; flatten it"
            )
        within = len(value) if isinstance(value, Mapping | list) else 0
        if leaves + 1 + len(pending) + within > MAX_LEAVES:
            raise _refusal(
                f"{place} has more than {MAX_LEAVES} values, the most possible; store what no filter"
                " asks for as one text"
            )
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if len(key) > MAX_KEY:
                    raise _refusal(
                        f"a key of {place} has {len(key)} characters, at most {MAX_KEY} are possible:"
                        f" {key[:40]!r}...; use a shorter key"
                    )
                pending.append((length + len(key) + 1, depth + 1, inner))
        elif isinstance(value, list):
            pending += [(length, depth + 1, inner) for inner in value]
        leaves += 1
        paths += length
        if paths > MAX_PATHS:
            raise _refusal(
                f"the paths in {place} have more than {MAX_PATHS} characters together, each counted"
                " with every value under it; use shorter keys or fewer values"
            )
    return paths


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="documents")
