"""An encoder that computes a text alone only once, however many checks ask for it.

Agreement, batches, the order of candidates and the next precision of "auto" read the same texts.
"""

from collections.abc import Sequence

from server.types import Ids, Packing, VectorEncoder, Vectors


class RememberingEncoder:
    """Passes texts on to `encoder`, and keeps the result of each that comes alone."""

    def __init__(self, encoder: VectorEncoder) -> None:
        self.encoder = encoder
        self._results: dict[bytes, Vectors] = {}

    @property
    def packing(self) -> Packing:
        return self.encoder.packing

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Return float32 (B, D), a row a text."""
        if len(texts) != 1:
            return self.encoder.encode(texts)
        key = texts[0].tobytes()
        if key not in self._results:
            self._results[key] = self.encoder.encode(texts)
        return self._results[key]
