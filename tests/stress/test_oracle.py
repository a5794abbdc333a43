"""A real server beside a model: writes, deletions, reindexing, searches at the same time, kills and restarts.

It runs for SECONDS, 100 unless given: `SECONDS=1800 make test-stress ARGS=tests/stress/test_oracle.py`. SEED gives
another run; threads make no two alike.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.store.folder import INDEX, DataFolder
from server.store.upkeep.integrity import faults_of
from tests.support.administration import Administration
from tests.support.oracle import (
    CHANGES,
    GROUPS,
    Ledger,
    State,
    Verdicts,
    can_change,
    document_of,
    group_of,
    patch_to,
)
from tests.support.processes import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
SECONDS = float(os.environ.get("SECONDS", "100"))
SEED = int(os.environ.get("SEED", "1"))
COLLECTIONS, OWNERS, SEARCHERS = ("laws", "notes"), ("a", "b"), 3
IDS, MOST_AT_ONCE = 30, 8
# Kinds of writes, and how often each comes.
WRITES = {
    **{"add": 6, "add lines": 2, "add vectors": 2, "delete": 2, "delete by filter": 1},
    **{"delete one": 1, "change": 3, "change by filter": 2, "change one": 1},
}
PATIENCE_S = 120.0
LINES = {"content-type": "application/x-ndjson"}
ALL = 1000


class Host:
    """The server, which is killed and started again; `send` sends a request to the one that runs."""

    def __init__(self, artifact: Path, folder: Path) -> None:
        self._artifact, self._folder = artifact, folder
        self._stack = ExitStack()
        self.over = threading.Event()
        self.running = threading.Event()
        # Of each thread: its client.
        self._own = threading.local()
        self._server: Server | None = None
        # The name of the model that it serves.
        self.model = ""

    def start(self) -> None:
        self._server = self._stack.enter_context(serving(self._artifact, self._folder))
        with self._server.client() as client:
            self.model = client.get("/stats").json()["model"]
        self.running.set()

    def end(self, kind: signal.Signals) -> None:
        assert self._server is not None
        self.running.clear()
        os.kill(self._server.process.pid, kind)
        assert self._server.process.wait(PATIENCE_S) in (0, -signal.SIGKILL)
        said = self._server.log.read_text()
        assert "Traceback" not in said, said
        self._stack.close()

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Send a request to the server that runs, or to the next one."""
        assert self.running.wait(PATIENCE_S)
        server, client = self._server, getattr(self._own, "client", None)
        assert server is not None
        if client is None or client.base_url != server.url:
            self.leave()
            client = self._own.client = server.client()
        response: httpx.Response = client.request(method, path, **given)
        return response

    def leave(self) -> None:
        """Close the client of this thread."""
        if (client := getattr(self._own, "client", None)) is not None:
            client.close()


