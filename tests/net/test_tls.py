"""HTTPS on the real server, with certificates that openssl makes here."""

import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from server.errors import BadSettings
from server.net.certificates import Tls
from tests.net.test_reload import hang_up
from tests.net.test_socket import refused_start
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import TRUSTING, Server, serving

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


EC = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def certificate(
    folder: Path,
    name: str,
    *,
    days: int = 2,
    signer: Path | None = None,
    kind: Sequence[str] = EC,
) -> Path:
    """Make a certificate for 127.0.0.1 in `name`.pem, its key in `name`.key; self-signed or by a signer."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    by = [] if signer is None else ["-CA", str(signer), "-CAkey", str(signer.with_suffix(".key"))]
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", *kind, "-noenc", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-days", str(days)),
            *("-keyout", str(key), "-out", str(cert), *by),
        ],
        check=True,
        capture_output=True,
    )
    return cert


def expired(folder: Path) -> Path:
    """Make a certificate that has expired."""
    cert = certificate(folder, "old")
    subprocess.run(
        [
            *(str(OPENSSL), "x509", "-req", "-days", "-1", "-in", str(request_of(cert))),
            *("-key", str(cert.with_suffix(".key")), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert


def request_of(cert: Path) -> Path:
    asked, key = cert.with_suffix(".csr"), cert.with_suffix(".key")
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-new", "-key", str(key), "-subj", "/CN=old"),
            *("-out", str(asked)),
        ],
        check=True,
        capture_output=True,
    )
    return asked


def client_of(server: Server, trusted: Path, own: Path | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(trusted))
    if own is not None:
        context.load_cert_chain(own, own.with_suffix(".key"))
    url = f"https://{server.host}:{server.port}"
    return httpx.Client(base_url=url, verify=context, timeout=PATIENCE_S, trust_env=False)


def expiry(client: httpx.Client) -> float:
    page = client.get("/metrics").text
    found = re.search(r"^inkwell_certificate_expiry_timestamp_seconds (\S+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


def flags_of(cert: Path, *more: str) -> tuple[str, ...]:
    return ("--tls-cert", str(cert), "--tls-key", str(cert.with_suffix(".key")), *more)


def test_port_speaks_https_and_a_renewed_certificate_is_shown_after_a_reload(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert = certificate(tmp_path, "server")
    with serving(toy_artifact, tmp_path, *flags_of(cert)) as server:
        with client_of(server, cert) as client:
            assert client.post("/embed", json={"texts": ["墨池"]}).status_code == 200
            new = certificate(tmp_path, "new")
            shutil.copy(new, cert)
            assert "nothing has changed" in hang_up(server), "the key is that of the old one"
            shutil.copy(new.with_suffix(".key"), cert.with_suffix(".key"))
            assert "settings read again" in hang_up(server)
            assert client.get("/ready").status_code == 200, "on the connection from before"
            assert 0 < expiry(client) - time.time() < 3 * 86400
        with client_of(server, new) as client:
            assert client.get("/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "Traceback" not in server.log.read_text()


def install(new: Path, cert: Path) -> None:
    """Replace the files as a tool that renews certificates does."""
    shutil.copy(new, cert)
    shutil.copy(new.with_suffix(".key"), cert.with_suffix(".key"))


def test_certificate_of_another_kind_of_key_takes_the_place_of_the_one_before(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert = certificate(tmp_path, "server")
    rsa = certificate(tmp_path, "rsa", kind=("rsa:2048",))
    elliptic = certificate(tmp_path, "elliptic")
    with serving(toy_artifact, tmp_path, *flags_of(cert)) as server:
        for new in (rsa, elliptic):
            install(new, cert)
            assert "settings read again" in hang_up(server)
            with client_of(server, new) as client:
                assert client.get("/ready").status_code == 200


def test_checked_certificate_is_used_even_if_the_files_change_before(tmp_path: Path) -> None:
    cert, new = certificate(tmp_path, "server"), certificate(tmp_path, "new")
    tls = Tls(cert, cert.with_suffix(".key"), None)
    before = tls.context
    install(new, cert)
    tls.check()
    assert tls.context is before
    # A certificate is copied, and its key not yet, while a model is loaded.
    cert.write_text("half of one")
    tls.renew()
    assert shown_by(tls) == ssl.PEM_cert_to_DER_cert(new.read_text())
    with pytest.raises(BadSettings):
        tls.check()
    tls.renew()
    assert shown_by(tls) == ssl.PEM_cert_to_DER_cert(new.read_text())


def shown_by(tls: Tls, asking: ssl.SSLContext = TRUSTING) -> bytes:
    """Return the certificate that a client receives."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(back, there)
    server = tls.context.wrap_bio(there, back, server_side=True)
    for end in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client.getpeercert(binary_form=True) or b""


