"""Checks of an export share the results of single texts."""

from collections.abc import Sequence

import numpy as np

from export.verification.remembering import RememberingEncoder
from server.types import Ids, Packing, Vectors


class Counting:
    """An encoder that notes what it computes: the sum of a text's ids."""

    packing = Packing(groups=2, longest=8)

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        self.seen.append([len(ids) for ids in texts])
        return np.array([[ids.sum()] for ids in texts], np.float32)


def test_text_alone_is_computed_once_and_a_batch_each_time() -> None:
    counting = Counting()
    encoder = RememberingEncoder(counting)
    one, other = np.array([1, 2]), np.array([1, 2, 3])
    assert [encoder.encode([ids])[0, 0] for ids in (one, other, one, one.copy())] == [3, 6, 3, 3]
    assert counting.seen == [[2], [3]]
    for _ in range(2):
        assert encoder.encode([one, other])[:, 0].tolist() == [3, 6]
    assert counting.seen == [[2], [3], [2, 3], [2, 3]]
    assert encoder.packing is counting.packing
