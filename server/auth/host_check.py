"""Which names the server answers to where it asks for no key: only those that are its own.

A web page may have the name it came from resolved to 127.0.0.1 once it is loaded. For the browser it still
talks to its own site, and so it could read, change and delete whatever a server on the loopback holds. What
gives it away is the request's Host, which is that name. An address is no such name, localhost is nobody's,
and no browser connects to a Unix socket. Where keys are asked for nothing is looked at: a page has none.
"""

import ipaddress
from functools import lru_cache

from starlette.types import Scope

from server.config import Config, names_in
from server.errors import Forbidden
from server.telemetry.metrics import Metrics

# Bytes of the longest name and its port; a longer one is nobody's, and not worth remembering.
LONGEST_HOST = 261
# A server is called by a handful: looked up each takes 0.2 us, judged 5 us (2026-11-25, AMD EPYC).
REMEMBERED = 256


def name_in(host: bytes) -> str:
    """The name or address of a Host header, without port, brackets and a last dot, in small letters."""
    text = host.decode("latin-1").lower()
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    return name.removesuffix(".")


@lru_cache(REMEMBERED)
def is_own(host: bytes, names: frozenset[str]) -> bool:
    """Whether a Host header can only mean this server. names: those it was given, in small letters."""
    name = name_in(host)
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Hosts:
    """The names of a server without keys."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._names = frozenset({config.host.lower(), *names_in(config.allowed_hosts)})
        self._denied = metrics.denied.labels("host")

    @classmethod
    def of(cls, config: Config, metrics: Metrics) -> "Hosts | None":
        """None where any name will do: there are keys, or "*" is allowed."""
        anything = config.keys is not None or "*" in names_in(config.allowed_hosts)
        return None if anything else cls(config, metrics)

    def check(self, host: bytes | None, scope: Scope) -> None:
        """Raise Forbidden for a name that is not the server's; none at all is HTTP/1.0's, not a browser's."""
        if not host or (len(host) <= LONGEST_HOST and is_own(host, self._names)):
            return
        if _on_unix_socket(scope):
            return
        self._denied.inc()
        name = name_in(host[:LONGEST_HOST])
        raise Forbidden(
            f"this server has no keys and does not answer to the host {name!r}; ask by its address or"
            f" localhost, or start it with --allowed-hosts {name}"
        )


def _on_unix_socket(scope: Scope) -> bool:
    """Whether the connection came over a path, which has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None
