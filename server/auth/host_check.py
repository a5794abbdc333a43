"""The check of the Host header, on a server without keys: only its own names are answered.

It stops DNS rebinding. A web page can have its own name resolve to 127.0.0.1 after it has loaded. For the
browser it still talks to its own site, so it could read, change and delete everything on a server at the
loopback. The request's Host then is the page's name. An address or localhost cannot be the name of a site,
and no browser connects to a Unix socket. On a server with keys nothing is checked: a page has no key.

Some names belong to no site of the internet either: the public DNS has nothing under .local and .internal.
On the loopback only those are answered that this machine or its containers have, because a neighbour in the
local network could claim another one. A server that listens in that network answers to all of them: such a
neighbour could ask it directly.
"""

import ipaddress
import os
from functools import lru_cache

from starlette.types import Scope

from server.config import Config, names_in, on_loopback
from server.errors import Forbidden, shown
from server.telemetry.metrics import Metrics

# Bytes of the longest possible name and its port; a longer one is refused without being remembered.
LONGEST_HOST = 261
# A server has a few names: a remembered one takes 0.2 us, a new one 5 us (2026-11-25, AMD EPYC).
REMEMBERED = 256


# Names that container runtimes give to the machine that they run on.
OF_CONTAINERS = frozenset(
    {"host.docker.internal", "gateway.docker.internal", "host.containers.internal"}
)
# Endings of names that the public DNS never has (RFC 6762, and ICANN's reservation of 2024).
PRIVATE = (".local", ".internal")


def name_in(host: bytes) -> str:
    """Return the name or address in a Host header, without port, brackets and final dot, in lower case."""
    text = host.decode("latin-1").lower()
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    return name.removesuffix(".")


def names_of(machine: str) -> frozenset[str]:
    """Return the names by which the machine of this name is known in its local network."""
    full = machine.lower().removesuffix(".")
    short = full.partition(".")[0]
    return (
        frozenset({full, short, *(short + ending for ending in PRIVATE)}) if short else frozenset()
    )


@lru_cache(REMEMBERED)
def is_own(host: bytes, names: frozenset[str], private: bool = False) -> bool:
    """Return whether a Host header can only mean this server.

    names: its own, in lower case. private: whether it answers to every name with an ending of PRIVATE.
    """
    name = name_in(host)
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    if private and name.endswith(PRIVATE):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Hosts:
    """The names that a server without keys answers to."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        given = {config.host.lower(), *names_in(config.allowed_hosts)}
        self._names = OF_CONTAINERS | names_of(os.uname().nodename) | given
        self._private = not on_loopback(config.host)
        self._denied = metrics.denied.labels("host")

    @classmethod
    def of(cls, config: Config, metrics: Metrics) -> "Hosts | None":
        """Return the check; None where any name is allowed: there are keys, or "*" is given."""
        anything = config.keys is not None or "*" in names_in(config.allowed_hosts)
        return None if anything else cls(config, metrics)

    def check(self, host: bytes | None, scope: Scope) -> None:
        """Raise Forbidden for a name that is not the server's. Only HTTP/1.0 has none, and no browser."""
        if not host or (len(host) <= LONGEST_HOST and is_own(host, self._names, self._private)):
            return
        if _on_unix_socket(scope):
            return
        self._denied.inc()
        name = name_in(host[:LONGEST_HOST])
        raise Forbidden(
            f"this server has no keys and does not answer to the host {shown(name)}; ask by its address or"
            f" localhost, or start it with --allowed-hosts {name}"
        )


def _on_unix_socket(scope: Scope) -> bool:
    """Return whether the connection came over a Unix socket, which has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None
