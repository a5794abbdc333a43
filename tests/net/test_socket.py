"""The real process on a real socket: connections, signals, and refusals to start."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from server.auth.keys import add_key, new_key
from server.inference.manifest import MODEL_FILE
from server.inference.model import Model
from server.net.limits import MAX_PIPELINED
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import ROOT, TRUSTING, Server, command, environment, serving

# A request that takes some seconds: every text is a batch of its own.
LONG = ("--batch-tokens", "1", "--max-texts", "100000")
LONG_TEXTS = 20_000
AS_JSON = {"content-type": "application/json"}
LONG_BODY = json.dumps({"texts": ["墨池" * 31] * LONG_TEXTS}).encode()


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it running."""
    with serving(toy_artifact, tmp_path_factory.mktemp("server"), *LONG) as started:
        yield started


def request(path: str, body: bytes = b"", *headers: str) -> bytes:
    method = "POST" if body else "GET"
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def connect(server: Server, receive_bytes: int = 0) -> socket.socket:
    """receive_bytes: size of the kernel's receive buffer, 0 for its default."""
    connection = socket.socket()
    connection.settimeout(PATIENCE_S)
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        connection.connect((server.host, server.port))
    except OSError:
        connection.close()
        raise
    return TRUSTING.wrap_socket(connection) if server.scheme == "https" else connection


