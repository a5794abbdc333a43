"""Writes the graphs of a T5 encoder: float reference, int8 artifact, and the parts for calibration."""

from export.families.batches import GROUPS
from export.families.biased_attention import TILE
from export.families.layered import LayeredNetwork
from export.families.linears import Linears
from export.families.prenorm import PreNormLayer
from export.families.t5.encoder import T5Writer
from export.families.t5.layers import layer_of
from export.families.t5.shape import T5Shape
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.types import Packing


class T5Network(LayeredNetwork[PreNormLayer]):
    """The encoder of a T5."""

    title = "t5"

    def __init__(self, shape: T5Shape, settings: SentenceSettings, tensors: Tensors) -> None:
        layers = [layer_of(shape, index) for index in range(shape.layers)]
        super().__init__(shape.hidden, settings, tensors, layers)
        self._shape = shape

    def packing(self, linears: Linears) -> Packing:
        del linears
        return Packing(GROUPS, min(TILE, self._settings.max_tokens))

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> T5Writer:
        return T5Writer(self._shape, self._settings, self._tensors, linears, graph, packed=packed)
