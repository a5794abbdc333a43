"""The vector databases of the settings, opened: the only ones to which a server ever connects."""

from collections.abc import Mapping

from server.collections.external.connection import Connection
from server.config import Config, databases_in
from server.databases.address import opened, parse


def connections_of(config: Config, environ: Mapping[str, str]) -> list[Connection]:
    """Return a connection to each database of the settings, which need not answer now.

    environ: where the secrets are. Raises BadSettings for an address that cannot be read, and where a client is
    not installed.
    """
    found = []
    for name, uri in databases_in(config.vector_database).items():
        address = parse(name, uri, environ)
        # A call may take several requests, and the last of them its own time.
        timeout_s = config.query_s + address.timeout_s
        found.append(Connection(name, opened(address), timeout_s))
    return found