class Replies:
    """The replies of one connection, in order."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def next(self, read: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """(status, headers with small names, body); read: what was read of the first line before."""
        status = int((read + self._file.readline()).split()[1])
        headers = {}
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self._file.read(int(headers["content-length"]))

    def ended(self) -> bool:
        return self._file.read(1) == b""


def test_one_connection_carries_many_requests(server: Server, toy_model: Model) -> None:
    with connect(server) as connection:
        replies = Replies(connection)
        for text in ("墨", "池", "笔"):
            connection.sendall(request("/embed", json.dumps({"texts": [text]}).encode()))
            status, _, body = replies.next()
            assert status == 200
            expected = toy_model.embed([text])
            np.testing.assert_allclose(json.loads(body)["vectors"], expected, atol=1e-5)


def test_connection_survives_errors_of_the_caller(server: Server) -> None:
    with connect(server) as connection:
        replies = Replies(connection)
        for path, body, expected in (
            ("/embed", b"{", 400),
            ("/nowhere", b"{}", 404),
            ("/health", b"{}", 405),
            ("/embed", b'{"texts": []}', 400),
            ("/embed", b'{"texts": ["a"]}', 200),
        ):
            connection.sendall(request(path, body))
            status, headers, content = replies.next()
            assert (status, headers["content-type"]) == (expected, "application/json")
            assert json.loads(content)


def test_pipelined_requests_are_answered_in_order(server: Server, toy_model: Model) -> None:
    texts = [chr(0x4E00 + index) * (1 + index % 7) for index in range(MAX_PIPELINED)]
    bodies = [json.dumps({"texts": [text]}).encode() for text in texts]
    with connect(server) as connection:
        replies = Replies(connection)
        connection.sendall(b"".join(request("/embed", body) for body in bodies))
        for text in texts:
            status, _, body = replies.next()
            assert status == 200
            expected = toy_model.embed([text])
            np.testing.assert_allclose(json.loads(body)["vectors"], expected, atol=1e-5)


def test_request_in_single_bytes_is_read(server: Server) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request("/embed", b'{"texts": ["a"]}'):
            connection.sendall(bytes([byte]))
        assert Replies(connection).next()[0] == 200


def test_chunked_request_is_read(server: Server) -> None:
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(head + b'9\r\n{"texts":\r\n7\r\n ["a"]}\r\n0\r\n\r\n')
        assert Replies(connection).next()[0] == 200


def test_close_is_honoured(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request("/health", b"", "Connection: close"))
        replies = Replies(connection)
        assert replies.next()[0] == 200
        assert replies.ended()


def test_large_body_is_refused_before_it_has_come(server: Server) -> None:
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{"
    with connect(server) as connection:
        connection.sendall(head)
        replies = Replies(connection)
        status, _, body = replies.next()
        assert status == 413
        assert json.loads(body)["error"]["code"] == "request_too_large"
        assert replies.ended()


def test_large_chunked_body_is_refused_before_it_has_come(server: Server) -> None:
    sent = []

    def parts() -> Iterator[bytes]:
        for _ in range(200):
            sent.append(1)
            yield b" " * (1 << 20)

    with server.client() as client:
        assert client.post("/embed", content=parts(), headers=AS_JSON).status_code == 413
    # The limit is 32; the rest was in buffers on the way.
    assert 32 < len(sent) < 64


def test_head_has_no_body(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + request("/health"))
        with connection.makefile("rb") as file:
            assert b" 200 " in file.readline()
            while file.readline().strip():
                pass
            # Right behind comes the answer to the second request.
            assert file.readline().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent, said",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "method"),
        (b"GET /health HTTP/1.1\r\nHo st: x\r\n\r\n", "header"),
        (b"GET http://x:99999/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "target"),
        (b"POST /embed HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Length"),
        (b"POST /embed HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1"),
        (b"CONNECT inkwell:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", "proxy"),
    ],
    ids=["TLS", "header", "target", "two lengths", "chunk", "HTTP/2", "CONNECT"],
)
def test_bytes_that_are_not_http_are_refused_in_json_and_end_their_connection_only(
    server: Server, sent: bytes, said: str
) -> None:
    before = server.metric("unread_total", reason="syntax")
    with connect(server) as connection:
        connection.sendall(sent)
        replies = Replies(connection)
        status, headers, body = replies.next()
        assert (status, headers["content-type"]) == (400, "application/json")
        assert headers["connection"] == "close" and headers["x-request-id"]
        error = json.loads(body)["error"]
        assert error["code"] == "invalid_request" and said in error["message"]
        assert replies.ended()
    assert server.metric("unread_total", reason="syntax") == before + 1


# As the HttpClient of Java's standard library sends it over plain HTTP.
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")


def offering(text: str, *headers: str) -> bytes:
    return request("/embed", json.dumps({"texts": [text]}).encode(), *headers)


@pytest.mark.parametrize("place", ["whole", "behind the head", "in the head", "in the body"])
def test_offer_to_upgrade_is_declined_by_an_answer(
    server: Server, toy_model: Model, place: str
) -> None:
    sent = offering("墨池", *H2C)
    head = sent.index(b"\r\n\r\n") + 4
    cut = {"whole": 0, "behind the head": head, "in the head": head - 40, "in the body": head + 5}
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = Replies(connection)
        for _ in range(3):
            for part in (sent[: cut[place]], sent[cut[place] :]):
                connection.sendall(part)
                # An answer on another connection: the server has read the part by now.
                assert server.metric("lanes") == 1
            status, headers, body = replies.next()
            assert status == 200 and "connection" not in headers
            vectors = json.loads(body)["vectors"]
            np.testing.assert_allclose(vectors, toy_model.embed(["墨池"]), atol=1e-5)


def test_offers_and_ordinary_requests_are_answered_in_order(
    server: Server, toy_model: Model
) -> None:
    texts = [chr(0x4E00 + index) * (1 + index % 7) for index in range(MAX_PIPELINED)]
    sent = [offering(text, *(H2C if index % 3 else ())) for index, text in enumerate(texts)]
    with connect(server) as connection:
        replies = Replies(connection)
        connection.sendall(b"".join(sent))
        for text in texts:
            status, _, body = replies.next()
            assert status == 200
            expected = toy_model.embed([text])
            np.testing.assert_allclose(json.loads(body)["vectors"], expected, atol=1e-5)


def test_offer_in_single_bytes_is_read(server: Server) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in offering("a", *H2C):
            connection.sendall(bytes([byte]))
        assert Replies(connection).next()[0] == 200


def test_offer_before_a_chunked_or_a_large_body_or_none_is_declined(server: Server) -> None:
    offer = "\r\n".join(("Host: localhost", "Content-Type: application/json", *H2C)).encode()
    large = b'{"texts": ["a"]' + b" " * (1 << 20) + b"}"
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(large)
    with connect(server) as connection:
        replies = Replies(connection)
        for sent in (
            b"POST /embed HTTP/1.1\r\n" + offer + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'9\r\n{"texts":\r\n7\r\n ["a"]}\r\n0\r\n\r\n',
            b"POST /embed HTTP/1.1\r\n" + offer + length + large,
            b"GET /health HTTP/1.1\r\n" + offer + b"\r\n\r\n",
            b"GET /health HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ):
            connection.sendall(sent)
            assert replies.next()[0] == 200


def test_errors_after_an_offer_are_answered_like_any_other(server: Server) -> None:
    for body, status in ((b"{", 400), (b'{"texts": []}', 400)):
        with connect(server) as connection:
            connection.sendall(request("/embed", body, *H2C) + request("/health", b"", *H2C))
            replies = Replies(connection)
            assert [replies.next()[0], replies.next()[0]] == [status, 200]
    with connect(server) as connection:
        connection.sendall(request("/health", b"", *H2C) + b"no HTTP\r\n\r\n")
        replies = Replies(connection)
        assert [replies.next()[0], replies.next()[0]] == [200, 400]
        assert replies.ended()


def test_refusal_comes_after_the_answers_to_earlier_requests(
    server: Server, toy_model: Model
) -> None:
    texts = ["墨", "池池"]
    sent = b"".join(request("/embed", json.dumps({"texts": [text]}).encode()) for text in texts)
    unfinished = b"POST /embed HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for broken in (b"no HTTP\r\n\r\n", unfinished + b"zz\r\n"):
        with connect(server) as connection:
            connection.sendall(sent + broken)
            replies = Replies(connection)
            for text in texts:
                status, _, body = replies.next()
                assert status == 200
                expected = toy_model.embed([text])
                np.testing.assert_allclose(json.loads(body)["vectors"], expected, atol=1e-5)
            status, headers, body = replies.next()
            assert (status, headers["connection"]) == (400, "close")
            assert b"this is not HTTP/1.1" in body
            assert replies.ended()


def test_requests_sent_ahead_beyond_a_few_are_refused(server: Server) -> None:
    with connect(server) as connection:
        # One packet, and so one read of the server's.
        connection.sendall(request("/health") * 200)
        replies = Replies(connection)
        statuses = [replies.next()[0] for _ in range(MAX_PIPELINED + 1)]
        assert statuses == [200] * (MAX_PIPELINED + 1)
        status, headers, body = replies.next()
        assert (status, headers["retry-after"]) == (429, "1")
        assert f"at most {MAX_PIPELINED} are allowed" in json.loads(body)["error"]["message"]
        assert replies.ended()


def test_client_that_leaves_costs_nothing_more(server: Server) -> None:
    texts_before, abandoned_before = server.metric("texts_total"), server.metric("abandoned_total")
    computed_before = server.metric("batch_texts_sum")
    with connect(server) as connection:
        connection.sendall(request("/embed", LONG_BODY))
        eventually(lambda: server.metric("queue_tokens", kind="bulk") > 0)
    eventually(lambda: server.metric("abandoned_total") > abandoned_before)
    eventually(lambda: server.metric("queue_tokens", kind="bulk") == 0)
    computed = server.metric("batch_texts_sum")
    assert computed - computed_before < LONG_TEXTS
    with server.client() as client:
        assert client.post("/embed", json={"texts": ["墨"]}).status_code == 200
    assert server.metric("batch_texts_sum") == computed + 1
    assert server.metric("texts_total") == texts_before + 1
    assert server.metric("abandoned_total") == abandoned_before + 1


def test_others_are_served_during_a_long_request(server: Server) -> None:
    with connect(server) as connection, server.client() as client:
        connection.sendall(request("/embed", LONG_BODY))
        eventually(lambda: server.metric("queue_tokens", kind="bulk") > 0)
        for _ in range(5):
            assert client.post("/embed", json={"inputs": "墨池"}).status_code == 200
            assert client.get("/ready").status_code == 200
        assert server.metric("queue_tokens", kind="bulk") > 0


def test_listens_on_loopback_only(server: Server) -> None:
    assert server.host == "127.0.0.1"
    port = f"{server.port:04X}"
    listening = []
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{server.process.pid}/net/{table}").read_text().splitlines()[1:]
        columns = [line.split() for line in lines]
        # State 0A is LISTEN.
        listening += [c[1] for c in columns if c[1].endswith(f":{port}") and c[3] == "0A"]
    assert listening == [f"0100007F:{port}"]


def test_idle_server_uses_no_cpu(server: Server) -> None:
    def cpu_seconds() -> float:
        stat = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, stat[11:13])) / os.sysconf("SC_CLK_TCK")

    with server.client() as client:
        assert client.post("/embed", json={"texts": ["墨池"] * 200}).status_code == 200
    eventually(
        lambda: sum(server.metric("queue_tokens", kind=k) for k in ("bulk", "interactive")) == 0
    )
    before = cpu_seconds()
    time.sleep(0.5)
    assert cpu_seconds() - before < 0.1


def test_errors_are_not_logged_but_for_ours(server: Server) -> None:
    with server.client() as client:
        assert client.post("/embed", content=b"{", headers=AS_JSON).status_code == 400
    assert "Traceback" not in server.log.read_text()
    assert "ERROR" not in server.log.read_text()


def test_texts_are_never_logged(toy_artifact: Path, tmp_path: Path) -> None:
    secret = "保密墨池secret"
    with serving(toy_artifact, tmp_path, "--log-level", "debug") as server:
        with server.client() as client:
            for body in (
                {"texts": [secret]},
                {"inputs": [secret, 5]},
                {"input": secret, "model": secret},
                {"texts": [secret], "input_type": secret},
            ):
                for path in ("/embed", "/v1/embeddings"):
                    assert client.post(path, json=body).status_code in (200, 400, 404, 422)
            assert client.get(f"/{secret}").status_code == 404
            broken = client.post("/embed", content=secret.encode(), headers=AS_JSON)
            assert broken.status_code == 400
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        log = server.log.read_text()
        assert "DEBUG" in log
        assert "保密" not in log and "secret" not in log


# --- the end --------------------------------------------------------------------------------------


class LongRequest(threading.Thread):
    """A client that sends LONG_BODY; `answer` is the reply, None without one."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self.answer: httpx.Response | None = None
        self.start()
        eventually(lambda: server.metric("queue_tokens", kind="bulk") > 0)

    def run(self) -> None:
        with self._server.client() as client:
            try:
                self.answer = client.post("/embed", content=LONG_BODY, headers=AS_JSON)
            except httpx.TransportError:
                return


