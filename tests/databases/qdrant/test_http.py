"""What a Qdrant server answers, as errors: whose fault it is, and that no secret is in it."""

import gzip
import json
import time

import pytest

from server.databases.address import opened, parse, variable
from server.databases.database import VectorDatabase
from server.errors import DatabaseAway, DatabaseBusy, DatabaseRefused
from tests.support.databases import INFO, SECRET, entry
from tests.support.network_faults import HttpAnswers, answering

pytest.importorskip("qdrant_client")


def at(host: str, port: int, timeout_s: int = 1) -> VectorDatabase:
    uri = f"qdrant+http://{host}:{port}?timeout_s={timeout_s}"
    return opened(parse("main", uri, {variable("main"): SECRET}))


def error_body(message: str) -> bytes:
    return json.dumps({"status": {"error": message}, "time": 0.1}).encode()


@pytest.mark.parametrize(
    "status", ["500 Internal", "502 Bad Gateway", "503 Unavailable", "408 Timeout"]
)
def test_an_error_of_the_server_may_be_over_later(status: str) -> None:
    with answering(HttpAnswers(status, error_body("shard is not ready"))) as (host, port):
        with pytest.raises((DatabaseAway, DatabaseBusy), match="shard is not ready") as raised:
            at(host, port).put(INFO, [entry(1, "a", "text")])
    assert f"status {status[:3]}" in raised.value.message


def test_a_server_says_when_to_come_again() -> None:
    answers = HttpAnswers("429 Too Many", error_body("slow down"), "Retry-After: 17\r\n")
    with answering(answers) as (host, port), pytest.raises(DatabaseBusy) as raised:
        at(host, port).count(INFO, None)
    assert raised.value.retry_after_s == 17


@pytest.mark.parametrize(
    "status",
    ["400 Bad", "401 No", "403 No", "404 Not Found", "409 Conflict", "413 Too Large", "302 Found"],
)
def test_a_refusal_is_repeated_without_the_secret(status: str) -> None:
    answers = HttpAnswers(status, error_body(f"key {SECRET} is wrong"), "Location: http://x/\r\n")
    with answering(answers) as (host, port), pytest.raises(DatabaseRefused) as raised:
        at(host, port).count(INFO, None)
    assert "key *** is wrong" in raised.value.message
    assert SECRET not in raised.value.message
    assert ("is its API key" in raised.value.message) == (status[:3] in ("401", "403"))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>a login page</html>", b"{}", b"[]", b'{"result": 5}', b"\xff\xfe", b"null"],
    ids=repr,
)
def test_an_answer_of_something_else_is_refused(body: bytes) -> None:
    with answering(HttpAnswers("200 OK", body)) as (host, port):
        database = at(host, port)
        for call in (lambda: database.count(INFO, None), lambda: database.page(INFO, -1, 5, None)):
            with pytest.raises(DatabaseRefused):
                call()


def test_a_packed_answer_is_not_unpacked() -> None:
    packed = gzip.compress(b"0" * (1 << 24))
    answers = HttpAnswers("200 OK", packed, "Content-Encoding: gzip\r\n")
    with answering(answers) as (host, port), pytest.raises(DatabaseRefused, match="packed"):
        at(host, port).count(INFO, None)
    assert "accept-encoding: identity" in answers.heads[0].lower()


def test_an_answer_has_a_size_at_most() -> None:
    with answering(HttpAnswers("200 OK", b" " * (65 << 20))) as (host, port):
        with pytest.raises(DatabaseRefused, match="more than 64 MB"):
            at(host, port, timeout_s=60).count(INFO, None)


def test_an_answer_that_never_ends_is_left() -> None:
    with answering(HttpAnswers("200 OK", b" " * 1_000, pause_s=0.2)) as (host, port):
        begin = time.monotonic()
        with pytest.raises(DatabaseAway, match="no answer within 1 s"):
            at(host, port).count(INFO, None)
        assert time.monotonic() - begin < 4


def test_the_key_is_sent_and_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", "/never/there")
    answers = HttpAnswers("200 OK", b'{"title": "q", "version": "1.20.0"}')
    with answering(answers) as (host, port):
        assert at(host, port).ping() == "Qdrant 1.20.0"
    (head,) = answers.heads
    assert f"api-key: {SECRET}" in head
    assert "authorization" not in head.lower()


def test_a_secret_is_nowhere_in_what_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with answering(HttpAnswers("500 Internal", error_body("broken"))) as (host, port):
        database = at(host, port)
        with pytest.raises(DatabaseAway) as raised:
            database.ping()
    assert SECRET not in caplog.text + repr(raised.value) + repr(database) + str(vars(database))
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
