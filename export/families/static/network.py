"""Writes the graph of static embeddings: the rows of a text's tokens, their mean, and nothing else.

There is no layer, so nothing is calibrated: in int8 each row of the table has its own scale.
"""

from collections.abc import Iterator

import numpy as np

from export.families.batches import GROUPS, BatchWriter
from export.families.embeddings import write_words
from export.families.layered import FamilyLayer, LayeredNetwork
from export.families.linears import Linears
from export.families.static.shape import MAPPING, ROWS, WEIGHTS, StaticShape
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.inference.encoder import INPUT_IDS
from server.types import Packing


class StaticWriter:
    """Appends the tables' operators to a graph; its methods return names of activations."""

    def __init__(self, tensors: Tensors, graph: GraphWriter, *, packed: bool) -> None:
        self._tensors = tensors
        self._graph = graph
        self._batch = BatchWriter(graph, packed=packed)

    def embeddings(self, *, int8: bool) -> str:
        """Write each token's vector, (B, T, D)."""
        graph, tensors, ids = self._graph, self._tensors, INPUT_IDS
        if MAPPING in tensors:
            rows = graph.constant("embeddings.mapping", tensors[MAPPING].astype(np.int64))
            ids = graph.node("Gather", [rows, INPUT_IDS], "embeddings.row_ids")
        words = write_words(graph, tensors[ROWS], "embeddings.words", int8=int8, ids=ids)
        if WEIGHTS not in tensors:
            return words
        weights = graph.floats("embeddings.weights", tensors[WEIGHTS][:, None])
        weight = graph.node("Gather", [weights, INPUT_IDS], "embeddings.weight")
        return graph.node("Mul", [words, weight], "embeddings.weighted")

    def layer(self, hidden: str, layer: FamilyLayer) -> Iterator[tuple[str, str]]:
        """Write a layer, of which there is none."""
        raise AssertionError(layer.name)

    def pool(self, hidden: str) -> str:
        """Write the mean of the tokens of each text, (B, D)."""
        return self._batch.reduce(hidden, "mean")


class StaticNetwork(LayeredNetwork[FamilyLayer]):
    title = "static"

    def __init__(self, shape: StaticShape, settings: SentenceSettings, tensors: Tensors) -> None:
        super().__init__(shape.hidden, settings, tensors, [])

    def packing(self, linears: Linears) -> Packing:
        return Packing(GROUPS, self._settings.max_tokens)

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> StaticWriter:
        return StaticWriter(self._tensors, graph, packed=packed)
