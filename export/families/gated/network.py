"""Writes the graphs of a gated encoder: float reference, int8 artifact, and the parts for calibration."""

from collections.abc import Mapping, Sequence

from export.families.batches import GROUPS
from export.families.family import Layer
from export.families.gated.encoder import GatedWriter
from export.families.gated.layers import GatedLayer, float_linears, layer_of
from export.families.gated.positions import longest_packed
from export.families.gated.shape import GatedShape
from export.families.layered import LayeredNetwork
from export.families.linears import FloatLinear, Linears
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

    @property
    def layers(self) -> Sequence[Layer]:
        return [layer.described() for layer in self._layers]

    def packing(self, linears: Linears) -> Packing:
        del linears
        return Packing(GROUPS, longest_packed(self._shape, self._settings.max_tokens))

    def _linears_of(self, layer: GatedLayer) -> Mapping[str, FloatLinear]:
        return float_linears(layer, self._tensors)

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> GatedWriter:
        return GatedWriter(
            self._shape, self._settings, self._tensors, linears, graph, packed=packed
        )
