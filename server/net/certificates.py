"""TLS towards clients: certificate and key, who may connect by certificates of their own.

A certificate is tried before it is used, as a model is: the server shakes hands with itself in memory, so
what clients would refuse is known before the port opens. A renewed one comes in a context of its own: into
another's, OpenSSL would add a certificate whose key is of another kind, and signers, and forget none. Nothing
here touches a connection.
"""

import contextlib
import logging
import os
import ssl
from pathlib import Path
from typing import Any, NoReturn

from server.config import Config
from server.errors import BadSettings

# More than enough for a handshake of TLS 1.3 in memory, which takes two.
ROUNDS = 8
# Of the key's file: what group and others may do.
OF_OTHERS = 0o077
REFUSED = (
    "clients will refuse the certificate %s: %s; renew it and send SIGHUP"
    " 客户端将拒绝证书 %s：%s；请更新证书并发送 SIGHUP"
)

log = logging.getLogger(__name__)


class Tls:
    """context: for connections that come now; `check` makes the next one, `renew` puts it in place.
    expires_s: when its certificate ends, in seconds since 1970; 0 where clients refuse it already.
    """

    def __init__(self, cert: Path, key: Path | None, client_ca: Path | None) -> None:
        """key: None where it stands in the file of the certificate. client_ca: certificates of those
        who sign clients', None where anybody may connect. Raises BadSettings that names the file.
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
        """Raise BadSettings if the files cannot be used now; warn if clients would not like them."""
        context = _context()
        self._load(context)
        try:
            expires_s = _expiry(context, self._cert)
        except ssl.SSLCertVerificationError as error:
            expires_s = 0
            log.warning(REFUSED, *(self._cert, error.verify_message) * 2)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        self._checked = context, expires_s

    def renew(self) -> None:
        """Have new connections use what was checked last."""
        self.context, self.expires_s = self._checked

    def _load(self, context: ssl.SSLContext) -> None:
        for path in (self._cert, self._key, self._client_ca):
            _check_readable(path)
        try:
            context.load_cert_chain(self._cert, self._key, _no_password)
        except ssl.SSLError as error:
            raise BadSettings(
                "{cert} and {key} are no certificate and key in PEM that belong together: {why}",
                cert=self._cert,
                key=self._key,
                why=_why(error),
            ) from None
        if self._key.stat().st_mode & OF_OTHERS:
            log.warning(
                "others than its owner may use the TLS key %s, and so pass for this server: chmod go="
                " 除所有者外还有人可使用 TLS 私钥，可借此冒充本服务：请执行 chmod go=",
                self._key,
            )
        if self._client_ca is None:
            return
        try:
            context.load_verify_locations(self._client_ca)
        except ssl.SSLError as error:
            raise BadSettings(
                "tls_client_ca {_client_ca} holds no certificate in PEM: {why}",
                _client_ca=self._client_ca,
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
    """Instead of asking at a terminal where nobody may be."""
    raise BadSettings(
        "the TLS key is encrypted, and nobody is there to type its password; store it without "
        "one in a file that only the server reads",
    )


def _why(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").lower().replace("_", " ")


def _expiry(server: ssl.SSLContext, cert: Path) -> float:
    """Seconds since 1970; raises SSLCertVerificationError if a client that trusts just this certificate
    would refuse it, and BadSettings if no client can be served with it.
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
            "browsers take, RSA of 2048 bits or more or the curve prime256v1",
            cert=cert,
            why=_why(error),
        ) from None
    return ssl.cert_time_to_seconds(str(shown["notAfter"]))


def _shake_hands(server: ssl.SSLContext, trusting: ssl.SSLContext) -> dict[str, Any]:
    """The certificate that the server shows; raises SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there)
    ends = client, server.wrap_bio(there, back, server_side=True)
    for _ in range(ROUNDS):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return client.getpeercert() or {}
