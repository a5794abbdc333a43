"""Commands with --url: with a real server, and with answers that a real one rarely gives."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from server.cli.remote import ATTEMPTS, LONGEST_PAUSE_S, Remote
from server.cli.target import UNSAID, Question, TooLargeForServer
from server.errors import BadSettings, StartupError
from server.store.records import Document
from tests.support.commands import Commands, check_reranked, write_lines
from tests.support.processes import serving
from tests.support.toys import toy_texts, write_toy_texts


def test_commands_work_on_a_running_server(
    run: Commands, toy_artifact: Path, scorer_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path, "--model", str(scorer_artifact)) as server:
        url = ("--url", server.url)
        path = write_toy_texts(tmp_path / "texts.txt", 600)
        assert "no collections" in run("collections", *url).out
        assert "added 600, unchanged 0" in run("index", path, *url).out
        assert "added 0, unchanged 600" in run("index", path, *url).out
        assert (
            "default  600" in run("collections", *url).out and "toy" in run("collections", *url).out
        )
        check_search(run, url)
        check_reranked(lambda *flags, **named: run("search", "墨池", *url, *flags, **named))
        check_warning(run, tmp_path, *url)
        check_cutting(run, url, tmp_path)
        run("export", tmp_path / "out.jsonl", *url)
        run("backup", "default", tmp_path / "backup")
    assert len(lines_of(tmp_path / "out.jsonl")) == 600
    run("restore", tmp_path / "backup", "--collection", "copy")
    run("export", tmp_path / "copy.jsonl", "--collection", "copy")
    assert lines_of(tmp_path / "copy.jsonl") == lines_of(tmp_path / "out.jsonl")
    check_warning(run, tmp_path)
    assert "faults" not in run("check").out


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def check_warning(run: Commands, folder: Path, *url: str) -> None:
    path = folder / "typed.jsonl"
    path.write_text('{"text": "甲", "metadata": {"year": "2021"}}\n', "utf-8")
    run("index", path, "--collection", "typed", *url)
    search = ("search", "甲", "--collection", "typed", "--filter", '{"year": 2021}', *url)
    for arguments in (search, (*search, "--json")):
        found = run(*arguments)
        (said,) = [line for line in found.err.splitlines() if "year" in line]
        assert said.startswith("warning: no value of 'year' can match: ")
    assert json.loads(found.out)["warnings"] == [said.removeprefix("warning: ")]


def check_search(run: Commands, url: tuple[str, str]) -> None:
    text = toy_texts(600)[30]
    for mode in ("lexical", "hybrid"):
        (hit,) = json.loads(
            run("search", text, "--json", "--mode", mode, "--top-k", "1", *url).out
        )["hits"]
        assert hit["text"] == text
        assert hit["part"] == {"begin": 0, "end": len(text), "whole": True}
    assert "1. similarity" in run("search", text, *url).out
    assert "nothing was found" in run("search", text, "--filter", '{"year": 2024}', *url).out
    assert "$near" in run.refused("search", text, "--filter", '{"a": {"$near": 1}}', *url)
    assert run.refused("search", text, "--collection", "missing", *url).count("missing") == 2
    assert "not valid Unicode" in run("search", "\udcff", *url, status=1).err


def check_cutting(run: Commands, url: tuple[str, str], folder: Path) -> None:
    long = write_lines(folder / "long.txt", ["".join(f"{n}是一句话。" for n in range(40))])
    of_laws = ("--collection", "laws", *url)
    run("index", long, "--chunk-tokens", "0", *of_laws)
    assert json.loads(run("search", "话", "--json", *of_laws).out)["hits"][0]["part"]["whole"]
    said = run.refused("index", long, "--chunk-tokens", "20", *of_laws)
    assert said.count("reindex --collection laws --chunk-tokens 20") == 2
    assert "reindexed 1/1" in run("reindex", "--chunk-tokens", "20", *of_laws).err
    assert not json.loads(run("search", "话", "--json", *of_laws).out)["hits"][0]["part"]["whole"]
    assert "unchanged 1" in run("index", long, "--chunk-tokens", "20", *of_laws).out
    assert "99 is outside" in run.refused("reindex", "--chunk-tokens", "99", *of_laws)


# --- answers of an odd server ---------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]
ADDED: Answer = (200, {}, b'{"ids": ["a"], "stored": 1}')


class Odd(BaseHTTPRequestHandler):
    """Sends the next of `answers`; without one, waits until the client leaves and sets `left`."""

    answers: ClassVar[list[Answer]]
    asked: ClassVar[list[tuple[str, str]]]
    arrived: ClassVar[threading.Event]
    left: ClassVar[threading.Event]

    def do_POST(self) -> None:
        self.asked.append((self.command, self.path))
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.arrived.set()
        if not self.answers:
            self.connection.settimeout(30)
            assert self.rfile.read(1) == b"", "the client has left"
            self.left.set()
            self.close_connection = True
            return
        status, headers, body = self.answers.pop(0)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def odd(*answers: Answer) -> Iterator[tuple[str, type[Odd]]]:
    class Handler(Odd):
        pass

    Handler.answers, Handler.asked = list(answers), []
    Handler.arrived, Handler.left = threading.Event(), threading.Event()
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", Handler
        finally:
            server.shutdown()
            thread.join()


class Pauses(list[float]):
    """Records every pause instead of waiting."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def add(url: str, pauses: Pauses) -> int:
    return asyncio.run(Remote(url, "main", pause=pauses).add([Document("a", "墨池")]))


