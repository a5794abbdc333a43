"""An encoder that computes a text alone only once, however many checks ask for it.

Agreement, batches, the order of candidates and the next precision of "auto" read the same texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from server.types import Encoder, Ids, Packing, Vectors


class RememberingEncoder:
    """Passes texts on to `encoder`, and keeps the row of each that comes alone.

    Other results than rows, such as a vector for each token, take too much memory to be kept.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._results: dict[bytes, Vectors] = {}

    @property
    def packing(self) -> Packing:
        return self.encoder.packing

    def encode(self, texts: Sequence[Ids]) -> Any:
        """Return the results of the texts, as `encoder` does."""
        if len(texts) != 1:
            return self.encoder.encode(texts)
        key = texts[0].tobytes()
        if key in self._results:
            return self._results[key]
        found = self.encoder.encode(texts)
        if isinstance(found, np.ndarray):
            self._results[key] = found
        return found