class Collection:
    """One collection: its owners' ledgers, and the threads that write, search and rebuild it."""

    def __init__(self, name: str, host: Host, verdicts: Verdicts) -> None:
        self.name, self._host, self._verdicts = name, host, verdicts
        self.ledgers = [Ledger(owner) for owner in OWNERS]
        self._versions = iter(range(CHANGES, 1 << 40, CHANGES))

    # --- writes ---------------------------------------------------------------------------------------

    def write(self, ledger: Ledger, choose: random.Random) -> None:
        """Write for one owner until the time is over."""
        while not self._host.over.is_set():
            with ledger.writing:
                if ledger.now is not None:
                    self._write_once(ledger, ledger.now, choose)
            time.sleep(choose.random() * 0.05)

    def _write_once(self, ledger: Ledger, now: State, choose: random.Random) -> None:
        documents, owner = dict(now or {}), ledger.owner
        kind = choose.choices(list(WRITES), list(WRITES.values()))[0]
        path = f"/collections/{self.name}/documents"
        if kind.startswith("add"):
            version = next(self._versions)
            numbers = choose.sample(range(IDS), choose.randint(1, MOST_AT_ONCE))
            added = {f"{owner}-{number}": version for number in numbers}
            made = [document_of(owner, id, each) for id, each in added.items()]
            if kind != "add vectors" or self._bring_vectors(made):
                self._add(ledger, documents | added, made, kind)
        elif kind.startswith("change"):
            self._change(ledger, documents, kind, choose)
        elif kind == "delete":
            ids = [f"{owner}-{number}" for number in choose.sample(range(IDS), 4)]
            kept = {id: each for id, each in documents.items() if id not in ids}
            self._do([ledger], [kept], "POST", f"{path}/delete", {"ids": ids})
        elif kind == "delete by filter":
            group = choose.randrange(len(GROUPS))
            kept = {id: each for id, each in documents.items() if group_of(each) != group}
            body = {"filter": {"owner": owner, "group": group}}
            self._do([ledger], [kept], "POST", f"{path}/delete", body)
        elif documents:
            id = choose.choice(sorted(documents))
            del documents[id]
            self._do([ledger], [documents], "DELETE", f"{path}/{id}", None)
        self._verdicts.count("operations")

    def _add(self, ledger: Ledger, state: State, made: list[dict[str, Any]], kind: str) -> None:
        path = f"/collections/{self.name}/documents"
        named = {"embedder": self._host.model} if kind == "add vectors" else {}
        if kind == "add lines":
            content = "".join(f"{json.dumps(each)}\n" for each in made).encode()
            self._do([ledger], [state], "POST", path, content=content, headers=LINES)
        else:
            self._do([ledger], [state], "POST", path, {"documents": made, **named})

    def _bring_vectors(self, made: list[dict[str, Any]]) -> bool:
        """Give each document its vector; return whether the server was there to compute them."""
        try:
            texts = [each["text"] for each in made]
            response = self._host.send("POST", "/embed", json={"texts": texts})
        except httpx.TransportError:
            return False
        if response.status_code == 200:
            for each, vector in zip(made, response.json()["vectors"], strict=True):
                each["vector"] = vector
        return response.status_code == 200

    def _change(
        self, ledger: Ledger, documents: dict[str, int], kind: str, choose: random.Random
    ) -> None:
        """Change the metadata of some documents alone."""
        path = f"/collections/{self.name}/documents"
        able = sorted(id for id, version in documents.items() if can_change(version))
        if not able:
            return
        some = choose.sample(able, min(len(able), choose.randint(1, MOST_AT_ONCE)))
        if kind == "change by filter":
            version = documents[some[0]]
            some = [id for id, each in documents.items() if each == version]
            filter = {"owner": ledger.owner, "version": version}
            body: Any = {"filter": filter, "metadata": patch_to(version + 1)}
        elif kind == "change one":
            some = some[:1]
            path, body = f"{path}/{some[0]}", {"metadata": patch_to(documents[some[0]] + 1)}
        else:
            body = {
                "documents": [{"id": id, "metadata": patch_to(documents[id] + 1)} for id in some]
            }
        state = documents | {id: documents[id] + 1 for id in some}
        self._do([ledger], [state], "PATCH", path, body)

    def _do(
        self,
        ledgers: list[Ledger],
        states: list[State],
        method: str,
        path: str,
        body: object = None,
        **given: Any,
    ) -> None:
        """Send a write that leads to these states; afterwards it is known whether it was done."""
        for ledger, state in zip(ledgers, states, strict=True):
            ledger.begin(state)
        done: bool | None = None
        try:
            given = given or {"json": body}
            response = self._host.send(method, path, **given)
            if response.status_code in (200, 201):
                done = True
            elif response.status_code not in (409, 429, 503):
                self._verdicts.fail(
                    "others", f"{method} {path}: {response.status_code} {response.text}"
                )
        except httpx.TransportError:
            self._verdicts.count("writes cut off")
        for ledger in ledgers:
            ledger.settle(done=self._is_done(ledger) if done is None else done)

    def _is_done(self, ledger: Ledger) -> bool:
        """Return whether a write that was not acknowledged was done: all of it, or nothing."""
        found: State = None
        response = self.asked(
            "GET", "documents", params={"limit": ALL, "filter": json.dumps({"owner": ledger.owner})}
        )
        if response.status_code == 200:
            found = {
                each["id"]: each["metadata"]["version"] for each in response.json()["documents"]
            }
        if found == ledger.now:
            return False
        if found != ledger.begun:
            self._verdicts.fail(
                "losses", f"{self.name}, after a kill: {found}, not {ledger.now} or {ledger.begun}"
            )
        return True

    def rebuild(self, choose: random.Random) -> None:
        """Reindex, restore, rename, delete and create the collection until the time is over."""
        administration = Administration(self, self._verdicts)
        while not self._host.over.is_set():
            administration.take_name_back()
            kind = choose.random()
            if self.ledgers[0].now is not None and kind < 0.4:
                administration.act(choose)
            elif self.ledgers[0].now is not None and kind < 0.85:
                body = {"chunks": chunks(choose)}
                response = self.asked("POST", "reindex", json=body)
                if response.status_code == 202:
                    self._verdicts.count("reindexes")
                elif response.status_code not in (409, 429, 503, 507):
                    self._verdicts.fail(
                        "others", f"reindex: {response.status_code} {response.text}"
                    )
            else:
                self._delete_or_create(choose)
            self._host.over.wait(choose.uniform(0.2, 2))

    def _delete_or_create(self, choose: random.Random) -> None:
        with ExitStack() as stack:
            for ledger in self.ledgers:
                stack.enter_context(ledger.writing)
            if self.ledgers[0].now is None:
                body = {"name": self.name, "chunks": chunks(choose)}
                self._do(self.ledgers, [{} for _ in self.ledgers], "POST", "/collections", body)
                self._verdicts.count("collections created")
            else:
                path = f"/collections/{self.name}"
                self._do(self.ledgers, [None for _ in self.ledgers], "DELETE", path, None)
                self._verdicts.count("collections deleted")

    # --- searches -------------------------------------------------------------------------------------

    def asked(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask the server about the collection, again after each kill, until it answers."""
        return self.whole(method, f"/collections/{self.name}/{path}", **given)

    def whole(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask the server, with a whole path; see `asked`."""
        while True:
            try:
                response = self._host.send(method, path, **given)
                if response.status_code not in (429, 503):
                    return response
            except httpx.TransportError:
                self._verdicts.count("questions cut off")
            time.sleep(0.05)

    def ask(self, choose: random.Random) -> None:
        """Ask one question of a random kind, and judge the answer."""
        group, ledger = choose.randrange(len(GROUPS)), choose.choice(self.ledgers)
        of_both: Callable[[int], bool] = lambda version: group_of(version) == group  # noqa: E731
        of_all: Callable[[int], bool] = lambda version: True  # noqa: E731
        own, body = (
            {"owner": ledger.owner, "group": group},
            {"query": "墨池 云雨 inkstone", "top_k": ALL},
        )
        kind = choose.randrange(7)
        if kind == 0:
            self._search({**body, "filter": own}, [ledger], of_both)
        elif kind == 1:
            self._search(body, self.ledgers, of_all)
        elif kind == 2:
            self._search({**body, "query": GROUPS[group], "mode": "lexical"}, self.ledgers, of_both)
        elif kind == 3:
            self._search({**body, "mode": "hybrid", "filter": own}, [ledger], of_both)
        elif kind == 4:
            self._search({**body, "mode": "hybrid"}, self.ledgers, of_all)
        elif kind == 5:
            self._list_and_count(own, ledger, of_both)
        else:
            self._export(own, ledger, of_both)
        self._verdicts.count("searches")

    def _search(
        self, body: dict[str, Any], ledgers: list[Ledger], keeps: Callable[[int], bool]
    ) -> None:
        marks = [ledger.mark() for ledger in ledgers]
        response = self.asked("POST", "search", json=body)
        states = [ledger.since(mark) for ledger, mark in zip(ledgers, marks, strict=True)]
        question = f"{self.name} {body.get('mode', 'dense')} {body.get('filter', '')}"
        if not self._is_there(question, response, states):
            return
        hits = response.json()["hits"]
        for ledger, some in zip(ledgers, states, strict=True):
            found = [hit for hit in hits if hit["metadata"]["owner"] == ledger.owner]
            self._verdicts.judge(question, found, some, keeps, ledger.owner)

    def _list_and_count(
        self, filter: dict[str, object], ledger: Ledger, keeps: Callable[[int], bool]
    ) -> None:
        mark = ledger.mark()
        params = {"limit": ALL, "filter": json.dumps(filter)}
        listed = self.asked("GET", "documents", params=params)
        counted = self.asked("POST", "documents/count", json={"filter": filter})
        states = ledger.since(mark)
        if self._is_there("list", listed, [states]):
            found = listed.json()["documents"]
            self._verdicts.judge(f"{self.name} list", found, states, keeps, ledger.owner)
        if self._is_there("count", counted, [states]):
            sizes = (sum(map(keeps, (state or {}).values())) for state in states)
            self._verdicts.judge_count(f"{self.name} count", counted.json()["count"], sizes)

    def _export(
        self, filter: dict[str, object], ledger: Ledger, keeps: Callable[[int], bool]
    ) -> None:
        mark = ledger.mark()
        body = {"filter": filter, "include_vectors": True}
        exported = self.asked("POST", "documents/export", json=body)
        states = ledger.since(mark)
        if self._is_there("export", exported, [states]):
            found = [json.loads(line) for line in exported.text.splitlines()]
            self._verdicts.judge(f"{self.name} export", found, states, keeps, ledger.owner)

    def _is_there(self, question: str, response: httpx.Response, states: list[list[State]]) -> bool:
        """Return whether there is an answer; there need be none where there may be no collection."""
        if response.status_code == 200:
            if all(state is None for state in states[0]):
                self._verdicts.fail("ghosts", f"{question}: a collection that was deleted")
                return False
            return True
        if response.status_code != 404 or None not in states[0]:
            self._verdicts.fail(
                "others", f"{question}: {response.status_code} {response.text[:200]}"
            )
        return False


def chunks(choose: random.Random) -> dict[str, int] | None:
    size = choose.randint(12, 60)
    return choose.choice((None, {"size": size, "overlap": size // 8}))


def search_until_over(collections: list[Collection], host: Host, choose: random.Random) -> None:
    while not host.over.is_set():
        choose.choice(collections).ask(choose)


@contextmanager
def threads(work: list[Callable[[], None]], host: Host, verdicts: Verdicts) -> Iterator[None]:
    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as error:
            verdicts.fail("others", f"{type(error).__name__}: {error}")
            raise
        finally:
            host.leave()

    started = [threading.Thread(target=run, args=(each,), daemon=True) for each in work]
    for thread in started:
        thread.start()
    yield
    for thread in started:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_every_answer_is_one_state_whatever_is_written_reindexed_and_killed(
    toy_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts, host = Verdicts(), Host(toy_artifact, tmp_path)
    collections = [Collection(name, host, verdicts) for name in COLLECTIONS]
    seeds = map(random.Random, range(SEED * 1000, SEED * 1000 + 1000))
    work: list[Callable[[], None]] = []
    for each in collections:
        work += [partial(each.write, ledger, next(seeds)) for ledger in each.ledgers]
        work.append(partial(each.rebuild, next(seeds)))
    work += [partial(search_until_over, collections, host, next(seeds)) for _ in range(SEARCHERS)]
    choose = random.Random(SEED)
    host.start()
    end = time.monotonic() + SECONDS
    with threads(work, host, verdicts):
        while time.monotonic() < end:
            time.sleep(choose.uniform(1, 6))
            kind = choose.choices((signal.SIGKILL, signal.SIGTERM), (3, 1))[0]
            host.end(kind)
            verdicts.count("kills" if kind == signal.SIGKILL else "restarts")
            host.start()
        host.over.set()
    host.end(signal.SIGTERM)
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps({'case': 'oracle', **verdicts.counts})}\n")
    assert not verdicts.wrong, "\n".join(verdicts.wrong[:20])
    check_folder(tmp_path / "data", collections)


def check_folder(data: Path, collections: list[Collection]) -> None:
    """Check the files at the end: sound, and exactly the last state."""
    for path in (data / "collections").glob("[!.]*"):
        assert not faults_of(path, INDEX)
    with closing(DataFolder(data)) as folder:
        for each in collections:
            state: dict[str, int] | None = None
            for ledger in each.ledgers:
                if ledger.now is not None:
                    state = {**(state or {}), **ledger.now}
            found = folder.collections.get(folder.aliases.get(each.name, each.name))
            assert (found is None) == (state is None)
            if found is not None:
                stored = found.documents.get(found.documents.ids())
                assert {id: one.metadata["version"] for id, one in stored.items()} == state
        left = [path.name for path in (data / "collections").iterdir() if path.name.startswith(".")]
        assert all(name.startswith(".next-") for name in left)
