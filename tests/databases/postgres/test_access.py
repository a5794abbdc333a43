"""Logins that fail say what an administrator must do, and never show the password."""

import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from server.databases.address import opened, parse
from server.databases.database import VectorDatabase
from server.databases.postgres.encryption import context
from server.databases.postgres.login import login
from server.databases.postgres.pool import Pool
from server.databases.postgres.session import GRACE_S
from server.errors import BadSettings, DatabaseAway, DatabaseBusy, DatabaseRefused
from tests.databases.postgres.conftest import address
from tests.support.cut_connections import cutting
from tests.support.databases import INFO, SECRET, entry
from tests.support.network_faults import answering
from tests.support.postgres import ADMIN, PASSWORD, PostgresServer

Opening = Callable[[str], VectorDatabase]
NUMBERS = count()
OPENSSL = shutil.which("openssl")


@pytest.fixture
def fresh(server: PostgresServer) -> Iterator[str]:
    """A database with a user of its own name and no rights, without pgvector."""
    name = f"fresh_{next(NUMBERS)}"
    server.sql(f"CREATE ROLE {name} LOGIN PASSWORD $password${PASSWORD}$password$")
    server.sql(f"CREATE DATABASE {name}")
    yield name
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.sql(f"DROP ROLE {name}")


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DatabaseRefused) as raised:
        call()
    message = str(raised.value)
    assert PASSWORD not in message and SECRET not in message
    return message


def test_the_wrong_password_is_refused_and_not_shown(server: PostgresServer) -> None:
    given = replace(address(server.url()), secret=SECRET)
    database = opened(given)
    message = refusal(database.ping)
    assert "password authentication failed" in message and "check the user" in message
    assert SECRET not in repr(login(given))
    assert "check the user" in refusal(opened(replace(given, secret=None)).ping)


def test_what_an_administrator_runs_is_in_the_refusals_one_after_another(
    server: PostgresServer, opening: Opening, fresh: str
) -> None:
    database = opening(server.url(fresh, user=fresh))
    assert "CREATE EXTENSION vector;" in refusal(database.ping)
    server.sql("CREATE EXTENSION vector", fresh)
    assert database.ping().startswith("PostgreSQL 16.")
    needed = f'GRANT CREATE ON DATABASE "{fresh}" TO "{fresh}";'
    assert needed in refusal(lambda: database.create(INFO))
    server.sql(needed)
    database.create(INFO)
    database.put(INFO, [entry(1, "a", "text")])
    assert database.count(INFO, None) == 1


def test_the_extension_is_installed_where_the_user_may(
    server: PostgresServer, opening: Opening, fresh: str
) -> None:
    assert "pgvector 0." in opening(server.url(fresh)).ping()


def test_the_extension_may_be_in_any_schema(
    server: PostgresServer, opening: Opening, fresh: str
) -> None:
    server.sql('CREATE SCHEMA "of ""all"""', fresh)
    server.sql('CREATE EXTENSION vector SCHEMA "of ""all"""', fresh)
    database = opening(server.url(fresh))
    database.create(INFO)
    given = entry(1, "a", "text")
    database.put(INFO, [given])
    assert database.nearest(INFO, given.rows[0].vector, 1, None)[0].score == pytest.approx(
        1, abs=1e-6
    )


def test_a_database_that_is_not_there_is_refused(server: PostgresServer, opening: Opening) -> None:
    message = refusal(opening(server.url("absent")).ping)
    assert 'CREATE DATABASE "absent" OWNER "admin" ENCODING \'UTF8\'' in message


def test_a_database_of_another_encoding_is_refused(
    server: PostgresServer, opening: Opening
) -> None:
    server.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    assert "keeps texts in LATIN1" in refusal(opening(server.url("latin")).ping)


