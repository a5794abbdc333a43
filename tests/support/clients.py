"""Talks to an app in this process, with its lifespan and without a socket."""

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.app import App, create_app
from server.collections.external.opening import connections_of
from server.config import Config
from server.inference.model import Model
from server.store.folder import DataFolder
from tests.support.fakes import PATIENCE_S

Test = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """The app's state between its start and its end."""
    state: dict[str, Any] = {}
    said: asyncio.Queue[Message] = asyncio.Queue()
    answered: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    task = asyncio.ensure_future(_call(app, scope, said.get, answered.put))
    await said.put({"type": "lifespan.startup"})
    assert (await answered.get())["type"] == "lifespan.startup.complete"
    try:
        yield state
    finally:
        await said.put({"type": "lifespan.shutdown"})
        assert (await answered.get())["type"] == "lifespan.shutdown.complete"
        await task


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def stateful(app: ASGIApp, state: dict[str, Any]) -> ASGIApp:
    """The app as a server calls it: every request's scope has the lifespan's state."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return called


def app_of(model: Model, others: Sequence[Model] = (), **settings: Any) -> App:
    """An app over a data folder that goes when the app does."""
    place = Path(tempfile.mkdtemp())
    folder = DataFolder(place / "data")
    config = Config(**settings)
    databases = connections_of(config, {})
    app = create_app([model, *others], config, folder, databases=databases)

    def end() -> None:
        folder.close()
        shutil.rmtree(place)

    weakref.finalize(app, end)
    return app


@asynccontextmanager
async def serving(
    model: Model, others: Sequence[Model] = (), **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app = app_of(model, others, **{"lanes": 2, **settings})
    async with lifespan(app) as state:
        transport = httpx.ASGITransport(stateful(app, state), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
            yield client


def run(test: Test, model: Model, **settings: Any) -> None:
    """Call `test` with a client of an app that serves `model`."""

    async def served() -> None:
        async with serving(model, **settings) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(served(), PATIENCE_S))


def ask(
    model: Model, method: str, path: str, json: Any = None, *, settings: Any = None, **request: Any
) -> httpx.Response:
    """The answer to one request."""
    answers = []

    async def test(client: httpx.AsyncClient) -> None:
        answers.append(await client.request(method, path, json=json, **request))

    run(test, model, **(settings or {}))
    return answers[0]


class Wire:
    """One request at the level of ASGI, message by message.

    sent: what the app answered. taken: how many messages it asked for. After the last message it
    waits until `leave` is called, and hears that the client has left.
    """

    def __init__(self, path: str, parts: Sequence[bytes], *, complete: bool = True) -> None:
        self.sent: list[Message] = []
        self.taken = 0
        self._left = asyncio.Event()
        self._parts = parts
        self._complete = complete
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"content-type", b"application/json")],
            "server": ("inkwell", 80),
        }

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        self.taken += 1
        if self.taken > len(self._parts):
            await self._left.wait()
            return {"type": "http.disconnect"}
        last = self.taken == len(self._parts) and self._complete
        body = self._parts[self.taken - 1]
        return {"type": "http.request", "body": body, "more_body": not last}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        status = self.sent[0]["status"]
        assert isinstance(status, int)
        return status
