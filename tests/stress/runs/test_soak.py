"""The clients of the soak against a real server with the toy model, and how they are judged."""

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.stress.runs import soak
from tests.stress.runs.soak import Counts, Served, Soak, growth_mb, judged
from tests.support.processes import serving
from tests.support.toys import toy_texts

FLAT = [200.0] * 60


def served(honest: int = 0, others: int = 0, abandoned: int = 0, files: int = 9) -> Served:
    return Served({soak.HONEST_ROUTE: honest, soak.OTHER_ROUTE: others}, {}, abandoned, 0, files)


def counts() -> Counts:
    return Counts(
        whole=Counter(honest=10, vanishing=5, slow=1),
        answered=Counter(honest=10, slow=1),
    )


def test_counts_that_agree_on_both_sides_are_good() -> None:
    line = judged(counts(), served(3, 3, 3), served(13, 6, 6), FLAT)
    assert all(line["asked"].values())


@pytest.mark.parametrize(
    ("asked", "after", "memory"),
    [
        ("honest", served(11, 3, 3), FLAT),
        ("honest", served(9, 3, 3), FLAT),
        ("once", served(10, 3, 4), FLAT),
        ("once", served(10, 0, 3), FLAT),
        ("nothing_left", served(10, 3, 3, files=10), FLAT),
        ("memory", served(10, 3, 3), [200 + second / 20 for second in range(60)]),
    ],
)
def test_each_thing_asked_may_fail_alone(asked: str, after: Served, memory: list[float]) -> None:
    line = judged(counts(), served(), after, memory)
    assert [name for name, holds in line["asked"].items() if not holds] == [asked]


def test_growth_is_that_of_the_second_half_a_minute() -> None:
    assert growth_mb([*range(100, 160), *FLAT]) == pytest.approx(0)
    assert growth_mb([0.0] * 60 + [second / 10 for second in range(60)]) == pytest.approx(6)


def test_all_clients_are_counted_as_the_server_counts_them(
    toy_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "STEP_S", 0.01)
    texts = toy_texts(50)
    with serving(toy_artifact, tmp_path) as server:
        pid = server.process.pid
        vectors = np.concatenate([soak._alone(server.url, text) for text in texts])
        before = Served.read(server.url, pid)
        clients = Soak(server.url, texts, toy_texts(80, seed=2), vectors)
        memory = asyncio.run(soak._watched(clients, 1, pid))
        after = soak._settled(server.url, pid)
    line = judged(clients.counts, before, after, memory)
    assert all(line["answered"][kind] for kind in ("honest", "slow", "longest"))
    del line["asked"]["memory"]
    assert all(line["asked"].values()), line