def test_signer_that_was_removed_from_the_file_is_no_longer_trusted(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert = certificate(tmp_path, "server")
    signers = [certificate(tmp_path, name) for name in ("first", "second")]
    own = [certificate(tmp_path, f"own-{each.stem}", signer=each) for each in signers]
    trusted = tmp_path / "signers"
    trusted.write_text("".join(each.read_text() for each in signers))
    with serving(
        toy_artifact, tmp_path, *flags_of(cert, "--tls-client-ca", str(trusted))
    ) as server:
        for each in own:
            with client_of(server, cert, each) as client:
                assert client.get("/ready").status_code == 200
        trusted.write_text(signers[1].read_text())
        assert "settings read again" in hang_up(server)
        with client_of(server, cert, own[0]) as client, pytest.raises(httpx.TransportError):
            client.get("/ready")
        with client_of(server, cert, own[1]) as client:
            assert client.get("/ready").status_code == 200


def test_handshake_that_does_not_end_in_time_ends_the_connection(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert = certificate(tmp_path, "server")
    with serving(toy_artifact, tmp_path, *flags_of(cert), "--head-s", "1") as server:
        for sent in (b"", b"\x16\x03\x01"):
            with socket.create_connection((server.host, server.port), PATIENCE_S) as silent:
                silent.sendall(sent)
                with suppress(ConnectionResetError):
                    assert silent.recv(1) == b""
        assert "Traceback" not in server.log.read_text()


def test_connections_without_a_handshake_count_until_they_are_closed(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert = certificate(tmp_path, "server")
    flags = flags_of(cert, "--max-connections", "2", "--head-s", "3600")
    with serving(toy_artifact, tmp_path, *flags) as server:
        address = server.host, server.port
        silent = [socket.create_connection(address, PATIENCE_S) for _ in range(2)]
        with client_of(server, cert) as client:
            eventually(lambda: client.get("/ready").status_code == 429)
        for each in silent:
            each.close()

        def answers() -> bool:
            with client_of(server, cert) as client:
                return client.get("/ready").status_code == 200

        eventually(answers)


def test_idle_clients_do_not_delay_the_stop(toy_artifact: Path, tmp_path: Path) -> None:
    """Most clients send no close_notify, and do not read the server's."""
    cert = certificate(tmp_path, "server")
    with serving(toy_artifact, tmp_path, *flags_of(cert, "--shutdown-s", "3600")) as server:
        silent = socket.create_connection((server.host, server.port), PATIENCE_S)
        with client_of(server, cert) as client, silent:
            assert client.get("/ready").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        assert "Traceback" not in server.log.read_text()


def test_clients_need_a_certificate_where_their_signer_is_named(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert, signer = certificate(tmp_path, "server"), certificate(tmp_path, "signer")
    good = certificate(tmp_path, "good", signer=signer)
    stranger = certificate(tmp_path, "stranger")
    with serving(toy_artifact, tmp_path, *flags_of(cert, "--tls-client-ca", str(signer))) as server:
        with client_of(server, cert, good) as client:
            assert client.post("/embed", json={"texts": ["墨池"]}).status_code == 200
        for own in (None, stranger):
            with client_of(server, cert, own) as client, pytest.raises(httpx.TransportError):
                client.get("/ready")
        with client_of(server, cert, good) as client:
            assert client.get("/ready").status_code == 200


def test_old_protocols_and_plain_http_get_no_answer(toy_artifact: Path, tmp_path: Path) -> None:
    cert = certificate(tmp_path, "server")
    with serving(toy_artifact, tmp_path, *flags_of(cert)) as server:
        with socket.create_connection((server.host, server.port), PATIENCE_S) as plain:
            plain.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            with suppress(ConnectionResetError):
                answer = plain.recv(4096)
            assert b"HTTP" not in answer
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        # Else this side would refuse it before the server can.
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((server.host, server.port), PATIENCE_S) as connection:
            with pytest.raises(ssl.SSLError):
                old.wrap_socket(connection)
        with pytest.raises(ssl.SSLError, match="unsupported protocol"):
            shown_by(Tls(cert, cert.with_suffix(".key"), None), old)
        with client_of(server, cert) as client:
            assert client.get("/ready").status_code == 200


def test_files_that_cannot_be_used_are_named_before_the_port_opens(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert, other = certificate(tmp_path, "server"), certificate(tmp_path, "other")
    start = ("serve", "--port", "0", "--model", toy_artifact, "--tls-cert")
    assert refused_start(*start, tmp_path / "none.pem").count("none.pem") == 2
    said = refused_start(*start, cert, "--tls-key", other.with_suffix(".key"))
    assert "in PEM: key values mismatch" in said
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(BadSettings, match="no certificate in PEM"):
        Tls(cert, cert.with_suffix(".key"), tmp_path / "text")
    with pytest.raises(BadSettings, match="not a certificate and its key"):
        Tls(cert, None, None)


def test_key_with_a_password_is_refused_instead_of_asked_for(tmp_path: Path) -> None:
    cert = certificate(tmp_path, "server")
    locked = tmp_path / "locked.key"
    subprocess.run(
        [
            *(str(OPENSSL), "pkcs8", "-topk8", "-in", str(cert.with_suffix(".key"))),
            *("-passout", "pass:secret", "-out", str(locked)),
        ],
        check=True,
        capture_output=True,
    )
    with pytest.raises(BadSettings, match="encrypted"):
        Tls(cert, locked, None)


def test_expired_certificate_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = certificate(tmp_path, "server")
    Tls(good, good.with_suffix(".key"), None)
    assert caplog.text == ""
    old = expired(tmp_path)
    assert Tls(old, old.with_suffix(".key"), None).expires_s == 0
    assert "certificate has expired" in caplog.text and "clients will refuse" in caplog.text


def test_certificate_that_no_client_accepts_is_refused_by_name(tmp_path: Path) -> None:
    cert = certificate(tmp_path, "odd", kind=("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"))
    with pytest.raises(
        BadSettings, match=r"no client can be served with .*odd\.pem: .+; use a key"
    ):
        Tls(cert, cert.with_suffix(".key"), None)


def test_key_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert = certificate(tmp_path, "server")
    key = cert.with_suffix(".key")
    key.chmod(0o600)
    Tls(cert, key, None)
    assert caplog.text == ""
    key.chmod(0o640)
    Tls(cert, key, None)
    assert f"TLS key {key}" in caplog.text and "chmod go=" in caplog.text
