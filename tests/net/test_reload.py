"""Reload: a running server applies what changed, without dropping a request."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from server.auth.keys import add_key, new_key, remove_key
from server.config import Config
from server.inference.manifest import MANIFEST_FILE, MODEL_FILE
from server.net.reload import AT_ONCE, merged, waiting
from tests.net.test_worker_pool import workers_of
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving

PROCESSES = [(), ("--workers", "2")]
# Connections that go to every process in turn, twice.
ROUND = 4


def another(artifact: Path, folder: Path, name: str) -> Path:
    """Return a copy of the artifact that states another vector space and another id."""
    copied = Path(shutil.copytree(artifact, folder / name))
    rename(copied, name)
    return copied


def rename(artifact: Path, name: str) -> None:
    path = artifact / MANIFEST_FILE
    stated = json.loads(path.read_bytes()) | {"fingerprint": f"of {name}", "model_id": name}
    path.write_bytes(msgspec.json.encode(stated))


def write(file: Path, **settings: Any) -> None:
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))


def hang_up(server: Server) -> str:
    """Send SIGHUP; return what the server logs of it."""
    before = server.log.read_text()
    server.process.send_signal(signal.SIGHUP)
    ends = ("settings read again", "nothing has changed", "no setting has changed")
    eventually(lambda: any(end in server.log.read_text()[len(before) :] for end in ends))
    return server.log.read_text()[len(before) :]


def listed(server: Server) -> set[str]:
    """Return the names of the served models, from any process."""
    with server.client() as client:
        return {model["id"] for model in client.get("/v1/models").json()["data"]}


@contextmanager
def configured(
    artifact: Path, folder: Path, flags: Sequence[str], **settings: Any
) -> Iterator[tuple[Server, Path]]:
    """A server with its model in a settings file, because a flag would win over the file."""
    file = folder / "inkwell.toml"
    write(file, model=[str(artifact)], **settings)
    with serving(None, folder, "--config", str(file), *flags) as server:
        yield server, file


class Asking(threading.Thread):
    """A thread that embeds on one connection until it is stopped, and keeps the failures."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.answered = 0
        self.wrong: list[str] = []
        self.stopping = threading.Event()
        self._server = server
        self.start()

    def run(self) -> None:
        with self._server.client() as client:
            while not self.stopping.is_set() and not self.wrong:
                try:
                    answer = client.post("/embed", json={"texts": ["墨池", "笔"]})
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                    continue
                if answer.status_code == 200 and len(answer.json()["vectors"]) == 2:
                    self.answered += 1
                else:
                    self.wrong.append(answer.text)

    def end(self) -> None:
        self.stopping.set()
        self.join(PATIENCE_S)


@contextmanager
def asking(server: Server, number: int = 4) -> Iterator[list[Asking]]:
    clients = [Asking(server) for _ in range(number)]
    try:
        eventually(lambda: all(client.answered for client in clients))
        yield clients
    finally:
        for client in clients:
            client.end()
    assert [client.wrong for client in clients] == [[]] * number


def check_each_goes_on(clients: Sequence[Asking]) -> None:
    before = [client.answered for client in clients]
    pairs = list(zip(clients, before, strict=True))
    eventually(lambda: all(client.answered > count or client.wrong for client, count in pairs))


# --- what changes ---------------------------------------------------------------------------------


def test_settings_that_need_a_restart_are_named_and_stay() -> None:
    began, read = Config(), Config(port=9000, max_texts=5, model_alias="a", log_level="error")
    assert waiting(began, read) == ["port", "max_texts"]
    assert merged(began, read) == Config(model_alias="a", log_level="error")
    assert AT_ONCE == {"model", "model_alias", "log_level"}


@pytest.mark.parametrize("flags", PROCESSES)
def test_alias_and_log_level_change_and_a_restart_is_asked_for_by_name(
    toy_artifact: Path, tmp_path: Path, flags: Sequence[str]
) -> None:
    with configured(toy_artifact, tmp_path, flags, model_alias="old") as (server, file):
        assert "old" in listed(server)
        write(file, model=[str(toy_artifact)], model_alias="new", max_texts=7, log_level="warning")
        said = hang_up_quietly(server)
        assert "after a restart: max_texts" in said
        for _ in range(4):
            eventually(lambda: "new" in listed(server) and "old" not in listed(server))
        with server.client() as client:
            info = client.get("/info").json()
            assert (info["served_model_name"], info["max_client_batch_size"]) == ("new", 2048)