def test_server_without_room_is_asked_again_when_it_says() -> None:
    busy = (429, {"retry-after": "3"}, b'{"error": {"message": "full"}}')
    stopping = (503, {"retry-after": "9999"}, b"")
    with odd(busy, stopping, (503, {"retry-after": "soon"}, b""), ADDED) as (url, handler):
        pauses = Pauses()
        assert add(url, pauses) == 1
        assert pauses == [3, LONGEST_PAUSE_S, 1]
        assert handler.asked == [("POST", "/collections/main/documents")] * 4


def test_server_that_never_has_room_is_given_up() -> None:
    with odd(*[(429, {}, b'{"error": {"message": "the queue is full"}}')] * ATTEMPTS) as (url, _):
        pauses = Pauses()
        with pytest.raises(StartupError) as refusal:
            add(url, pauses)
        assert len(pauses) == ATTEMPTS - 1
        assert f"{url} answered 429: the queue is full" in refusal.value.english
        assert f"{url} 返回 429：the queue is full" in refusal.value.chinese


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, {}, b'{"error": {"code": "x", "message": "\xe5\xa2\xa8 is 3"}}'), "400: 墨 is 3"),
        ((404, {}, b"<html>no such page</html>"), "404: <html>no such page</html>"),
        ((200, {}, b"<html>another program</html>"), "200: <html>another program</html>"),
        ((500, {}, b"[]"), "500: []"),
        ((302, {"location": "http://192.0.2.1/"}, b"moved"), "302: moved"),
    ],
)
def test_what_the_server_says_no_with_is_shown(answer: Answer, words: str) -> None:
    with odd(answer) as (url, handler):
        with pytest.raises(StartupError, match=re.escape(words)) as refusal:
            add(url, Pauses())
        assert words.replace(": ", "：", 1) in refusal.value.chinese
        assert len(handler.asked) == 1


def test_refusal_of_a_large_body_is_read_though_the_server_did_not_read_the_body() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    refusal = json.dumps({"error": {"code": "too_large", "message": "at most 1 MB"}}).encode()

    def refuse() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1)
            head = f"HTTP/1.1 413 Too Large\r\ncontent-length: {len(refusal)}\r\n\r\n"
            connection.sendall(head.encode() + refusal)

    serving = threading.Thread(target=refuse)
    with listening:
        serving.start()
        target = Remote(f"http://127.0.0.1:{listening.getsockname()[1]}", "laws")
        with pytest.raises(TooLargeForServer, match="answered 413: at most 1 MB"):
            asyncio.run(target.add([Document("a", "x" * 20_000_000)]))
        serving.join()


OTHERS: list[bytes] = [
    b"{}",
    b'{"stored": "all", "hits": [1], "collections": ["a"], "count": null}',
]


@pytest.mark.parametrize("answer", OTHERS)
@pytest.mark.parametrize(
    "ask",
    [
        lambda remote: remote.add([Document("a", "墨池")]),
        lambda remote: remote.search(Question("墨池")),
        lambda remote: remote.sizes(),
        lambda remote: remote.matching({"a": 1}),
        lambda remote: remote.page("0", 1, None),
        lambda remote: remote.reindex(UNSAID, lambda done, total: None),
        lambda remote: remote.listed(),
    ],
)
def test_server_that_is_another_program_is_recognised(ask: Any, answer: bytes) -> None:
    with odd((200, {}, answer)) as (url, _):
        with pytest.raises(
            StartupError, match=f"{url} answered .* not Inkwell's; give the address"
        ):
            asyncio.run(ask(Remote(url, "main")))


def test_path_before_every_other_is_kept() -> None:
    with odd(ADDED) as (url, handler):
        assert add(f"{url}/search/", Pauses()) == 1
        assert handler.asked == [("POST", "/search/collections/main/documents")]


