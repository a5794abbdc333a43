"""A collection on a server, over HTTP.

The only file of the program that opens a connection. Only a command with --url loads it. It connects
to that address and no other: it follows no redirect and uses no proxy.
"""

import asyncio
import http.client
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from server.cli.target import UNSAID, Chunks, Found, Question, TooLargeForServer, cut_otherwise
from server.config_sources import API_KEY
from server.errors import BadSettings, InvalidRequest, StartupError
from server.messages.message import Message
from server.store.records import ChunkRules, Document, Listed, Span
from server.store.search import Hit

CONNECT_S = 10.0
# A batch of the longest documents waits behind others: about half a minute on two cores.
ANSWER_S = 300.0
BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
ATTEMPTS = 8
LONGEST_PAUSE_S = 30.0
PAGE_DOCUMENTS = 1000
PROGRESS_S = 0.5

Pause = Callable[[float], Awaitable[None]]
Json = dict[str, Any]


class Remote:
    """A collection on a server; every request has its own connection, and several may be under way."""

    def __init__(
        self, url: str, name: str, key: str | None = None, pause: Pause = asyncio.sleep
    ) -> None:
        self._server = _Server(url, key)
        self._name = name
        self._path = f"/collections/{quote(name, safe='')}"
        self._pause = pause

    @property
    def name(self) -> str:
        return self._name

    async def prepare(self, chunks: Chunks) -> None:
        if self._name not in await self._sizes():
            wanted = {} if chunks == UNSAID else {"chunks": _json_of(chunks)}
            await self._ask("POST", "/collections", {"name": self._name, **wanted})
        elif chunks != UNSAID:
            found = _rules_of((await self._stats())["chunks"])
            if found != chunks:
                raise cut_otherwise(self._name, found, chunks)

    async def add(self, documents: Sequence[Document]) -> int:
        body = {"documents": [document.fields() for document in documents]}
        return int((await self._ask("POST", f"{self._path}/documents", body))["stored"])

    async def search(self, question: Question) -> Found:
        body: Json = {"query": question.text, "top_k": question.top_k, "mode": question.mode}
        if question.filter:
            body["filter"] = question.filter
        if question.rerank is not None:
            body["rerank"] = asdict(question.rerank)
        reply = await self._ask("POST", f"{self._path}/search", body)
        return Found([_hit(found) for found in reply["hits"]], reply.get("warnings", ()))

    async def count(self) -> int:
        sizes = await self._sizes()
        if self._name not in sizes and self._name != "default":
            await self._stats()  # the server's error says that there is none
        return sizes.get(self._name, 0)

    async def pages(self) -> AsyncIterator[list[Document]]:
        after: str | None = "0"
        while after is not None:
            path = f"{self._path}/documents?limit={PAGE_DOCUMENTS}&after={after}"
            page = await self._ask("GET", path)
            yield [Document(**document) for document in page["documents"]]
            after = page["next"]

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None:
        wanted = {} if chunks == UNSAID else {"chunks": _json_of(chunks)}
        stats = await self._ask("POST", f"{self._path}/reindex", wanted)
        while stats["reindexing"] is not None:
            show(stats["reindexing"]["done"], stats["reindexing"]["total"])
            await self._pause(PROGRESS_S)
            stats = await self._stats()
        served = (await self._ask("GET", "/info"))["fingerprint"]
        as_asked = chunks == UNSAID or _rules_of(stats["chunks"]) == chunks
        if stats["fingerprint"] != served or not as_asked:
            raise StartupError(
                "collection {name} was not reindexed; the server's log says why", name=self._name
            )
        show(stats["documents"], stats["documents"])

    async def _sizes(self) -> dict[str, int]:
        """Return the number of documents of every collection, by name."""
        listed = (await self._ask("GET", "/collections"))["collections"]
        return {each["name"]: each["documents"] for each in listed}

    async def _stats(self) -> Json:
        return await self._ask("GET", f"{self._path}/stats")

    async def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer; a busy server is asked again after the time it names, a few times."""
        for attempt in range(1, ATTEMPTS + 1):
            reply = await self._server.ask(method, path, body)
            if reply.status not in BUSY or attempt == ATTEMPTS:
                break
            await self._pause(min(reply.retry_after_s, LONGEST_PAUSE_S))
        return reply.json()

    async def listed(self) -> list[Listed]:
        """Return all collections of the server."""
        info = await self._ask("GET", "/info")
        found = []
        for name, documents in (await self._sizes()).items():
            stats = await self._ask("GET", f"/collections/{quote(name, safe='')}/stats")
            model = stats["fingerprint"]
            known = info["model_id"] if model == info["fingerprint"] else model
            found.append(Listed(name, documents, known))
        return found


class _Reply:
    """A status and a body, read to the end."""

    def __init__(self, url: str, reply: http.client.HTTPResponse) -> None:
        self._url = url
        self._body = reply.read()
        self.status = reply.status
        retry_after = reply.headers.get("retry-after", "")
        self.retry_after_s = float(retry_after) if retry_after.isdigit() else 1.0

    def json(self) -> Json:
        """Return the body; raises StartupError with the server's message if it refused or failed."""
        try:
            answer = json.loads(self._body)
            if self.status < HTTPStatus.MULTIPLE_CHOICES and isinstance(answer, dict):
                return answer
            said = answer["error"]["message"]
        except (ValueError, LookupError, TypeError):
            # A proxy's page, or another kind of server.
            said = self._body[:200].decode("utf-8", "replace")
        if self.status == HTTPStatus.UNAUTHORIZED:
            raise StartupError(
                "{url}: {said}; set {variable} to a key, or give --key-file",
                url=self._url,
                said=said,
                variable=API_KEY,
            )
        too_large = self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        kind = TooLargeForServer if too_large else StartupError
        raise kind(
            Message("{url} answered {status}: {said}", url=self._url, status=self.status, said=said)
        )