def hang_up_quietly(server: Server) -> str:
    """Send SIGHUP at a log level that hides its end."""
    before = len(server.log.read_text())
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "restart" in server.log.read_text()[before:])
    return server.log.read_text()[before:]


@pytest.mark.parametrize("flags", PROCESSES)
def test_key_that_was_added_is_known_in_every_process(
    toy_artifact: Path, tmp_path: Path, flags: Sequence[str]
) -> None:
    keys = tmp_path / "keys"
    add_key(keys, new_key("first", "embed")[1])
    with serving(toy_artifact, tmp_path, "--keys", str(keys), *flags) as server:
        secret, key = new_key("second", "embed")
        add_key(keys, key)
        headers = {"x-api-key": secret}
        for status in (401, 200):
            for _ in range(4):
                with server.client() as client:
                    answer = client.post("/embed", json={"texts": ["墨"]}, headers=headers)
                    assert answer.status_code == status
            assert "2 keys read" in hang_up(server)


def test_impossible_file_changes_nothing_and_says_why(toy_artifact: Path, tmp_path: Path) -> None:
    with configured(toy_artifact, tmp_path, (), model_alias="old") as (server, file):
        write(file, model=[str(toy_artifact)], model_alias="new", prot=1)
        said = hang_up(server)
        assert "nothing has changed" in said and "port" in said
        assert "old" in listed(server)
        file.unlink()
        assert "cannot be read" in hang_up(server)


@pytest.mark.parametrize("flags", PROCESSES)
@pytest.mark.parametrize("wrong", ["setting", "model"])
def test_keys_and_audit_are_read_again_whatever_is_wrong_beside_them(
    toy_artifact: Path, tmp_path: Path, flags: Sequence[str], wrong: str
) -> None:
    keys, audit = tmp_path / "keys", tmp_path / "audit"
    secret, key = new_key("removed", "embed")
    add_key(keys, key)
    flags = ("--keys", str(keys), "--audit", str(audit), *flags)
    with configured(toy_artifact, tmp_path, flags, model_alias="old") as (server, file):
        assert embedded(server, secret) == {200}
        eventually(lambda: len(lines_of(audit)) == ROUND)
        audit.rename(tmp_path / "audit.1")
        remove_key(keys, "removed")
        kept, other = new_key("other", "embed")
        add_key(keys, other)
        if wrong == "model":
            broken = another(toy_artifact, tmp_path, "broken")
            (broken / MODEL_FILE).write_bytes(b"no model")
            write(file, model=[str(broken)], model_alias="new")
        else:
            write(file, model=[str(toy_artifact)], model_alias="new", prot=1)
        said = hang_up(server)
        assert "1 keys read" in said and "keys and audit were read again" in said
        assert "keys and audit were read again" in said and ("port" in said or "is damaged" in said)
        eventually(lambda: embedded(server, secret) == {401})
        assert embedded(server, kept) == embedded(server, kept, model="old") == {200}
        assert embedded(server, kept, model="new") == {404}
        eventually(lambda: processes_in(audit) == 1 + flags.count("--workers"))


@pytest.mark.parametrize("flags", PROCESSES)
def test_keys_that_cannot_be_read_leave_all_but_the_audits_file_as_it_was(
    toy_artifact: Path, tmp_path: Path, flags: Sequence[str]
) -> None:
    keys, audit = tmp_path / "keys", tmp_path / "audit"
    secret, key = new_key("first", "embed")
    add_key(keys, key)
    other = another(toy_artifact, tmp_path, "other")
    flags = ("--keys", str(keys), "--audit", str(audit), *flags)
    with configured(toy_artifact, tmp_path, flags, model_alias="old") as (server, file):
        audit.rename(tmp_path / "audit.1")
        write(file, model=[str(other)], model_alias="new", log_level="warning", max_texts=7)
        keys.write_text("{}\n")
        said = hang_up(server)
        assert "nothing has changed" in said and "line 1" in said
        for name, status in (("old", 200), ("toy", 200), ("new", 404), ("other", 404)):
            assert embedded(server, secret, model=name) == {status}
        eventually(lambda: processes_in(audit) == 1 + flags.count("--workers"))
        keys.write_text("")
        assert "after a restart: max_texts" in hang_up_quietly(server)
        eventually(lambda: embedded(server, secret) == {401})