def refuses_connections(server: Server) -> bool:
    try:
        connect(server).close()
    except (ConnectionRefusedError, ConnectionResetError):
        # Reset: it was still in the queue of a socket that was closed meanwhile.
        return True
    return False


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_stops_at_once_and_well(
    toy_artifact: Path, tmp_path: Path, end: signal.Signals
) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.get("/ready").status_code == 200
        server.process.send_signal(end)
        assert server.wait() == 0
        assert "Traceback" not in server.log.read_text()


def test_sigterm_finishes_a_long_request(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, *LONG) as server:
        long = LongRequest(server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses_connections(server))
        assert long.is_alive()
        assert server.wait() == 0
        long.join(PATIENCE_S)
        assert long.answer is not None and long.answer.status_code == 200
        assert len(long.answer.json()["vectors"]) == LONG_TEXTS
        assert "Traceback" not in server.log.read_text()


def test_limit_ends_a_long_request_with_an_answer(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, *LONG, "--shutdown-s", "0") as server:
        long = LongRequest(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        long.join(PATIENCE_S)
        assert long.answer is not None and long.answer.status_code == 503
        assert long.answer.json()["error"]["code"] == "shutting_down"
        assert int(long.answer.headers["retry-after"]) > 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_limit_ends_a_request_that_is_not_whole_with_an_answer(
    toy_artifact: Path, tmp_path: Path, path: str
) -> None:
    with serving(toy_artifact, tmp_path, "--shutdown-s", "0") as server:
        with connect(server) as connection:
            connection.sendall(request(path, b" " * 1000)[:-500])
            # An answer on another connection: the server has read the head by now.
            assert server.metric("lanes") == 1
            server.process.send_signal(signal.SIGTERM)
            status, headers, body = Replies(connection).next()
        assert server.wait() == 0
        assert (status, headers["content-type"]) == (503, "application/json")
        assert json.loads(body)["error"]["code"] == "shutting_down"
        assert int(headers["retry-after"]) > 0
        assert "Traceback" not in server.log.read_text()


def test_second_sigterm_does_not_wait(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, *LONG, "--shutdown-s", "3600") as server:
        long = LongRequest(server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses_connections(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        long.join(PATIENCE_S)
        assert long.answer is None


# --- the start ------------------------------------------------------------------------------------


def refused_start(*arguments: str | Path, **variables: str) -> str:
    """Return what a command that ends with status 1 prints, in English and then in Chinese."""
    both = ""
    for locale, error in (("C.UTF-8", "^error: [A-Za-z/]"), ("zh_CN.UTF-8", "^错误：.*[一-鿿]")):
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=environment(LC_ALL=locale, **variables),
            capture_output=True,
            timeout=PATIENCE_S,
        )
        said = done.stderr.decode()
        assert done.returncode == 1, said
        assert "Traceback" not in said
        assert re.search(error, said, re.MULTILINE), said
        both += said
    return both


def test_damaged_model_refuses_to_start(toy_artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_artifact, tmp_path / "artifact"))
    content = bytearray((folder / MODEL_FILE).read_bytes())
    content[-100] ^= 0xFF
    (folder / MODEL_FILE).write_bytes(content)
    said = refused_start("serve", "--port", "0", "--model", folder)
    assert "model.onnx is damaged" in said and "model.onnx 已损坏" in said


def test_missing_model_says_how_to_make_one(tmp_path: Path) -> None:
    said = refused_start("serve", "--port", "0", INKWELL_MODEL=str(tmp_path / "nothing"))
    assert said.count("make export") == 2


def test_port_in_use_is_named(toy_artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused_start("serve", "--port", str(port), "--model", toy_artifact)
    assert "address already in use" in said
    assert said.count(f"127.0.0.1:{port}") == 2
    assert said.count("--port") == 2


def test_address_of_another_machine_is_named(toy_artifact: Path) -> None:
    # An address of the block for documentation, which no machine has.
    said = refused_start("serve", "--port", "0", "--host", "192.0.2.1", "--model", toy_artifact)
    assert said.count("192.0.2.1") >= 2


def test_impossible_setting_is_named(tmp_path: Path) -> None:
    said = refused_start("serve", INKWELL_PORT="seventy")
    assert "port must be a whole number, not 'seventy'" in said


# --- access ---------------------------------------------------------------------------------------


def test_address_beyond_the_loopback_without_keys_is_warned_of(
    toy_artifact: Path, tmp_path: Path
) -> None:
    arguments = ("serve", "--port", "0", "--host", "192.0.2.1", "--model", toy_artifact)
    said = refused_start(*arguments)
    assert "192.0.2.1 without keys" in said
    add_key(tmp_path / "keys", new_key("a", "embed")[1])
    assert "without keys" not in refused_start(*arguments, "--keys", tmp_path / "keys")


def test_keys_that_cannot_be_read_refuse_to_start(toy_artifact: Path, tmp_path: Path) -> None:
    arguments = ("serve", "--port", "0", "--model", toy_artifact, "--keys")
    assert refused_start(*arguments, tmp_path / "missing").count("missing") == 2
    (tmp_path / "keys").write_text('{"name": "a"}\n')
    assert "line 1" in refused_start(*arguments, tmp_path / "keys")


def test_keys_are_never_logged_and_the_audit_goes_to_standard_output(
    toy_artifact: Path, tmp_path: Path
) -> None:
    secret, key = new_key("a", "embed")
    add_key(tmp_path / "keys", key)
    flags = ("--keys", str(tmp_path / "keys"), "--audit", "-", "--log-level", "debug")
    with serving(toy_artifact, tmp_path, *flags) as server:
        with server.client() as client:
            for sent, status in ((secret, 200), (f"{secret}x", 401)):
                for headers in ({"authorization": f"Bearer {sent}"}, {"x-api-key": sent}):
                    answer = client.post("/embed", json={"texts": ["墨池"]}, headers=headers)
                    assert answer.status_code == status
                    assert secret not in answer.text
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        log = server.log.read_text()
    assert secret not in log and key.sha256 not in log and "墨池" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines] == [200, 200, 401, 401]
    assert {line["client"] for line in lines} == {"127.0.0.1"}