class _Server:
    """The address of a server: http or https, with a path prefix if a proxy needs one."""

    def __init__(self, url: str, key: str | None) -> None:
        self._key = key
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or parts.username or parts.query:
            raise BadSettings(
                "--url {url!r} is not the address of a server such as http://127.0.0.1:8000",
                url=url,
            )
        self._url = url
        self._host, self._port, self._prefix = host, port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    async def ask(self, method: str, path: str, body: Json | None) -> _Reply:
        """Send a request and return the reply; raises StartupError if the server is unreachable."""
        connection = self._connection()
        try:
            return await asyncio.to_thread(self._ask, connection, method, path, body)
        except asyncio.CancelledError:
            # This ends the wait of the thread, and the server sees that its client left.
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(2)
            raise
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StartupError(
                "{url} cannot be reached: {why}; is a server running there?", url=self._url, why=why
            ) from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=CONNECT_S, context=self._tls
        )

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Json | None
    ) -> _Reply:
        headers = {"connection": "close", "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_S)
            connection.request(method, self._prefix + path, _encoded(body), headers)
            return _Reply(self._url, connection.getresponse())
        finally:
            connection.close()


def _encoded(body: Json | None) -> bytes | None:
    if body is None:
        return None
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"a text is not valid Unicode: {error.reason}") from None


def _hit(found: Json) -> Hit:
    part = found["part"]
    return Hit(
        found["id"],
        found["score"],
        found["text"],
        found["title"],
        found["metadata"],
        Span(part["begin"], part["end"]),
        part["whole"],
        found.get("rerank_score"),
    )


def _json_of(rules: ChunkRules | None) -> Json | None:
    return None if rules is None else asdict(rules)


def _rules_of(found: Json | None) -> ChunkRules | None:
    return None if found is None else ChunkRules(found["size"], found["overlap"])
