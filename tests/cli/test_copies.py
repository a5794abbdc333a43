"""Backups, restoring, synonyms and stop words by commands: in this process and on a server."""

import contextlib
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.commands import Commands, write_lines
from tests.support.processes import serving
from tests.support.toys import write_toy_texts


@pytest.fixture(scope="module")
def served(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running server."""
    folder = tmp_path_factory.mktemp("served")
    with serving(toy_artifact, folder):
        yield folder / "data"


def exported(run: Commands, path: Path, *flags: str) -> list[bytes]:
    run("export", path, *flags)
    return path.read_bytes().splitlines()


def test_backups_come_from_a_server_and_go_back_to_it(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "default.backup", tmp_path / "out.jsonl"
    there = tmp_path / "there"
    there.mkdir()
    with serving(toy_artifact, there) as server:
        url = ("--url", server.url)
        run("index", write_toy_texts(tmp_path / "texts.txt", 300), *url)
        rows = exported(run, out, *url)
        assert len(rows) == 300
        said = run("backup", "default", file, *url).out
        assert said == f"backed up default: {file.stat().st_size:,} bytes\n"
        assert (
            run("restore", file, "--collection", "copy", *url).out
            == "restored copy: 300 documents\n"
        )
        assert exported(run, out, "--collection", "copy", *url) == rows
        # Its own name, which is taken.
        said = run.refused("restore", file, *url)
        assert "default" in said and said.count("--force") == 2
        run("delete", json.loads(rows[0])["id"], *url)
        assert "300 documents" in run("restore", file, "--force", *url).out
        assert sorted(exported(run, out, *url)) == sorted(rows)
        assert "missing" in run.refused("backup", "missing", tmp_path / "none", *url)
        assert "no sound backup" in run.refused("restore", out, *url)
        assert "no file" in run.refused("restore", tmp_path / "none", *url)
        assert "folder that exists" in run.refused("backup", "default", tmp_path / "a/b", *url)
    assert run("restore", file).out == "restored default: 300 documents\n"
    assert exported(run, out) == rows
    assert not list(tmp_path.glob(".*.tmp")) and not (tmp_path / "none").exists()


def test_a_server_restores_into_its_data_folder(either: Commands, tmp_path: Path) -> None:
    either("index", write_lines(tmp_path / "a.txt", ["墨池", "砚台"]), "--collection", "笔墨")
    either("backup", "笔墨", tmp_path / "a.backup")
    said = either("restore", tmp_path / "a.backup", "--collection", "另一个", locale="zh_CN.UTF-8")
    assert "另一个" in said.out and "2" in said.out
    assert len(exported(either, tmp_path / "out", "--collection", "另一个")) == 2
    assert either.refused("restore", tmp_path / "a.backup", "--collection", "另一个")
    refusal = either.refused("restore", tmp_path / "a.backup", "--collection", "a/b")
    assert "'a/b' cannot name a collection" in refusal


# --- copies that do not come whole ------------------------------------------------------------------


@contextlib.contextmanager
def answering(head: bytes, body: bytes) -> Iterator[str]:
    """Yield the address of a server that answers every request so, and then closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def whole(run: Commands, tmp_path: Path) -> bytes:
    run("index", write_toy_texts(tmp_path / "texts.txt", 60))
    run("backup", "default", tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


def test_a_part_of_a_backup_never_looks_like_one(
    run: Commands, whole: bytes, tmp_path: Path
) -> None:
    target = tmp_path / "old.backup"
    target.write_bytes(b"old")
    chunked = b"Transfer-Encoding: chunked"
    size = b"%x\r\n" % (len(whole) // 2)
    page = bytearray(whole)
    page[len(whole) // 2 : len(whole) // 2 + 3000] = b"\xff" * 3000
    cases = {
        "ended its answer": [
            (chunked, size + whole[: len(whole) // 2] + b"\r\n"),
            (chunked, size + whole[: len(whole) // 3]),
            (chunked, b""),
            (b"Content-Length: %d" % len(whole), whole[:-1]),
        ],
        "no sound backup": [
            # Nothing says how long it is.
            (b"X-Nothing: 1", whole[: len(whole) // 2]),
            (b"Content-Length: %d" % len(whole), bytes(page)),
            (b"Content-Length: 5", b"hello"),
            (b"Content-Length: 0", b""),
        ],
    }
    for words, answers in cases.items():
        for head, body in answers:
            with answering(head, body) as url:
                assert words in run.refused("backup", "default", target, "--url", url)
            assert target.read_bytes() == b"old"
            assert not list(tmp_path.glob(".old*"))
    with answering(b"Content-Length: %d" % len(whole), whole) as url:
        run("backup", "default", target, "--url", url)
    assert target.read_bytes() == whole


def test_another_program_is_no_server_to_restore_to(
    run: Commands, whole: bytes, tmp_path: Path
) -> None:
    with answering(b"Content-Length: 2", b"{}") as url:
        said = run.refused("restore", tmp_path / "whole", "--url", url)
    assert "in a form that is not Inkwell's" in said
    assert "POST /collections/default/restore in" in said


def test_a_full_disk_is_no_fault_of_the_server(run: Commands, whole: bytes, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with answering(b"Content-Length: %d" % len(whole), whole) as url:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        try:
            said = run.refused("backup", "default", tmp_path / "b", "--url", url)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in said and os.strerror(27) in said
    assert not (tmp_path / "b").exists()


# --- synonyms and stop words ------------------------------------------------------------------------


def test_synonyms_and_stop_words_are_set_and_shown(
    either: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    either(
        "index", write_lines(tmp_path / "a.txt", ["人工智能正在改变世界。"]), "--collection", "词"
    )
    of = ("--collection", "词")
    assert json.loads(either("words", "get", *of).out) == {"synonyms": [], "stop_words": []}
    asked = ("search", "AI", "--mode", "lexical", *of)
    assert "nothing was found" in either(*asked).out
    given = {"synonyms": [["AI", "人工智能"]], "stop_words": ["哪些"]}
    path = tmp_path / "words.json"
    path.write_text(json.dumps(given), "utf-8-sig")
    said = either("words", "set", path, *of).out
    assert said == "词 has 1 groups of synonyms and 1 stop words\n"
    shown = either("words", "get", *of).out
    assert json.loads(shown) == given
    assert "人工智能" in either(*asked).out
    stdin = io.TextIOWrapper(io.BytesIO(shown.encode()), "utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    either("words", "set", "-", *of)
    assert either("words", "get", *of).out == shown
    for bad, words in (
        ('{"synonyms": [["a"]]}', "two phrases at least"),
        ('{"synonym": []}', "synonym"),
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
    ):
        path.write_text(bad, "utf-8")
        said = either("words", "set", path, *of, status=1).err
        assert words in said
    assert either("words", "get", *of).out == shown
    assert "cannot be read" in either.refused("words", "set", tmp_path / "none", *of)
