"""A collection notes which kinds of CPU computed its vectors, and another kind is reported."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.app import create_app
from server.config import Config
from server.inference.comparison import SAME_VECTORS
from server.inference.cpu_provenance import (
    NOTE,
    agreement,
    note_of,
    provenance_here,
    read_provenances,
)
from server.inference.model import Model
from server.store.folder import DataFolder
from server.types import Vectors, unit
from tests.support.clients import lifespan, stateful
from tests.support.fakes import PATIENCE_S, with_parts


def turned(vectors: Vectors, seed: int = 0) -> Vectors:
    """Return vectors as a CPU with other int8 products computes them: a cosine of about 0.997."""
    noise = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
    moved = vectors + np.float32(0.08 / vectors.shape[1] ** 0.5) * noise
    return unit(moved)


@pytest.fixture
def vectors(toy_model: Model) -> Vectors:
    return toy_model.self_test_results


def test_a_machine_agrees_with_itself(vectors: Vectors) -> None:
    found = agreement([provenance_here(vectors)], provenance_here(vectors))
    assert found is not None and 0.999999 < found <= 1


def test_rounding_is_not_another_kind_of_machine(vectors: Vectors) -> None:
    here, there = provenance_here(vectors), provenance_here(vectors * np.float32(1 + 1e-6))
    assert note_of(note_of(None, here)[NOTE], there) == {}


def test_the_least_agreement_counts(vectors: Vectors) -> None:
    here, other = provenance_here(vectors), provenance_here(turned(vectors))
    found = agreement([here, other], here)
    assert found is not None and 0.99 < found < SAME_VECTORS


@pytest.mark.parametrize("note", [None, "", "no JSON", '{"a": 1}', '[{"instruction_set": 7}]'])
def test_without_a_readable_note_nothing_is_known(vectors: Vectors, note: str | None) -> None:
    assert read_provenances(note) == []
    assert agreement(read_provenances(note), provenance_here(vectors)) is None


def test_machine_with_another_self_test_is_not_compared(vectors: Vectors) -> None:
    here = provenance_here(vectors)
    assert (
        agreement([provenance_here(vectors[:-1]), provenance_here(vectors[:, :-1])], here) is None
    )


def test_each_kind_of_machine_is_noted_once(vectors: Vectors) -> None:
    here, other = provenance_here(vectors), provenance_here(turned(vectors))
    first = note_of(None, here)[NOTE]
    assert note_of(first, here) == {}
    both = note_of(first, other)[NOTE]
    assert read_provenances(both) == [here, other]
    assert note_of(both, here) == note_of(both, other) == {}


# --- in a collection ------------------------------------------------------------------------------

DOCUMENTS = {"documents": [{"id": text, "text": text} for text in ("墨池笔纸", "风花雪鸟")]}


def other_machine(model: Model) -> Model:
    return with_parts(model, self_test_results=turned(model.self_test_results))


@asynccontextmanager
async def serving(model: Model, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app on this folder, which the app closes."""
    app = create_app([model], Config(lanes=1), DataFolder(folder))
    async with lifespan(app) as state:
        transport = httpx.ASGITransport(stateful(app, state))
        async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
            yield client


def visit(model: Model, folder: Path, *requests: tuple[str, Any]) -> list[Any]:
    """Return a server's answers to these requests, in order; a body of None means GET."""

    async def test() -> list[Any]:
        async with serving(model, folder) as client:
            return [await _asked(client, path, body) for path, body in requests]

    return asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


async def _asked(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await (client.get(path) if body is None else client.post(path, json=body))
    assert answer.is_success, answer.text
    return answer.json()


def test_collection_of_this_machine_agrees_and_nothing_is_said(
    toy_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    visit(toy_model, tmp_path, ("/documents", DOCUMENTS))
    (stats,) = visit(toy_model, tmp_path, ("/stats", None))
    assert stats["agreement"] == pytest.approx(1, abs=1e-5)
    assert not [each for each in caplog.records if "cosine" in each.message]


def test_collection_built_elsewhere_is_told_and_answers_and_grows(
    toy_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    visit(other_machine(toy_model), tmp_path, ("/documents", DOCUMENTS))
    more = {"documents": [{"id": "c", "text": "日月星人"}]}
    stats, found, _ = visit(
        toy_model,
        tmp_path,
        ("/stats", None),
        ("/search", {"query": "墨池笔纸"}),
        ("/documents", more),
    )
    assert 0.99 < stats["agreement"] < SAME_VECTORS
    assert found["hits"][0]["id"] == "墨池笔纸"
    (warned,) = [each for each in caplog.records if "docs/en/explanation/cpu.md" in each.message]
    assert warned.levelno == logging.WARNING and "default" in warned.message
    folder = DataFolder(tmp_path)
    note = folder.collections["default"].documents.noted(NOTE)
    folder.close()
    assert len(read_provenances(note)) == 2


def test_reindexing_makes_it_this_machines_own(toy_model: Model, tmp_path: Path) -> None:
    visit(other_machine(toy_model), tmp_path, ("/documents", DOCUMENTS))

    async def test() -> Any:
        async with serving(toy_model, tmp_path) as client:
            await client.post("/reindex", json={})
            while (stats := (await client.get("/stats")).json())["reindexing"] is not None:
                await asyncio.sleep(0)
            return stats

    stats = asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert stats["agreement"] == pytest.approx(1, abs=1e-5)


def test_empty_collection_knows_of_no_machine(toy_model: Model, tmp_path: Path) -> None:
    (stats,) = visit(toy_model, tmp_path, ("/stats", None))
    assert stats["agreement"] is None
