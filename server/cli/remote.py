"""A collection on a server, over HTTP; see `connection`."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import BinaryIO, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np

from server.api.documents.reply import with_vectors
from server.api.documents.vectors import row_of
from server.cli.connection import Json, Reply, Server
from server.cli.exchange.given_import import no_dimension
from server.cli.searching.reply import body_of, found_of
from server.cli.target import UNSAID, Chunks, Found, Matching, Page, Question, cut_otherwise
from server.errors import StartupError
from server.store.reading.parts import Parts
from server.store.records import ChunkRules, Document, Info, Listed, Span

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
ATTEMPTS = 8
LONGEST_PAUSE_S = 30.0
PAGE_DOCUMENTS = 1000
PROGRESS_S = 0.5

Pause = Callable[[float], Awaitable[None]]
T = TypeVar("T")


class Remote:
    """A collection on a server; every request has its own connection, and several may be under way."""

    def __init__(
        self,
        server: str | Server,
        name: str,
        key: str | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._server = Server(server, key) if isinstance(server, str) else server
        self._pause = pause
        self._name = name

    def named(self, name: str) -> "Remote":
        """Return another collection of the same server."""
        found = copy(self)
        found._name = name
        return found

    @property
    def _path(self) -> str:
        return f"/collections/{quote(self._name, safe='')}"

    @property
    def name(self) -> str:
        return self._name

    async def names(self) -> Sequence[str]:
        return sorted(await self.sizes())

    async def prepare(self, chunks: Chunks) -> None:
        if await self._is_missing():
            wanted = {} if chunks == UNSAID else {"chunks": _json_of(chunks)}
            await self._ask("POST", "/collections", dict, {"name": self._name, **wanted})
        elif chunks != UNSAID:
            found = await self._stats(lambda stats: _rules_of(stats["chunks"]))
            if found != chunks:
                raise cut_otherwise(self._name, found, chunks)

    async def add(self, documents: Sequence[Document], *, replace: bool = True) -> int:
        """Store documents; raises StartupError for ids that exist, unless they are replaced."""
        body: Json = {"documents": [document.fields() for document in documents]}
        if not replace:
            body["replace"] = False
        return await self._ask("POST", f"{self._path}/documents", _integer("stored"), body)

    async def prepare_given(self, embedder: str, dimension: int | None) -> Info:
        """Create the collection for the vectors of this embedder if it is missing; return its description."""
        if await self._is_missing():
            models, first = await self._ask("GET", "/info", _served)
            body: Json = {"name": self._name}
            if embedder in models:
                body["model"] = embedder
            elif embedder not in first:
                if dimension is None:
                    raise no_dimension()
                body |= {"embedder": embedder, "dimension": dimension}
            await self._ask("POST", "/collections", dict, body)

        def described(stats: Json) -> Info:
            rules = _rules_of(stats["chunks"])
            return Info(self._name, stats["fingerprint"], stats["dimension"], rules)

        return await self._stats(described)

    async def add_given(
        self, documents: Sequence[Document], parts: dict[str, Parts], embedder: str
    ) -> int:
        """Store documents with the vectors that the embedder made; return how many changed."""
        body: Json = {"documents": [_with_parts(each, parts.get(each.id)) for each in documents]}
        if parts:
            body["embedder"] = embedder
        return await self._ask("POST", f"{self._path}/documents", _integer("stored"), body)

    async def with_parts(self, ids: Sequence[str]) -> Sequence[tuple[Document, Parts | None]]:
        """Return the documents of these ids that exist, each with its chunks and their vectors."""
        body: Json = {"ids": list(ids), "include_vectors": True, "encoding_format": "base64"}
        return await self._ask(
            "POST",
            f"{self._path}/documents/get",
            lambda found: [(_document_of(each), _parts_of(each)) for each in found["documents"]],
            body,
        )

    async def search(self, question: Question) -> Found:
        # A search over several collections names none in its path.
        together = "collections" in question.options and self._name == "default"
        path = "/search" if together else f"{self._path}/search"
        return await self._ask("POST", path, found_of, body_of(question))

    async def count(self) -> int:
        sizes = await self.sizes()
        if self._name not in sizes and self._name != "default":
            # An alias; the server's error says that there is none.
            return await self._stats(_integer("documents"))
        if (found := sizes.get(self._name, 0)) is None:
            raise StartupError(
                "collection {name} is in a vector database that does not answer; try again later",
                name=self._name,
            )
        return found

    async def pages(self) -> AsyncIterator[list[Document]]:
        after = "0"
        while after:
            page = await self.page(after, PAGE_DOCUMENTS, None)
            yield list(page.documents)
            after = page.next

    async def page(self, after: str, limit: int, filter: Mapping[str, object] | None) -> Page:
        kept = f"&filter={quote(json.dumps(filter), safe='')}" if filter else ""
        path = f"{self._path}/documents?limit={limit}&after={after}{kept}"
        return await self._ask("GET", path, _page)

    async def get(self, id: str) -> Document | None:
        path = f"{self._path}/documents/{quote(id, safe='')}"
        return await self._ask(
            "GET",
            path,
            lambda found: Document(**found) if found else None,
            absent="document_not_found",
        )

    async def matching(self, filter: Mapping[str, object]) -> Matching:
        return await self._ask(
            "POST",
            f"{self._path}/documents/count",
            lambda found: Matching(int(found["count"]), found.get("warnings", ())),
            {"filter": filter},
        )

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._delete({"ids": ids})

    async def delete_where(self, filter: Mapping[str, object]) -> int:
        return await self._delete({"filter": filter})

    async def _delete(self, chosen: Json) -> int:
        return await self._ask(
            "POST", f"{self._path}/documents/delete", _integer("removed"), chosen
        )

    async def has_reranker(self) -> bool:
        return await self._ask(
            "GET",
            "/info",
            lambda info: any(each["task"] == "score" for each in info.get("models", ())),
        )

    async def remove(self) -> None:
        await self._ask("DELETE", self._path, dict)

    async def rename(self, name: str, *, keep_alias: bool) -> None:
        body: Json = {"name": name, "keep_alias": keep_alias}
        await self._ask("POST", f"{self._path}/rename", dict, body)

    async def aliases(self) -> Mapping[str, str]:
        return await self._ask(
            "GET",
            "/aliases",
            lambda found: {each["alias"]: each["collection"] for each in found["aliases"]},
        )

    async def set_alias(self, alias: str) -> None:
        await self._ask("PUT", _alias_path(alias), dict, {"collection": self._name})

    async def forget_alias(self, alias: str) -> None:
        await self._ask("DELETE", _alias_path(alias), dict)

    async def _is_missing(self) -> bool:
        """Return whether the name is neither of a collection nor an alias."""
        if self._name in await self.sizes():
            return False
        absent = "collection_not_found"
        return not await self._ask("GET", _alias_path(self._name), dict, absent=absent)

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None:
        wanted = {} if chunks == UNSAID else {"chunks": _json_of(chunks)}
        stats = await self._ask("POST", f"{self._path}/reindex", _Reindexing.of, wanted)
        while stats.progress is not None:
            show(*stats.progress)
            await self._pause(PROGRESS_S)
            stats = await self._stats(_Reindexing.of)
        served = await self._ask("GET", "/info", lambda info: info["fingerprint"])
        as_asked = chunks == UNSAID or stats.rules == chunks
        if stats.fingerprint != served or not as_asked:
            raise StartupError(
                "collection {name} was not reindexed; the server's log says why", name=self._name
            )
        show(stats.documents, stats.documents)

    async def begin_transfer(self, order: Json, take: Callable[[Json], T]) -> T:
        """Begin to copy the collection into another store; `take` gets how far that is."""
        return await self._ask("POST", f"{self._path}/transfer", take, order)

    async def transfer(self, take: Callable[[Json], T]) -> T | None:
        """Return how far the last transfer is; None where none was begun since the server started."""
        absent = "collection_not_found"

        def taken(found: Json) -> T | None:
            return take(found) if found else None

        return await self._ask("GET", f"{self._path}/transfer", taken, absent=absent)

    async def sizes(self) -> dict[str, int | None]:
        """Return the number of documents of every collection, by name; None where its database does not say it."""
        return await self._ask(
            "GET",
            "/collections",
            lambda found: {
                str(each["name"]): None if each["documents"] is None else int(each["documents"])
                for each in found["collections"]
            },
        )

    async def _stats(self, take: Callable[[Json], T]) -> T:
        return await self._ask("GET", f"{self._path}/stats", take)

    async def _ask(
        self,
        method: str,
        path: str,
        take: Callable[[Json], T],
        body: Json | None = None,
        absent: str | None = None,
    ) -> T:
        """Return what `take` makes of the answer; a busy server is asked again after the time it names.

        absent: code of the error for which the answer is empty. Raises StartupError for an answer of another
        form: another program may listen at the address.
        """
        reply = await self._patiently(lambda: self._server.ask(method, path, body))
        answer = {} if absent is not None and reply.error_code == absent else reply.json()
        return self._taken(take, answer, method, path)

    def _taken(self, take: Callable[[Json], T], answer: Json, method: str, path: str) -> T:
        """Return what `take` makes of an answer; raises StartupError for one of another form."""
        try:
            return take(answer)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise StartupError(
                "{url} answered {method} {path} in a form that is not Inkwell's; give the address of an Inkwell"
                " server of this version",
                url=self._server.url,
                method=method,
                path=path.partition("?")[0],
            ) from None

    async def _patiently(self, send: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the reply to a request, which is sent again while the server is busy."""
        for _ in range(1, ATTEMPTS):
            reply = await send()
            if reply.status not in BUSY:
                return reply
            await self._pause(min(reply.retry_after_s, LONGEST_PAUSE_S))
        return await send()

    async def backup(self, file: BinaryIO) -> None:
        """Write a backup of the collection into a file; raises StartupError unless it comes whole."""
        path = f"{self._path}/backup"
        reply = await self._patiently(lambda: self._server.download(path, {}, file))
        if not reply.ok:
            reply.json()

    async def restore(self, file: BinaryIO, *, replace: bool) -> int:
        """Make the collection from a backup; return how many documents it has."""
        path = f"{self._path}/restore?replace={'true' if replace else 'false'}"
        reply = await self._patiently(lambda: self._server.upload(path, file))
        try:
            answer = reply.json()
        except StartupError as error:
            if reply.error_code != "already_exists":
                raise
            raise StartupError(
                "{error}; --force replaces a collection, and --collection gives another name",
                error=error,
            ) from None
        return self._taken(_integer("documents"), answer, "POST", path)

    async def words(self) -> Json:
        return await self._ask("GET", f"{self._path}/words", dict)

    async def set_words(self, given: Json) -> None:
        await self._ask("PUT", f"{self._path}/words", dict, given)

    async def listed(self) -> list[Listed]:
        """Return all collections of the server."""
        served, id = await self._ask(
            "GET", "/info", lambda info: (info["fingerprint"], info["model_id"])
        )
        found = []
        for name, documents in (await self.sizes()).items():
            model = await self.named(name)._stats(lambda stats: str(stats["fingerprint"]))
            found.append(Listed(name, documents, id if model == served else model))
        return found


