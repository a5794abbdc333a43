"""TLS for clients: certificate, key, and the signers of clients' certificates.

A certificate is tested before it is used, as a model is: the server does a handshake with itself in memory,
so a certificate that clients would refuse is known before the port opens. A renewed certificate gets a new
context. In an old one OpenSSL would keep a certificate whose key is of another kind, and all signers.
Nothing here touches a connection.
"""

import contextlib
import logging
import os
import ssl
from pathlib import Path
from typing import Any, NoReturn

from server.config import Config
from server.errors import BadSettings

# More than a handshake of TLS 1.3 in memory takes, which is two.
ROUNDS = 8
# The permissions of group and others on the key's file.
OTHERS_RIGHTS = 0o077
REFUSED = "clients will refuse the certificate %s: %s; renew it and send SIGHUP"

log = logging.getLogger(__name__)


class Tls:
    """The certificate in use, and the next one; `check` reads it, `renew` puts it in place.

    context: for new connections. expires_s: when its certificate ends, in seconds since 1970; 0 where clients
    refuse it already.
    """

    def __init__(self, cert: Path, key: Path | None, client_ca: Path | None) -> None:
        """Read the files; raises BadSettings that names the file at fault.

        key: None where it is in the certificate's file. client_ca: certificates of the signers of
        clients' certificates, None where clients need none.
        """
        self._cert, self._key, self._client_ca = cert, key or cert, client_ca
        self.check()
        self.renew()

    @classmethod
    def of(cls, config: Config) -> "Tls | None":
        if config.tls_cert is None:
            return None
        return cls(config.tls_cert, config.tls_key, config.tls_client_ca)

    def check(self) -> None:
        """Raise BadSettings if the files cannot be used now; warn if clients would refuse them."""
        context = _context()
        self._load(context)
        try:
            expires_s = _expiry(context, self._cert)
        except ssl.SSLCertVerificationError as error:
            expires_s = 0
            log.warning(REFUSED, self._cert, error.verify_message)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        self._checked = context, expires_s

    def renew(self) -> None:
        """Use what was checked last for new connections."""
        self.context, self.expires_s = self._checked

    def _load(self, context: ssl.SSLContext) -> None:
        for path in (self._cert, self._key, self._client_ca):
            _check_readable(path)
        try:
            context.load_cert_chain(self._cert, self._key, _no_password)
        except ssl.SSLError as error:
            raise BadSettings(
                "{cert} and {key} are not a certificate and its key in PEM: {why}",
                cert=self._cert,
                key=self._key,
                why=_why(error),
            ) from None
        if self._key.stat().st_mode & OTHERS_RIGHTS:
            log.warning(
                "users other than the owner may read or change the TLS key %s, and could pretend to be this"
                " server; run chmod go=",
                self._key,
            )
        if self._client_ca is None:
            return
        try:
            context.load_verify_locations(self._client_ca)
        except ssl.SSLError as error:
            raise BadSettings(
                "tls_client_ca {path} holds no certificate in PEM: {why}",
                path=self._client_ca,
                why=_why(error),
            ) from None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _check_readable(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise BadSettings("TLS file {path} cannot be read: {why}", path=path, why=why) from None


def _no_password() -> NoReturn:
    """Raise BadSettings; OpenSSL would ask at the terminal, where no one may be."""
    raise BadSettings(
        "the TLS key is encrypted, and the server cannot ask for its password; store the key "
        "without one, in a file that only the server may read"
    )


def _why(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").lower().replace("_", " ")


def _expiry(server: ssl.SSLContext, cert: Path) -> float:
    """Return when the certificate ends, in seconds since 1970.

    Raises SSLCertVerificationError if a client that trusts only this certificate would refuse it, and
    BadSettings if no client can be served with it.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        trusting.load_verify_locations(cert)
        shown = _shake_hands(server, trusting)
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:
        raise BadSettings(
            "no client can be served with the TLS certificate {cert}: {why}; use a key that "
            "browsers accept: RSA of 2048 bits or more, or the curve prime256v1",
            cert=cert,
            why=_why(error),
        ) from None
    return ssl.cert_time_to_seconds(str(shown["notAfter"]))


def _shake_hands(server: ssl.SSLContext, trusting: ssl.SSLContext) -> dict[str, Any]:
    """Return the certificate that the server shows; raise SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there)
    ends = client, server.wrap_bio(there, back, server_side=True)
    for _ in range(ROUNDS):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return client.getpeercert() or {}
