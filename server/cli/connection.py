"""Requests over HTTP to one server, at an address or a Unix socket.

The only file of the program that opens a connection. Only a command loads it, for the server of --url or
the server on this machine that uses its data folder. It connects to that address and no other: it follows no
redirect and uses no proxy.
"""

import asyncio
import http.client
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from server.cli.searching.reply import encoded
from server.cli.target import TooLargeForServer
from server.config_sources import API_KEY
from server.errors import BadSettings, StartupError
from server.messages.message import Message

CONNECT_S = 10.0
# A batch of the longest documents waits behind others: about half a minute on two cores.
ANSWER_S = 300.0
# A server copies, checks or indexes a whole collection before it answers a backup or a restore.
COPY_S = 3600.0
PIECE_BYTES = 1 << 20
# Before the path of a Unix socket.
UNIX = "unix:"

JSON, OCTETS = "application/json", "application/octet-stream"
Json = dict[str, Any]


class Unreachable(StartupError):
    """Raised where no server answers."""


class KeyRefused(StartupError):
    """Raised where the server refuses the key, or gets none."""


class Reply:
    """A status and a body, read to the end; into a file, if one is given and the request succeeded."""

    def __init__(
        self, url: str, reply: http.client.HTTPResponse, into: BinaryIO | None = None
    ) -> None:
        self._url = url
        if into is not None and reply.status == HTTPStatus.OK:
            _receive(url, reply, into)
        self._body = reply.read()
        self.status = reply.status
        self.headers = reply.headers
        self.ok = reply.status == HTTPStatus.OK
        retry_after = reply.headers.get("retry-after", "")
        self.retry_after_s = float(retry_after) if retry_after.isdigit() else 1.0

    @property
    def error_code(self) -> str | None:
        """Return the code of the server's error, None where there is none."""
        try:
            return str(json.loads(self._body)["error"]["code"])
        except (ValueError, LookupError, TypeError):
            return None

    def json(self) -> Json:
        """Return the body; raises StartupError with the server's message if it refused or failed."""
        try:
            answer = json.loads(self._body)
            if self.status < HTTPStatus.MULTIPLE_CHOICES and isinstance(answer, dict):
                return answer
            # `/info` refuses in the form of Text Embeddings Inference, whose error is its message.
            error = answer["error"]
            said = error if isinstance(error, str) else error["message"]
        except (ValueError, LookupError, TypeError):
            # A proxy's page, or another kind of server.
            said = self._body[:200].decode("utf-8", "replace")
        if self.status == HTTPStatus.UNAUTHORIZED:
            raise KeyRefused(
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


class _Unwritable(Exception):
    """Raised where a file cannot be written; an OSError would be taken for one of the connection."""

    def __init__(self, why: OSError) -> None:
        self.why = why


def _write(into: BinaryIO, piece: bytes) -> None:
    try:
        into.write(piece)
    except OSError as error:
        raise _Unwritable(error) from None


def _receive(url: str, reply: http.client.HTTPResponse, into: BinaryIO) -> None:
    """Write a body into a file; raises StartupError where the connection ends before the body does."""
    size = 0
    try:
        while piece := reply.read(PIECE_BYTES):
            size += len(piece)
            _write(into, piece)
        # subtle: of a body whose length is known, the library does not report that it is too short.
        whole = not reply.length
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError):
        whole = False
    if not whole:
        raise StartupError(
            "{url} ended its answer after {size:,} bytes, before it was whole; nothing was kept, try again",
            url=url,
            size=size,
        )


class Server:
    """The address of a server: http or https, with a path prefix if a proxy needs one, or unix:PATH.

    own: whether it is a server of this machine, found by its data folder. Its certificate is for the name
    that its clients use, so it is not checked. What is sent does not leave the machine.
    """

    def __init__(self, url: str, key: str | None = None, *, own: bool = False) -> None:
        self.url = url
        self._key = key
        self._socket = url.removeprefix(UNIX) if url.startswith(UNIX) else ""
        self._host, self._prefix = "localhost", ""
        self._port: int | None = None
        self._tls: ssl.SSLContext | None = None
        if not self._socket:
            self._parse(url, own=own)

    def _parse(self, url: str, *, own: bool) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or parts.username or parts.query:
            raise BadSettings(
                "--url {url!r} is not the address of a server such as http://127.0.0.1:8000 or"
                " unix:/run/inkwell.sock",
                url=url,
            )
        self._host, self._port, self._prefix = host, port, parts.path.rstrip("/")
        if parts.scheme == "https":
            self._tls = ssl.create_default_context()
        if self._tls is not None and own:
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE

    def with_key(self, key: str | None) -> "Server":
        """Return the same server, which gets this key."""
        found = copy(self)
        found._key = key
        return found

    async def ask(self, method: str, path: str, body: Json | None) -> Reply:
        """Send a request and return the reply; raises Unreachable where no server answers."""

        def work(connection: http.client.HTTPConnection) -> Reply:
            content = None if body is None else encoded(body)
            return self._ask(connection, method, path, content, JSON)

        return await self._during(work)

    async def download(self, path: str, body: Json, into: BinaryIO) -> Reply:
        """Send a request; the body of a successful reply is written into the file, and the reply has none.

        Raises OSError where the file cannot be written, StartupError where the body does not come whole.
        """

        def work(connection: http.client.HTTPConnection) -> Reply:
            return self._ask(connection, "POST", path, encoded(body), JSON, into)

        return await self._during(work)

    async def upload(self, path: str, file: BinaryIO) -> Reply:
        """Send a file as it is and return the reply."""

        def work(connection: http.client.HTTPConnection) -> Reply:
            file.seek(0)
            return self._ask(connection, "POST", path, file, OCTETS)

        return await self._during(work)

    async def _during(self, work: Callable[[http.client.HTTPConnection], Reply]) -> Reply:
        """Run work with a connection on a thread; raises Unreachable where no server answers."""
        connection = self._connection()
        try:
            return await asyncio.to_thread(work, connection)
        except asyncio.CancelledError:
            # This ends the wait of the thread, and the server sees that its client left.
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(2)
            raise
        except _Unwritable as error:
            raise error.why from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                "{url} cannot be reached: {why}; is a server running there?", url=self.url, why=why
            ) from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket:
            return _UnixConnection(self._socket)
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
        content: bytes | BinaryIO | None,
        type: str,
        into: BinaryIO | None = None,
    ) -> Reply:
        headers = {"connection": "close", "accept": "application/json"}
        if content is not None:
            headers["content-type"] = type
        if content is not None and not isinstance(content, bytes):
            headers["content-length"] = str(os.fstat(content.fileno()).st_size)
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_S if type == JSON and into is None else COPY_S)
            # A server that refuses a body closes before it has read all of it; its answer says why.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._prefix + path, content, headers)
            return Reply(self.url, connection.getresponse(), into)
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(self._path)


def is_own(url: str) -> bool:
    """Return whether an address is a Unix socket, or an address of this machine written in numbers.

    A name could mean another machine by the time of the connection.
    """
    if url.startswith(UNIX):
        return True
    try:
        host = ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    if host.is_loopback:
        return True
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        # The kernel lets a process bind the addresses of its own machine only. Nothing is sent.
        with suppress(OSError):
            probe.bind((str(host), 0))
            return True
    return False
