"""Bulk work without a server gives the server's results, in order."""

from collections.abc import Sequence

import numpy as np
import pytest

from server.inference import offline
from server.inference.model import Model
from server.types import Ids, InputType, Packing, Vectors
from tests.support.engines import SAME, embed
from tests.support.fakes import Echo
from tests.support.toys import toy_texts


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_vectors_are_those_of_the_server_in_the_order_of_the_texts(
    toy_model: Model, input_type: InputType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "PORTION", 150)
    texts = toy_texts(400, longest=90, seed=21)
    found = offline.embed(toy_model, texts, input_type)
    expected = embed(toy_model, texts, input_type).vectors
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=0, atol=SAME)
    assert len(np.unique(expected.round(4), axis=0)) > 390


def test_no_texts_have_no_vectors(toy_model: Model) -> None:
    assert offline.embed(toy_model, []).shape == (0, 32)
    assert offline.encode_all(Echo(), []) == []


class Noting(Echo):
    """Notes the lengths of each batch."""

    packing = Packing(groups=3, longest=20)

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        self.batches.append([len(ids) for ids in texts])
        return super().encode(texts)


def test_batches_keep_the_encoders_packing_and_the_token_budget() -> None:
    encoder, random = Noting(), np.random.default_rng(5)
    ids = [np.full(length, place) for place, length in enumerate(random.integers(1, 30, 300))]
    found = offline.encode_all(encoder, ids, batch_tokens=64)
    expected = [(place, len(row)) for place, row in enumerate(ids)]
    assert [tuple(result) for result in found] == expected
    for batch in encoder.batches:
        assert encoder.packing.allows(batch)
        assert sum(batch) <= 64
    # Sorted by length, so that batches are full: few more than the tokens need.
    assert len(encoder.batches) < 1.5 * sum(map(len, ids)) / 64