def test_a_server_without_a_free_connection_is_away(
    server: PostgresServer, opening: Opening, fresh: str
) -> None:
    server.sql("CREATE EXTENSION vector", fresh)
    server.sql(f"ALTER ROLE {fresh} CONNECTION LIMIT 1")
    first = opening(server.url(fresh, user=fresh))
    first.ping()
    with pytest.raises(DatabaseAway, match="too many connections .*53300"):
        opening(server.url(fresh, user=fresh)).ping()
    assert first.names() == []


def test_a_statement_that_takes_too_long_ends_and_its_session_goes_on(
    server: PostgresServer,
) -> None:
    given = login(address(server.url(timeout_s="0.3")))
    pool = Pool(given, context(given))
    mine = pool.read(lambda session: session.rows("SELECT pg_backend_pid()"))
    with pytest.raises(DatabaseBusy, match="statement timeout"):
        pool.read(lambda session: session.rows("SELECT pg_sleep(30)"))
    assert pool.read(lambda session: session.rows("SELECT pg_backend_pid()")) == mine
    pool.close()


def test_transactions_that_meet_run_again(server: PostgresServer) -> None:
    """Each of two takes one of two locks and then the other: PostgreSQL ends one of them."""
    given = login(address(server.url()))
    pool = Pool(given, None)
    both = threading.Barrier(2)
    runs: list[int] = []

    def work(locks: tuple[int, int]) -> None:
        def body(session: object) -> None:
            runs.append(locks[0])
            session.rows("SELECT pg_advisory_xact_lock($1::bigint)", locks[0])  # type: ignore[attr-defined]
            if len(runs) <= 2:
                both.wait(10)
            session.rows("SELECT pg_advisory_xact_lock($1::bigint)", locks[1])  # type: ignore[attr-defined]

        pool.write(body)

    threads = [threading.Thread(target=work, args=(locks,)) for locks in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert len(runs) == 3


@pytest.fixture
def stranger() -> Iterator[tuple[int, list[bytes]]]:
    """A port behind which something else answers each connection with the bytes of the list, or with nothing."""
    listening = socket.create_server(("127.0.0.1", 0))
    answers: list[bytes] = []
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                taken, _ = listening.accept()
            except OSError:
                return
            kept.append(taken)
            taken.recv(1000)
            if answers:
                taken.sendall(answers[0])
                taken.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1], answers
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for each in kept:
        each.close()


def test_what_does_not_answer_is_away_in_time(
    opening: Opening, stranger: tuple[int, list[bytes]]
) -> None:
    from server import clock

    begin = clock.now()
    with pytest.raises(DatabaseAway, match="does not answer: timed out"):
        opening(f"postgresql://someone@127.0.0.1:{stranger[0]}/some?timeout_s=0.1").ping()
    assert clock.now() - begin < GRACE_S + 5


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n" * 40,
        b"\0" * 500,
        b"E\0\0\0\4",
        b"R\0\0\0\x0c\0\0\0\7abcd",
    ],
)
def test_what_is_no_postgresql_is_refused(
    opening: Opening, stranger: tuple[int, list[bytes]], answer: bytes
) -> None:
    port, answers = stranger
    answers.append(answer)
    with pytest.raises((DatabaseRefused, DatabaseAway), match=f"127.0.0.1:{port}/some"):
        opening(f"postgresql://someone@127.0.0.1:{port}/some?timeout_s=1").ping()


def test_what_hangs_up_at_once_is_away(opening: Opening, stranger: tuple[int, list[bytes]]) -> None:
    port, answers = stranger
    answers.append(b"")
    with pytest.raises(DatabaseAway, match="does not answer"):
        opening(f"postgresql://someone@127.0.0.1:{port}/some?timeout_s=1").ping()


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("postgresql://127.0.0.1/some", "USER@HOST"),
        ("postgresql://a@127.0.0.1/some/more", "USER@HOST"),
        ("postgresql://a@127.0.0.1/some?sslmode=prefer", "prefer"),
        ("postgresql://a@127.0.0.1/some?sessions=0", "1 to 64"),
        ("postgresql://a@127.0.0.1/some?sessions=65", "1 to 64"),
        ("postgresql://a@127.0.0.1/some?sessions=many", "1 to 64"),
        ("postgresql://a@db.example/some?ca_file=/absent.pem", "/absent.pem"),
    ],
)
def test_addresses_that_cannot_be_meant_are_refused_at_once(uri: str, word: str) -> None:
    with pytest.raises(BadSettings, match=word):
        opened(address(uri))