def embedded(server: Server, secret: str, **more: str) -> set[int]:
    """Return the statuses of requests with this key; each process gets some of them."""
    body, found = {"texts": ["墨"], **more}, set()
    for _ in range(ROUND):
        with server.client() as client:
            answer = client.post("/embed", json=body, headers={"x-api-key": secret})
        found.add(answer.status_code)
    return found


def lines_of(audit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in audit.read_bytes().splitlines()]


def processes_in(audit: Path) -> int:
    """Count the processes that wrote to it, by the beginnings of their request ids."""
    return len({line["request"].partition("-")[0] for line in lines_of(audit)})


@pytest.mark.parametrize("flags", [*PROCESSES, ("--workers", "3")])
def test_signal_to_the_whole_group_reloads_once_and_ends_no_process(
    toy_artifact: Path, tmp_path: Path, flags: Sequence[str]
) -> None:
    """A terminal that is closed sends such a signal."""
    with serving(toy_artifact, tmp_path, *flags) as server, asking(server, 6) as clients:
        others = workers_of(server)
        os.killpg(server.process.pid, signal.SIGHUP)
        eventually(lambda: "settings read again" in server.log.read_text())
        check_each_goes_on(clients)
        assert workers_of(server) == others
        assert server.log.read_text().count("settings read again") == 1
        assert "Traceback" not in server.log.read_text()


def test_signals_during_a_reload_cause_one_more_in_all_processes(
    toy_artifact: Path, tmp_path: Path
) -> None:
    flags = ("--workers", "2")
    with configured(toy_artifact, tmp_path, flags, model_alias="0") as (server, file):
        with asking(server):
            for number in range(1, 20):
                write(file, model=[str(toy_artifact)], model_alias=str(number))
                server.process.send_signal(signal.SIGHUP)
            hang_up(server)
            for _ in range(4):
                eventually(lambda: "19" in listed(server))


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", PROCESSES)
def test_model_is_replaced_by_another_folder_under_load(
    toy_artifact: Path, tmp_path: Path, flags: Sequence[str]
) -> None:
    other = another(toy_artifact, tmp_path, "other")
    with configured(toy_artifact, tmp_path, flags) as (server, file), asking(server) as clients:
        for artifact, name in ((other, "other"), (toy_artifact, "toy")) * 2:
            write(file, model=[str(artifact)])
            hang_up(server)
            for _ in range(4):
                assert {"toy", "other"} & listed(server) == {name}
            check_each_goes_on(clients)
        assert "Traceback" not in server.log.read_text()


def test_model_that_changed_in_its_folder_is_loaded_again_and_collections_say_so(
    toy_artifact: Path, tmp_path: Path
) -> None:
    artifact = Path(shutil.copytree(toy_artifact, tmp_path / "artifact"))
    with serving(artifact, tmp_path) as server, asking(server), server.client() as client:
        document = {"documents": [{"id": "a", "text": "墨池"}]}
        assert client.post("/documents", json=document).status_code == 200
        assert client.post("/search", json={"query": "墨"}).status_code == 200
        hang_up(server)
        assert client.post("/search", json={"query": "墨"}).status_code == 200
        rename(artifact, "other")
        hang_up(server)
        refused = client.post("/search", json={"query": "墨"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "other_model")
        assert client.post("/embed", json={"texts": ["墨"], "model": "other"}).status_code == 200
        assert client.post("/embed", json={"texts": ["墨"], "model": "toy"}).status_code == 404


def test_model_that_cannot_be_loaded_leaves_the_old_one_in_place(
    toy_artifact: Path, tmp_path: Path
) -> None:
    broken = another(toy_artifact, tmp_path, "broken")
    (broken / MODEL_FILE).write_bytes(b"no model")
    with configured(toy_artifact, tmp_path, (), model_alias="old") as (server, file):
        with asking(server):
            write(file, model=[str(broken)], model_alias="new")
            assert "is damaged" in hang_up(server)
            assert {"toy", "old"} <= listed(server)
