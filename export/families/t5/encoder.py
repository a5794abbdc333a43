"""Writes the serving graph of a T5 encoder: token ids in, one pooled vector per text out.

A batch lies in it as `families.batches` says. The graph holds the network twice, for rectangles and for
packed batches, over the same weights. Words have no positions: attention alone knows the distance of two tokens.

The same writer serves the float reference, the int8 artifact and the one-layer graphs that calibration
runs; `network.py` makes these, and `layers.py` names the linear layers.
"""

from export.families.batches import BatchWriter
from export.families.biased_attention import BiasedAttention
from export.families.linears import Linears
from export.families.prenorm import PreNormLayer, PreNormWriter
from export.families.t5.shape import DISTANCE_BIAS, FINAL_NORM, WORDS, T5Shape
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors


class T5Writer(PreNormWriter):
    """Writes a T5 encoder; packed: for a batch of several lengths in one row."""

    words = WORDS

    def __init__(
        self,
        shape: T5Shape,
        settings: SentenceSettings,
        tensors: Tensors,
        linears: Linears,
        graph: GraphWriter,
        *,
        packed: bool,
    ) -> None:
        super().__init__(
            settings,
            tensors,
            linears,
            graph,
            vocabulary=shape.vocabulary,
            activation=shape.activation,
            epsilon=shape.epsilon,
        )
        self._batch = BatchWriter(graph, packed=packed)
        self._attention = BiasedAttention(
            graph,
            self._batch,
            tensors[DISTANCE_BIAS],
            shape.buckets,
            width=shape.inner,
            max_tokens=settings.max_tokens,
            # Queries are trained to need none.
            scale=1.0,
        )

    def pool(self, hidden: str) -> str:
        normed, offset = self._norm(hidden, FINAL_NORM), self._instruction_offset
        return self._batch.reduce(normed, self._pooling, instruction_offset=offset)

    def _attend(self, projected: list[str], layer: PreNormLayer) -> str:
        return self._attention.attend(projected, f"{layer.name}.attended.heads")
