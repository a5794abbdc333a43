"""Fixtures of the tests of deploy/: a certificate."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the certificate's path without the suffix; the key is beside it."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "inkwell"
    names = ("-subj", "/CN=inkwell.example", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    files = ("-keyout", f"{path}.key", "-out", f"{path}.crt")
    subprocess.run(
        ["openssl", "req", "-x509", *made, *names, *files], check=True, capture_output=True
    )
    return path
