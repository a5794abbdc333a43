"""Writes the graphs of a BERT: float reference, int8 artifact, and the parts that calibration runs."""

from collections.abc import Mapping, Sequence

from export.families.batches import GROUPS
from export.families.bert.attention import LONG
from export.families.bert.encoder import BertWriter
from export.families.bert.layers import BertLayer, float_linears, layer_of
from export.families.bert.shape import BertShape
from export.families.biased_attention import TILE
from export.families.family import OUTPUT, Layer
from export.families.layered import LayeredNetwork
from export.families.linears import FloatLinear, Int8Linear, Linears
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.types import Packing


class BertNetwork(LayeredNetwork[BertLayer]):
    """A BERT, perhaps with a head that scores pairs."""

    title = "bert"

    def __init__(self, shape: BertShape, settings: SentenceSettings, tensors: Tensors) -> None:
        layers = [layer_of(shape, settings, index) for index in range(shape.layers)]
        super().__init__(shape.hidden, settings, tensors, layers)
        self._shape = shape

    @property
    def dimension(self) -> int:
        return super().dimension if self._shape.head is None else 1

    @property
    def layers(self) -> Sequence[Layer]:
        longest, biased = self._settings.max_tokens, self._shape.buckets is not None
        return [layer.described(longest, biased=biased) for layer in self._layers]

    def packing(self, linears: Linears) -> Packing:
        if self._shape.buckets is not None:
            return Packing(GROUPS, min(TILE, self._settings.max_tokens))
        in_int8 = any(
            isinstance(each, Int8Linear) and each.output_scale is not None
            for each in linears.values()
        )
        return Packing(GROUPS, LONG - 1 if in_int8 else self._settings.max_tokens)

    def _linears_of(self, layer: BertLayer) -> Mapping[str, FloatLinear]:
        return float_linears(layer, self._tensors)

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> BertWriter:
        return BertWriter(self._shape, self._settings, self._tensors, linears, graph, packed=packed)

    def _finish(self, graph: GraphWriter, pooled: str) -> None:
        if self._shape.head is None:
            super()._finish(graph, pooled)
        else:
            self._shape.head.write(graph, pooled, self._tensors, OUTPUT)
