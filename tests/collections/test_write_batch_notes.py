"""What a write notes of the CPU that computed its vectors, and what it leaves alone."""

from pathlib import Path

import numpy as np
import pytest

from server.collections.live_collection import LiveCollection, provenance_note
from server.inference.cpu_provenance import read_provenances
from server.inference.model import Model
from server.store.records import Document
from server.store.search import Query
from tests.collections.test_live_collection import run


def test_a_write_notes_its_cpu_only_where_it_has_computed_vectors(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(live: LiveCollection) -> None:
        given = np.eye(1, live.info.dimension, dtype=np.float32)
        assert await live.add_with_vectors([Document("given", "墨")], given) == 1
        assert provenance_note(live.collection) is None
        assert live.agreement() is None
        ((hit,),) = await live.search([Query("dense", 1, given[0])])
        assert (hit.id, round(hit.score, 5)) == ("given", 1.0)
        assert await live.add([Document("computed", "池")]) == 1
        (kind,) = read_provenances(provenance_note(live.collection))
        assert kind == live.engine.provenance
        assert live.agreement() == pytest.approx(1.0, abs=1e-6)

    run(test, toy_model, tmp_path)
