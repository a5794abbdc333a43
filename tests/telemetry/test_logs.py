"""The log: plain lines or one JSON object for each event, and no secrets."""

import json
import logging
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from server.telemetry.logs import JsonLines, PlainLines
from tests.support.fakes import PATIENCE_S
from tests.support.processes import Server, serving

SECRET = "墨池里的秘密"


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord(
        "server.inference.lanes", logging.WARNING, "", 0, message, arguments, None
    )
    made.created = 1_764_056_342.25
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_line_is_an_object_with_time_level_logger_and_message() -> None:
    assert json.loads(JsonLines().format(record("%d texts 条文本", 3))) == {
        "time": "2025-11-25T07:39:02.250Z",
        "level": "warning",
        "logger": "server.inference.lanes",
        "message": "3 texts 条文本",
    }


def test_exception_and_request_stand_in_the_same_line() -> None:
    try:
        raise ArithmeticError("a\nb")
    except ArithmeticError:
        line = JsonLines().format(record("x", exc_info=sys.exc_info(), request="r-1"))
    assert "\n" not in line
    found = json.loads(line)
    assert found["request"] == "r-1"
    assert found["exception"].startswith("Traceback") and "ArithmeticError" in found["exception"]


def test_what_is_no_unicode_is_escaped() -> None:
    assert json.loads(JsonLines().format(record("\ud800 墨")))["message"] == "\ud800 墨"


def test_plain_line_is_one_line_whatever_it_names() -> None:
    forged = record(
        "%s failed 失败", "/a\n2026-11-25 ERROR server: forged\r\x1b[2J\u2028\x85\ud800"
    )
    line = PlainLines().format(forged)
    assert len(line.splitlines()) == 1 and "\x1b" not in line
    assert line.endswith(
        "/a\\n2026-11-25 ERROR server: forged\\r\\x1b[2J\\u2028\\x85\\ud800 failed 失败"
    )


def test_plain_line_of_an_exception_has_its_traceback_below() -> None:
    try:
        raise ArithmeticError("a")
    except ArithmeticError:
        lines = PlainLines().format(record("x", exc_info=sys.exc_info())).splitlines()
    assert lines[0].endswith("server.inference.lanes: x") and lines[1].startswith("Traceback")


def lines(server: Server) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]


def provoke(client: httpx.Client) -> None:
    assert client.post("/embed", json={"texts": [SECRET]}).status_code == 200
    client.post("/documents", json={"documents": [{"id": "a", "text": SECRET}]})
    assert client.post("/embed", content=b"{").status_code == 415


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_line_of_a_server_is_an_object_from_start_to_end(
    toy_artifact: Path, tmp_path: Path, workers: str
) -> None:
    flags = ("--log-format", "json", "--log-level", "debug", "--workers", workers)
    with serving(toy_artifact, tmp_path, *flags) as server:
        with server.client() as client:
            provoke(client)
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        found = lines(server)
    assert {"uvicorn.error"} <= {line["logger"] for line in found}
    for line in found:
        assert line.keys() <= {"time", "level", "logger", "message", "request", "exception"}
        assert SECRET not in line["message"]


def test_failure_names_its_request(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, "--log-format", "json") as server:
        with server.client() as client:
            client.post("/documents", json={"documents": [{"id": "a", "text": SECRET}]})
            # While the server runs, its file stops being a database.
            database = tmp_path / "data/collections/default/documents.sqlite3"
            for path in (database, database.with_name(database.name + "-wal")):
                path.write_bytes(b"\0" * path.stat().st_size)
            reply = client.get("/documents/a", headers={"x-request-id": "trace-9"})
        assert reply.status_code == 500
        (failed,) = [line for line in lines(server) if line["level"] == "error"]
    assert failed["request"] == "trace-9"
    assert SECRET not in json.dumps(failed, ensure_ascii=False)


def test_path_cannot_write_a_line_of_its_own(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path) as server:
        with server.client() as client:
            id = "a\r2026-11-25 ERROR forged\x1b[2J" + "x" * 400
            client.post("/documents", json={"documents": [{"id": id, "text": SECRET}]})
            database = tmp_path / "data/collections/default/documents.sqlite3"
            for path in (database, database.with_name(database.name + "-wal")):
                path.write_bytes(b"\0" * path.stat().st_size)
            assert client.get(f"/documents/{quote(id)}").status_code == 500
        said = server.log.read_text(encoding="utf-8")
    (line,) = [line for line in said.splitlines() if "forged" in line]
    assert "/documents/a\\r2026-11-25 ERROR forged\\x1b" in line and "x" * 400 not in line
