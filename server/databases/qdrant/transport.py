"""HTTP to a Qdrant server, where an answer has a size and a time at most, whatever the server sends."""

import ssl
from collections.abc import Iterator

import httpx

from server import clock
from server.databases.address import Address

# What the longest page has, with room; a longer answer costs this process more memory than it should.
MAX_ANSWER = 64 << 20


class AnswerTooLarge(Exception):
    """Raised for an answer with more than MAX_ANSWER bytes."""


class BoundedTransport(httpx.HTTPTransport):
    """Connects to the address it is given and nowhere else: without proxies, and without the environment."""

    def __init__(self, address: Address) -> None:
        trusted: bool | ssl.SSLContext = True
        if "ca_file" in address.options:
            trusted = ssl.create_default_context(cafile=address.options["ca_file"])
        super().__init__(verify=trusted, trust_env=False)
        self._timeout_s = address.timeout_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        end = clock.now() + self._timeout_s
        # What is packed may be a million times as large; none is asked for.
        request.headers["Accept-Encoding"] = "identity"
        response = super().handle_request(request)
        if "Content-Encoding" in response.headers:
            response.close()
            raise httpx.DecodingError("the answer is packed, which was not asked for")
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Bounded(response.stream, end)
        return response


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, end: float) -> None:
        self._stream, self._end = stream, end

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > MAX_ANSWER:
                raise AnswerTooLarge(f"the answer has more than {MAX_ANSWER >> 20} MB")
            if clock.now() > self._end:
                raise httpx.ReadTimeout("the answer took too long")
            yield part

    def close(self) -> None:
        self._stream.close()
