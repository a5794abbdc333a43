"""TLS for connections that go out to PostgreSQL: the context of each sslmode, as libpq means it."""

import ssl

from server.databases.postgres.answers import TlsSocket
from server.databases.postgres.login import Login
from server.errors import BadSettings

# How a connection is encrypted; None for clear text.
Tls = ssl.SSLContext | None


def is_refusal(error: OSError) -> bool:
    """Return whether TLS failed for good, as for a certificate, and not because the connection ended."""
    ended = ssl.SSLEOFError | ssl.SSLZeroReturnError
    return isinstance(error, ssl.SSLError) and not isinstance(error, ended)


def context(login: Login) -> Tls:
    """Return the context of connections, None for clear text; raises BadSettings for a file that has none."""
    if login.encryption == "disable":
        return None
    try:
        found = ssl.create_default_context(cafile=login.ca_file)
    except (OSError, ValueError) as error:
        raise BadSettings(
            "ca_file {path} of a PostgreSQL database holds no certificates that can be read: {why}",
            path=login.ca_file or "",
            why=error.strerror or str(error) if isinstance(error, OSError) else str(error),
        ) from None
    found.sslsocket_class = TlsSocket
    if login.encryption != "verify-full":
        found.check_hostname = False
    if login.encryption == "require" and login.ca_file is None:
        # subtle: with certificates to check by, libpq's require checks them as verify-ca does.
        found.verify_mode = ssl.CERT_NONE
    return found