def _alias_path(alias: str) -> str:
    return f"/aliases/{quote(alias, safe='')}"


@dataclass(frozen=True, slots=True)
class _Reindexing:
    """The statistics of a collection that is reindexed; progress: documents done and all, None at the end."""

    fingerprint: str
    documents: int
    rules: ChunkRules | None
    progress: tuple[int, int] | None

    @classmethod
    def of(cls, stats: Json) -> "_Reindexing":
        running = stats["reindexing"]
        return cls(
            stats["fingerprint"],
            int(stats["documents"]),
            _rules_of(stats["chunks"]),
            None if running is None else (int(running["done"]), int(running["total"])),
        )


def _served(info: Json) -> tuple[set[str], set[str]]:
    """Return the names of all models of vectors, and the other names of the first model."""
    models = {each["name"] for each in info.get("models", ()) if each["task"] == "dense"}
    return models, {info["model_id"], info["fingerprint"]}


def _integer(key: str) -> Callable[[Json], int]:
    return lambda found: int(found[key])


def _page(page: Json) -> Page:
    documents = [Document(**document) for document in page["documents"]]
    return Page(documents, page["next"] or "", page.get("warnings", ()))


def _with_parts(document: Document, parts: Parts | None) -> Json:
    """Return a document with its vectors, as a request has them."""
    if parts is None:
        return document.fields()
    found = msgspec.structs.asdict(with_vectors(document, parts, as_base64=True))
    return {key: value for key, value in found.items() if value is not msgspec.UNSET}


def _document_of(found: Json) -> Document:
    return Document(found["id"], found["text"], found["title"], found["metadata"])


def _parts_of(found: Json) -> Parts | None:
    vectors = found.get("vectors", [found["vector"]] if "vector" in found else None)
    if vectors is None:
        return None
    spans = found.get("parts", [[0, len(found["text"])]])
    rows = [row_of(each, found["id"]) for each in vectors]
    return Parts(tuple(Span(*span) for span in spans), np.stack(rows))


def _json_of(rules: ChunkRules | None) -> Json | None:
    return None if rules is None else asdict(rules)


def _rules_of(found: Json | None) -> ChunkRules | None:
    return None if found is None else ChunkRules(found["size"], found["overlap"])
