"""Cores that are taken from a running server: it goes on, with the same vectors."""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.processes import serving
from tests.support.toys import toy_texts

CORES = os.sched_getaffinity(0)
# Small requests, for the loop or the wide session, and one large enough for every lane.
REQUESTS = [[text] for text in toy_texts(8)] + [toy_texts(200, seed=1)]


@contextmanager
def confined(pid: int, cores: Set[int]) -> Iterator[None]:
    """Confine every thread of a process to these cores, as a cpuset that shrinks does."""
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        os.sched_setaffinity(thread, cores)
        assert os.sched_getaffinity(thread) == cores
    yield
    for thread in threads:
        os.sched_setaffinity(thread, CORES)


@pytest.mark.skipif(len(CORES) < 2, reason="this machine has one core")
@pytest.mark.parametrize("core", sorted(CORES)[:2])
def test_server_that_loses_cores_answers_with_the_same_vectors(
    toy_artifact: Path, tmp_path: Path, core: int
) -> None:
    with (
        serving(toy_artifact, tmp_path, "--lanes", "2") as server,
        server.client() as client,
    ):

        def vectors() -> list[Any]:
            answers = [client.post("/embed", json={"texts": texts}) for texts in REQUESTS]
            assert all(answer.is_success for answer in answers)
            return [answer.json()["vectors"] for answer in answers]

        before = vectors()
        with confined(server.process.pid, {core}):
            during = vectors()
            # Decided at start, and kept.
            assert server.metric("lanes") == 2
        after = vectors()
    for one, two, three in zip(before, during, after, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
        np.testing.assert_allclose(three, one, atol=1e-5)