def test_name_cannot_leave_its_place_in_the_path() -> None:
    with odd(ADDED) as (url, handler):
        asyncio.run(Remote(url, "../a b?", pause=Pauses()).add([Document("a", "墨池")]))
        assert handler.asked == [("POST", "/collections/..%2Fa%20b%3F/documents")]


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with odd(ADDED) as (url, _):
        assert add(url, Pauses()) == 1


def test_reindex_that_failed_is_not_taken_for_done() -> None:
    stats = {"documents": 3, "fingerprint": "old", "chunks": None, "reindexing": None}
    began = {**stats, "reindexing": {"done": 1, "total": 3}}
    answers: list[Answer] = [
        (202, {}, json.dumps(began).encode()),
        (200, {}, json.dumps(stats).encode()),
        (200, {}, b'{"fingerprint": "new"}'),
    ]
    shown = []
    with odd(*answers) as (url, _):
        with pytest.raises(StartupError, match="was not reindexed"):
            asyncio.run(
                Remote(url, "main", pause=Pauses()).reindex(
                    UNSAID, lambda *done: shown.append(done)
                )
            )
    assert shown == [(1, 3)]


def test_caller_that_leaves_ends_the_request() -> None:
    with odd() as (url, handler):

        async def test() -> None:
            adding = asyncio.ensure_future(Remote(url, "main").add([Document("a", "墨池")]))
            await asyncio.to_thread(handler.arrived.wait, 30)
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding

        asyncio.run(test())
        assert handler.left.wait(30)


def test_commands_send_the_key_that_the_server_asks_for(
    run: Commands, toy_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = run("key", "new", "a", "--scopes", "search,write", "--keys", tmp_path / "keys").out
    path = write_toy_texts(tmp_path / "texts.txt", 5)
    file = write_lines(tmp_path / "key", [secret])
    log = tmp_path / "audit"
    flags = ("--keys", str(tmp_path / "keys"), "--audit", str(log))
    with serving(toy_artifact, tmp_path, *flags) as server:
        url = ("--url", server.url)
        for command in (("index", path), ("collections",)):
            said = run.refused(*command, *url)
            assert said.count("INKWELL_API_KEY") == said.count("--key-file") == 2
            # Its message, in whichever form the route refuses.
            assert "asks for a key" in said and "{" not in said
        assert "added 5" in run("index", path, *url, "--key-file", file).out
        monkeypatch.setenv("INKWELL_API_KEY", secret.strip())
        assert "default  5" in run("collections", *url).out
        # The file is nearer than the variable.
        empty = write_lines(tmp_path / "empty", [])
        assert "holds no key" in run.refused("collections", *url, "--key-file", empty)
        assert run.refused("reindex", *url).count("needs the scope admin") == 2
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.wait() == 0
        assert secret.strip() not in server.log.read_text()
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert {(line["key"], line["status"]) for line in lines} >= {
        (None, 401),
        ("a", 200),
        ("a", 403),
    }
    assert secret.strip() not in log.read_text() and "墨" not in log.read_text()


@pytest.mark.parametrize("secret", ["a b", "a\nb", "墨", "a\x7f"])
def test_key_that_is_none_is_refused_and_not_repeated(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("INKWELL_API_KEY", f"hidden{secret}")
    said = run.refused("collections", "--url", "http://127.0.0.1:1")
    assert "INKWELL_API_KEY holds no key" in said and "hidden" not in said
    file = write_lines(tmp_path / "key", [f"hidden{secret}"])
    said = run.refused("collections", "--url", "http://127.0.0.1:1", "--key-file", file)
    assert f"{file} holds no key" in said and "hidden" not in said


def test_a_byte_order_mark_is_no_part_of_a_key(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\xef\xbb\xbfhidden\r\n")
    said = run.refused("collections", "--url", "http://127.0.0.1:1", "--key-file", file)
    assert "cannot be reached" in said and "holds no key" not in said


def test_key_file_that_is_not_there_is_named(run: Commands, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    said = run.refused("collections", "--url", "http://127.0.0.1:1", "--key-file", path)
    assert said.count(str(path)) == 2


def test_server_that_is_not_there_is_said_to_be(run: Commands, tmp_path: Path) -> None:
    path = write_toy_texts(tmp_path / "texts.txt", 5)
    with odd() as (gone, _):
        pass
    for url in (gone, gone.replace("http", "https"), "http://host.invalid:1"):
        assert run.refused("index", path, "--url", url).count(url) == 2
    assert not run.data.exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://a:b@host",
        "http://h?x",
    ],
)
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(repr(url))):
        Remote(url, "main")
