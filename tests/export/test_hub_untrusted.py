"""A hub that answers with anything: nothing is planted, and every download ends."""

import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.errors import CannotWrite, DownloadFailed
from export.settings import Settings
from export.source.hubs import client as hub_client
from export.source.hubs.address import hub_address
from export.source.hubs.client import MOST_REDIRECTS, PATIENCE_S, Hub
from export.source.hubs.hub import fetch
from export.source.model import locate
from server.messages.message import Message
from tests.support.artifacts import names
from tests.support.downloads import files_in, lone_hub, refused
from tests.support.stand_in_hub import COMMIT, MODEL, NEEDED, StandInHub
from tests.support.toys import write_toy_checkpoint

pytest.importorskip("requests", reason="needs the export extra")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    yield from lone_hub(monkeypatch)


# --- nothing is planted --------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ["../../../evil", "/tmp/evil", "a" * 5000, "\\x", "0" * 39])
def test_an_etag_that_is_no_digest_is_ignored(hub: StandInHub, tmp_path: Path, etag: str) -> None:
    hub.lists_digests, hub.etag = False, etag
    fetch(MODEL, tmp_path / "deep" / "tiny", endpoint=hub.url)
    assert files_in(tmp_path) == {f"deep/tiny/{name}": NEEDED[name] for name in NEEDED}


def test_downloads_lie_apart_from_the_artifacts(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.files = files_in(write_toy_checkpoint(tmp_path / "toy"))
    place = locate(Settings(MODEL))
    assert (place.outputs, place.revision) == (Path("models/tiny-model"), COMMIT)
    assert files_in(place.folder) == hub.files
    assert place.downloaded and not place.folder.is_relative_to(place.outputs)
    assert not place.outputs.exists()


# --- odd answers ---------------------------------------------------------------------------------

FILE: dict[str, Any] = {"rfilename": "config.json", "size": 2}
ODD: list[Any] = [
    {"sha": 7},
    {"sha": COMMIT + "\n"},
    {"siblings": None},
    {"siblings": {"config.json": 2}},
    {"siblings": [1]},
    {"siblings": [None]},
    {"siblings": [{}]},
    {"siblings": [FILE | {"rfilename": 7}]},
    {"siblings": [FILE | {"size": "2"}]},
    {"siblings": [FILE | {"size": -1}]},
    {"siblings": [FILE | {"size": True}]},
    {"siblings": [FILE | {"size": 1.5}]},
    {"siblings": [FILE | {"lfs": [1]}]},
    {"siblings": [FILE | {"lfs": {"size": "large"}}]},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_types_in_the_list_are_refused(hub: StandInHub, tmp_path: Path, odd: Any) -> None:
    hub.answer = json.dumps({"sha": COMMIT, "siblings": [FILE]} | odd).encode()
    assert "does not answer as a model hub does" in refused(DownloadFailed, hub, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    "answer", [b'{"a": ' + b"[" * 200_000, b"[" * 200_000 + b"]" * 200_000, b"\xff\xfe{}"]
)
def test_lists_that_are_no_plain_json_are_refused(
    hub: StandInHub, tmp_path: Path, answer: bytes
) -> None:
    hub.answer = answer
    assert "does not answer as a model hub does" in refused(DownloadFailed, hub, tmp_path)


def test_digests_of_odd_types_are_asked_for_again(hub: StandInHub, tmp_path: Path) -> None:
    siblings = [{"rfilename": name, "blobId": ["x"], "size": None} for name in hub.files]
    hub.answer = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
    hub.spoilt = {"config.json"}
    assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)
    hub.spoilt = set()
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED


def test_compressed_content_is_refused(hub: StandInHub, tmp_path: Path) -> None:
    hub.headers = {"Content-Encoding": "gzip"}
    assert "does not answer as a model hub does" in refused(DownloadFailed, hub, tmp_path)


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub", "http://[", "http://", "file:///etc"])
def test_address_that_is_none_is_refused(hub: StandInHub, tmp_path: Path, endpoint: str) -> None:
    assert "HF_ENDPOINT" in refused(DownloadFailed, hub, tmp_path, endpoint=endpoint)


# --- bounds --------------------------------------------------------------------------------------


def test_redirects_in_a_circle_end(hub: StandInHub, tmp_path: Path) -> None:
    hub.redirects_to = "self"
    assert "TooManyRedirects" in refused(DownloadFailed, hub, tmp_path)
    assert len(hub.seen) == MOST_REDIRECTS + 1


@pytest.mark.parametrize("place", ["file:///etc/passwd", "http://", "http://[", "http://\udcff"])
def test_redirect_to_no_address_of_the_web_is_refused(
    hub: StandInHub, tmp_path: Path, place: str
) -> None:
    hub.redirects_to = place.encode("utf-8", "surrogateescape").decode("latin-1")
    assert "failed (" in refused(DownloadFailed, hub, tmp_path)


def test_file_that_is_longer_than_listed_is_not_kept(hub: StandInHub, tmp_path: Path) -> None:
    hub.listed_sizes = {"config.json": 5}
    assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)
    assert [path for path in files_in(tmp_path) if "config.json" in path] in ([], [PART])
    assert files_in(tmp_path).get(PART, b"") == b""


