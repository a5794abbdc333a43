"""A connection to Qdrant: one call at a time in a folder, and errors of the client as those of the server."""

import json
import logging
import math
import warnings
from threading import Lock
from typing import Any

import httpx
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from server.databases.address import Address
from server.databases.qdrant.transport import AnswerTooLarge, BoundedTransport
from server.errors import DatabaseAway, DatabaseBusy, DatabaseRefused, ServerError

RETRY_AFTER_S = 5
# Characters of what a database says, in a message.
SAID = 300
# Statuses below the server's own errors after which the same request may succeed.
LATER = frozenset({408, 425, 429})
DENIED = frozenset({401, 403})


class TooLarge(DatabaseRefused):
    """Raised where an answer is too large; one for fewer points may not be."""


class Connection:
    """Calls methods of the client from any thread; every error is a DatabaseAway or a DatabaseRefused."""

    def __init__(self, address: Address) -> None:
        self._address = address
        # subtle: in a folder the client's collections are lists and arrays that no lock guards.
        self._turn = Lock() if address.is_local else None
        # Its lines name each request. Whoever looks for them sets the level of this name.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            self._client = self._opened()
        except Exception as error:
            raise self._named(error) from None

    def _opened(self) -> Any:
        address = self._address
        if address.is_local:
            # The manual says how many documents a folder is for.
            warnings.filterwarnings("ignore", "Local mode is not recommended", UserWarning)
            return QdrantClient(path=address.target)
        return QdrantClient(
            url=address.target,
            # Not as `api_key`, which would warn where a private network has no TLS.
            headers={"api-key": address.secret} if address.secret else None,
            timeout=math.ceil(address.timeout_s),
            check_compatibility=False,
            # As the transport: no proxy and no password file that the environment names.
            trust_env=False,
            transport=BoundedTransport(address),
        )

    def call(self, method: str, /, *args: Any, **fields: Any) -> Any:
        """Return what a method of the client returns."""
        try:
            if self._turn is None:
                return getattr(self._client, method)(*args, **fields)
            with self._turn:
                return getattr(self._client, method)(*args, **fields)
        except Exception as error:
            raise self._named(error) from None

    def close(self) -> None:
        self.call("close")

    def _named(self, error: Exception) -> ServerError:
        if isinstance(error, ResponseHandlingException):
            error = error.source
        if isinstance(error, AnswerTooLarge):
            return TooLarge(self._message("refuses this", str(error)))
        if isinstance(error, ResourceExhaustedResponse):
            return self._busy(str(error), max(1, error.retry_after_s))
        if isinstance(error, UnexpectedResponse):
            status = error.status_code or 0
            said = f"status {status}: {_said(error.content)}"
            if status in DENIED:
                said += "; is its API key the secret of this database?"
            if status in LATER:
                return self._busy(said, RETRY_AFTER_S)
            if status // 100 == 5:
                return self._away(said)
            return self._refused(said)
        if isinstance(error, httpx.TimeoutException):
            return self._away(f"no answer within {self._address.timeout_s:g} s")
        if isinstance(error, httpx.TransportError | OSError):
            return self._away(str(error) or type(error).__name__)
        if self._address.is_local and isinstance(error, RuntimeError):
            return self._away(str(error))  # another process has the folder
        return self._refused(f"{type(error).__name__}: {error}")

    def _away(self, said: str) -> DatabaseAway:
        return DatabaseAway(self._message("does not answer", said), retry_after_s=RETRY_AFTER_S)

    def _busy(self, said: str, retry_after_s: int) -> DatabaseBusy:
        return DatabaseBusy(self._message("is busy", said), retry_after_s=retry_after_s)

    def _refused(self, said: str) -> DatabaseRefused:
        return DatabaseRefused(self._message("refuses this", said))

    def _message(self, what: str, said: str) -> str:
        address = self._address
        said = " ".join(address.redacted(said).split())
        return f"Qdrant at {address.target} {what}: {said[:SAID]}"


def _said(content: bytes) -> str:
    """Return what an answer says of its error, if it is Qdrant's."""
    text = content[: SAID * 10].decode(errors="replace")
    try:
        return str(json.loads(text)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return text
