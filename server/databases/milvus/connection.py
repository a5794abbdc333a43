"""The connection to Milvus: made by the first call, to one host, with every failure turned into ours."""

import threading
from contextlib import suppress
from typing import Any

from server.databases.address import Address
from server.databases.milvus.client import MilvusClient
from server.databases.milvus.failures import RETRY_AFTER_S, failure
from server.errors import DatabaseAway, DatabaseRefused

# To this host alone: no proxy of the environment, and no settings of a service from its name server. A server that
# comes back is found by the next call: gRPC by itself would wait up to two minutes before it tries again.
OPTIONS = {
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.max_receive_message_length": 256 << 20,
}
# Of milvus-lite, which counts and lists some ms a document in this very process: nothing gets lost on the way, so a
# call is given more time, and its server would end a connection that asks whether it is there.
LOCAL_S = 120.0
LOCAL_OPTIONS = {
    **OPTIONS,
    "grpc.keepalive_time_ms": (1 << 31) - 1,
    "grpc.keepalive_permit_without_calls": 0,
}
# Part of the name of a host for which the client asks another address over HTTP which one to use.
DISCOVERED = "global-cluster"


class Connection:
    """Calls of a database, from any thread. Connects when there is something to ask, and again after a failure."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._timeout_s = max(address.timeout_s, LOCAL_S if address.is_local else 0)
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None
        self._embedded: Any = None
        self._closed = False

    def call(self, method: str, *arguments: object, **options: object) -> Any:
        """Return what a method of the client returns; raises DatabaseAway or DatabaseRefused."""
        try:
            client = self._connected()
            return getattr(client, method)(*arguments, timeout=self._timeout_s, **options)
        except (DatabaseAway, DatabaseRefused):
            raise
        except Exception as error:
            raise failure(error, self.address) from None

    def close(self) -> None:
        """Close the connection, and milvus-lite where it runs here; nothing can be called after it."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
            embedded, self._embedded = self._embedded, None
        if client is not None:
            with suppress(Exception):  # It is not needed any more, and the server may be gone.
                client.close()
        if embedded is not None:
            embedded.close()

    def _connected(self) -> MilvusClient:
        client = self._client
        if client is not None:
            return client
        # While one call connects, the others wait no longer than it may.
        if not self._lock.acquire(timeout=self._timeout_s):
            raise self._away("another call is still trying to connect")
        try:
            if self._closed:
                raise self._away("the connection is closed")
            if self._client is None:
                self._client = self._made()
            return self._client
        finally:
            self._lock.release()

    def _away(self, said: str) -> DatabaseAway:
        return DatabaseAway(
            f"Milvus at {self.address.target} does not answer: {said}", retry_after_s=RETRY_AFTER_S
        )

    def _made(self) -> MilvusClient:
        options = self.address.options
        secrets: dict[str, Any] = {"token": self.address.secret or ""}
        if "ca_file" in options:
            secrets["server_pem_path"] = options["ca_file"]
        return MilvusClient(
            uri=self._uri(),
            db_name=options.get("database", ""),
            timeout=self._timeout_s,
            # One of its own: the client would share it with others of this process, and close it for none.
            dedicated=True,
            grpc_options=LOCAL_OPTIONS if self.address.is_local else OPTIONS,
            **secrets,
        )

    def _uri(self) -> str:
        if self.address.is_local:
            if self._embedded is None:
                from server.databases.milvus.embedded import Embedded

                self._embedded = Embedded(self.address.target)
            return str(self._embedded.address)
        if DISCOVERED in self.address.target.lower():
            raise DatabaseRefused(
                f"Milvus at {self.address.target} is the address of several clusters, which would have to be"
                " asked for another one; give the address of one cluster"
            )
        # Without a path, which the client takes for the name of a database.
        return "/".join(self.address.target.split("/")[:3])
