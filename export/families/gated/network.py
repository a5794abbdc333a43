"""Writes the graphs of a gated encoder: float reference, int8 artifact, and the parts for calibration."""

from export.families.batches import GROUPS
from export.families.gated.encoder import GatedWriter
from export.families.gated.layers import GatedLayer, layer_of
from export.families.gated.positions import longest_packed
from export.families.gated.shape import GatedShape
from export.families.layered import LayeredNetwork
from export.families.linears import Linears
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.types import Packing


class GatedNetwork(LayeredNetwork[GatedLayer]):
    """An encoder with gated feed-forward parts."""

    title = "encoder"

    def __init__(self, shape: GatedShape, settings: SentenceSettings, tensors: Tensors) -> None:
        layers = [layer_of(shape, settings, index) for index in range(len(shape.layers))]
        super().__init__(shape.hidden, settings, tensors, layers)
        self._shape = shape

    def packing(self, linears: Linears) -> Packing:
        del linears
        return Packing(GROUPS, longest_packed(self._shape, self._settings.max_tokens))

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> GatedWriter:
        return GatedWriter(
            self._shape, self._settings, self._tensors, linears, graph, packed=packed
        )
