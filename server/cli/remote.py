"""A collection of a server that runs elsewhere, over HTTP.

The one file of the server that opens a connection. Only a command that is given --url loads it, and
it connects to that address and no other: it follows no redirect and asks no proxy.
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

from server.cli.target import UNSAID, Chunks, Question, cut_otherwise
from server.config_sources import API_KEY
from server.errors import BadSettings, InvalidRequest, StartupError
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
    """Every request has a connection of its own; several may be under way."""

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
        body = {"documents": [asdict(document) for document in documents]}
        return int((await self._ask("POST", f"{self._path}/documents", body))["stored"])

    async def search(self, question: Question) -> list[Hit]:
        body = {"query": question.text, "top_k": question.top_k, "mode": question.mode}
        if question.filter:
            body["filter"] = question.filter
        hits = (await self._ask("POST", f"{self._path}/search", body))["hits"]
        return [_hit(found) for found in hits]

    async def count(self) -> int:
        sizes = await self._sizes()
        if self._name not in sizes and self._name != "default":
            await self._stats()  # which says that there is none
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
                "collection {_name} was not reindexed; the server's log says why",
                _name=self._name,
            )
        show(stats["documents"], stats["documents"])

    async def _sizes(self) -> dict[str, int]:
        """Documents of every collection, by name."""
        listed = (await self._ask("GET", "/collections"))["collections"]
        return {each["name"]: each["documents"] for each in listed}

    async def _stats(self) -> Json:
        return await self._ask("GET", f"{self._path}/stats")

    async def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """The answer; a server that has no room is asked again when it says so, a few times."""
        for attempt in range(1, ATTEMPTS + 1):
            reply = await self._server.ask(method, path, body)
            if reply.status not in BUSY or attempt == ATTEMPTS:
                break
            await self._pause(min(reply.retry_after_s, LONGEST_PAUSE_S))
        return reply.json()

    async def listed(self) -> list[Listed]:
        """All collections of the server."""
        info = await self._ask("GET", "/info")
        found = []
        for name, documents in (await self._sizes()).items():
            stats = await self._ask("GET", f"/collections/{quote(name, safe='')}/stats")
            model = stats["fingerprint"]
            known = info["model_id"] if model == info["fingerprint"] else model
            found.append(Listed(name, documents, known))
        return found


class _Reply:
    def __init__(self, url: str, reply: http.client.HTTPResponse) -> None:
        self._url = url
        self._body = reply.read()
        self.status = reply.status
        told = reply.headers.get("retry-after", "")
        self.retry_after_s = float(told) if told.isdigit() else 1.0

    def json(self) -> Json:
        """The body; raises StartupError with what the server said where it refused or failed."""
        try:
            answer = json.loads(self._body)
            if self.status < HTTPStatus.MULTIPLE_CHOICES and isinstance(answer, dict):
                return answer
            said = answer["error"]["message"]
        except (ValueError, LookupError, TypeError):
            # A proxy's page, or no server of this kind.
            said = self._body[:200].decode("utf-8", "replace")
        if self.status == HTTPStatus.UNAUTHORIZED:
            raise StartupError(
                "{_url}: {said}; set {API_KEY} to a key, or give --key-file",
                _url=self._url,
                said=said,
                API_KEY=API_KEY,
            )
        raise StartupError(
            "{_url} answered {status}: {said}", _url=self._url, status=self.status, said=said
        )


class _Server:
    """One address: http or https, and a path before every other where a proxy wants one."""

    def __init__(self, url: str, key: str | None) -> None:
        self._key = key
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or parts.username or parts.query:
            raise BadSettings(
                "--url {url!r} is not the address of a server; an example: http://127.0.0.1:8000",
                url=url,
            )
        self._url = url
        self._host, self._port, self._prefix = host, port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    async def ask(self, method: str, path: str, body: Json | None) -> _Reply:
        """Raises StartupError where the server cannot be reached."""
        connection = self._connection()
        try:
            return await asyncio.to_thread(self._ask, connection, method, path, body)
        except asyncio.CancelledError:
            # The thread waits for the answer, which this ends; and the server sees its client leave.
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(2)
            raise
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StartupError(
                "{_url} cannot be reached: {why}; is a server running there?",
                _url=self._url,
                why=why,
            ) from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=CONNECT_S, context=self._tls
        )

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Json | None,
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
    )


def _json_of(rules: ChunkRules | None) -> Json | None:
    return None if rules is None else asdict(rules)


def _rules_of(found: Json | None) -> ChunkRules | None:
    return None if found is None else ChunkRules(found["size"], found["overlap"])