def test_only_a_server_on_this_machine_is_asked_in_clear_text_by_itself() -> None:
    modes = {
        host: login(address(f"postgresql://a@{host}/")).encryption
        for host in ("127.0.0.1", "[::1]", "localhost", "db.example", "10.0.0.7")
    }
    assert modes == {
        "127.0.0.1": "disable",
        "[::1]": "disable",
        "localhost": "disable",
        "db.example": "verify-full",
        "10.0.0.7": "verify-full",
    }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Certificates and keys by their names: one of this machine, and one of another."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    found = {}
    for name in ("localhost", "db.example"):
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
        names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        files = ["-keyout", str(key), "-out", str(cert)]
        subprocess.run([OPENSSL, "req", *made, *names, *files], check=True, capture_output=True)
        found[name] = cert, key
    return found


@pytest.mark.parametrize(
    ("of", "trusted", "mode", "word"),
    [
        ("localhost", "localhost", "verify-full", None),
        ("localhost", "localhost", "verify-ca", None),
        ("localhost", None, "require", None),
        ("db.example", "db.example", "verify-ca", None),
        ("db.example", "db.example", "verify-full", "Hostname mismatch"),
        ("db.example", "localhost", "verify-ca", "certificate verify failed"),
        ("db.example", "localhost", "require", "certificate verify failed"),
        ("localhost", None, "verify-full", "certificate verify failed"),
    ],
)
def test_tls_is_as_strict_as_sslmode_says(
    server: PostgresServer,
    opening: Opening,
    certificates: dict[str, tuple[Path, Path]],
    of: str,
    trusted: str | None,
    mode: str,
    word: str | None,
) -> None:
    options = {"sslmode": mode} | (
        {"sslrootcert": str(certificates[trusted][0])} if trusted else {}
    )
    query = "&".join(f"{name}={value}" for name, value in options.items())
    # The server itself is built without TLS.
    assert "refuses SSL" in refusal(opening(f"{server.url()}?{query}").ping)
    with cutting(server.port) as proxy:
        proxy.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        proxy.tls.load_cert_chain(*certificates[of])
        database = opening(f"postgresql://{ADMIN}@localhost:{proxy.port}/postgres?{query}")
        if word is None:
            assert database.ping().startswith("PostgreSQL 16.")
            proxy.cut_after = b"COMMIT"
            assert "of_tls" not in database.names()
            assert proxy.n_cut == 1
        else:
            assert word in refusal(database.ping)
        database.close()


def test_an_answer_has_a_time_as_a_whole_and_not_only_each_of_its_bytes() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"N" + struct.pack("!i", 1_000))
        while True:
            connection.sendall(b".")
            threading.Event().wait(0.1)

    with answering(drip) as (host, port):
        database = opened(
            parse("main", f"postgresql://me@{host}:{port}/some?timeout_s=1&sslmode=disable", {})
        )
        begin = time.monotonic()
        with pytest.raises(DatabaseAway, match="does not answer: timed out"):
            database.ping()
        assert time.monotonic() - begin < 8.0
        database.close()


def test_an_answer_that_would_fill_the_memory_is_refused_by_its_head() -> None:
    def flood(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"D" + struct.pack("!i", (1 << 31) - 1))
        while True:
            connection.sendall(bytes(1 << 20))

    with answering(flood) as (host, port):
        database = opened(
            parse("main", f"postgresql://me@{host}:{port}/some?timeout_s=1&sslmode=disable", {})
        )
        with pytest.raises(DatabaseRefused, match="more than 512 MB"):
            database.ping()
        database.close()
