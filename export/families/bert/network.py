"""Writes the graphs of a BERT: float reference, int8 artifact, and the parts that calibration runs."""

from export.families.batches import GROUPS
from export.families.bert.attention import LONG
from export.families.bert.encoder import BertWriter
from export.families.bert.layers import BertLayer, layer_of
from export.families.bert.shape import BertShape
from export.families.biased_attention import TILE
from export.families.layered import LayeredNetwork
from export.families.linears import Int8Linear, Linears
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.types import Packing


class BertNetwork(LayeredNetwork[BertLayer]):
    """A BERT, perhaps with a head that scores pairs."""

    title = "bert"

    def __init__(self, shape: BertShape, settings: SentenceSettings, tensors: Tensors) -> None:
        layers = [layer_of(shape, settings, index) for index in range(shape.layers)]
        super().__init__(shape.hidden, settings, tensors, layers, shape.head)
        self._shape = shape

    def packing(self, linears: Linears) -> Packing:
        if self._shape.buckets is not None:
            return Packing(GROUPS, min(TILE, self._settings.max_tokens))
        in_int8 = any(
            isinstance(each, Int8Linear) and each.output_scale is not None
            for each in linears.values()
        )
        return Packing(GROUPS, LONG - 1 if in_int8 else self._settings.max_tokens)

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> BertWriter:
        return BertWriter(self._shape, self._settings, self._tensors, linears, graph, packed=packed)
