"""Writes the graphs of a decoder: float reference, int8 artifact, and the parts that calibration runs."""

from export.families.batches import GROUPS, PACKED
from export.families.decoder.attention import TILE
from export.families.decoder.encoder import DecoderWriter
from export.families.decoder.layers import layer_of
from export.families.decoder.shape import DecoderShape
from export.families.layered import LayeredNetwork
from export.families.linears import Linears
from export.families.prenorm import PreNormLayer
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.types import Packing


class DecoderNetwork(LayeredNetwork[PreNormLayer]):
    """A decoder, perhaps with a head that scores pairs.

    It stands in the graph once, for both layouts of a batch.
    """

    title = "decoder"

    def __init__(self, shape: DecoderShape, settings: SentenceSettings, tensors: Tensors) -> None:
        layers = [layer_of(shape, index) for index in range(shape.layers)]
        super().__init__(shape.hidden, settings, tensors, layers, shape.head)
        self._shape = shape

    def packing(self, linears: Linears) -> Packing:
        del linears
        return Packing(GROUPS, min(TILE, self._settings.max_tokens))

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> DecoderWriter:
        return DecoderWriter(
            self._shape,
            self._settings,
            self._tensors,
            linears,
            graph,
            packed=PACKED if packed else None,
        )

    def rows(self, graph: GraphWriter, linears: Linears, *, int8_embeddings: bool) -> str:
        writer = self._writer(graph, linears, packed=True)
        return self._written(writer, int8_embeddings=int8_embeddings)
