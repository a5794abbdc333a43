"""HTTPS on the real server, with certificates that openssl makes here."""

import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from server.errors import BadSettings
from server.tls import Tls
from tests.server.fakes import PATIENCE_S
from tests.server.processes import Server, serving
from tests.server.test_reload import hang_up
from tests.server.test_socket import refused_start

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


def certificate(folder: Path, name: str, *, days: int = 2, signer: Path | None = None) -> Path:
    """One for 127.0.0.1 in `name`.pem, its key in `name`.key; signed by itself or by a signer."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    by = [] if signer is None else ["-CA", str(signer), "-CAkey", str(signer.with_suffix(".key"))]
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-noenc", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-days", str(days)),
            *("-keyout", str(key), "-out", str(cert), *by),
        ],
        check=True,
        capture_output=True,
    )
    return cert


def expired(folder: Path) -> Path:
    """A certificate whose time is over."""
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
        with client_of(server, cert) as client:
            assert client.get("/ready").status_code == 200
    assert Tls(cert, cert.with_suffix(".key"), None).context.minimum_version >= 0x303


def test_files_that_cannot_be_used_are_named_before_the_port_opens(
    toy_artifact: Path, tmp_path: Path
) -> None:
    cert, other = certificate(tmp_path, "server"), certificate(tmp_path, "other")
    start = ("serve", "--port", "0", "--model", toy_artifact, "--tls-cert")
    assert refused_start(*start, tmp_path / "none.pem").count("none.pem") == 2
    said = refused_start(*start, cert, "--tls-key", other.with_suffix(".key"))
    assert "belong together: key values mismatch" in said
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(BadSettings, match="no certificate in PEM"):
        Tls(cert, cert.with_suffix(".key"), tmp_path / "text")
    with pytest.raises(BadSettings, match="no certificate and key"):
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
    assert "certificate has expired" in caplog.text and "客户端将拒绝证书" in caplog.text