PART = f".download/{COMMIT}/config.json.part"


def test_file_without_end_is_cut_off_at_the_limit(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.source.hubs.hub.MOST_SETTINGS", 100_000)
    hub.lists_digests, hub.endless = False, {"config.json"}
    assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)
    assert sum(map(len, files_in(tmp_path).values())) < 10_000


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_file_that_is_listed_as_too_large_is_not_asked_for(
    hub: StandInHub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.source.hubs.hub._Transfer._check_space", lambda *_: None)
    hub.listed_sizes = {name: 10**15}
    message = refused(DownloadFailed, hub, tmp_path)
    assert f"{name} of {MODEL} has 1,000,000,000,000,000 bytes, at most " in message
    assert name not in hub.sent()


def test_hub_that_sends_too_slowly_is_given_up(hub: StandInHub, tmp_path: Path) -> None:
    times = iter([0.0, PATIENCE_S + 1, PATIENCE_S + 2])
    slow = Hub(hub_address(MODEL, endpoint=hub.url), clock=lambda: next(times))
    with pytest.raises(DownloadFailed, match="less than 1024 bytes a second"):
        slow.files()
    slow.close()


def test_full_disk_bounds_a_file_of_unknown_size(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.lists_digests, hub.endless = False, {"model.safetensors"}
    # What the disk has free beside what stays free is less than the first block.
    monkeypatch.setattr("export.source.hubs.client.LEFT_FREE", 10**18)
    assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)


# --- two at a time -------------------------------------------------------------------------------


def test_second_download_of_a_model_says_that_it_waits(hub: StandInHub, tmp_path: Path) -> None:
    first = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    said: list[Message] = []

    def waiting(message: Message) -> None:
        said.append(message)
        assert hub.sent() == []
        os.close(first)

    fetch(MODEL, tmp_path, endpoint=hub.url, waiting=waiting)
    assert files_in(tmp_path) == NEEDED
    (message,) = said
    assert f"downloads to {tmp_path}" in message.english and "等待" in message.chinese


def test_several_downloads_of_a_model_bring_each_file_once(hub: StandInHub, tmp_path: Path) -> None:
    ended: list[str] = []

    def download() -> None:
        ended.append(fetch(MODEL, tmp_path, endpoint=hub.url)[1])

    threads = [threading.Thread(target=download) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [COMMIT] * 4
    assert files_in(tmp_path) == NEEDED
    assert sorted(hub.sent()) == sorted(NEEDED)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_anything_else_in_place_of_a_file_is_named_and_stays(
    hub: StandInHub, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "config.json"
    if kind == "link":
        place.symlink_to(tmp_path / "none")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    assert "config.json exists and is not a file of" in refused(CannotWrite, hub, tmp_path)
    assert "config.json" in names(tmp_path) and not (tmp_path / "none").exists()


def test_an_answer_whose_head_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "PATIENCE_S", 0.2)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(0.02):
                    connection.sendall(b"a")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(DownloadFailed, match=r"failed \(Timeout\)"):
            fetch(MODEL, tmp_path / "tiny", endpoint=url)
        ended.set()
        thread.join()
