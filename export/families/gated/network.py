"""Writes the graphs of a gated encoder: float reference, int8 artifact, and the parts for calibration."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto

from export.families.batches import GROUPS, PACKED, declare_batch
from export.families.family import HIDDEN, OUTPUT, Layer
from export.families.gated.encoder import GatedWriter
from export.families.gated.layers import float_linears, layer_name, layer_of, linear_names
from export.families.gated.positions import longest_packed
from export.families.gated.shape import GatedShape
from export.families.linears import FloatLinear, Linears, LinearsByLayer
from export.graph import Branch, GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.inference.encoder import INPUT_IDS
from server.types import Packing


class GatedNetwork:
    """A `Network` (see `families.family`); all its graphs are written by the same `GatedWriter`."""

    def __init__(self, shape: GatedShape, settings: SentenceSettings, tensors: Tensors) -> None:
        self._shape = shape
        self._settings = settings
        self._tensors = tensors
        self._layers = [layer_of(shape, settings, index) for index in range(len(shape.layers))]

    @property
    def dimension(self) -> int:
        return self._shape.hidden

    @property
    def layers(self) -> Sequence[Layer]:
        return [layer.described() for layer in self._layers]

    def float_linears(self) -> Mapping[str, FloatLinear]:
        return LinearsByLayer(
            [linear_names(layer) for layer in self._layers],
            lambda index: float_linears(self._layers[index], self._tensors),
        )

    def packing(self, linears: Linears) -> Packing:
        del linears
        return Packing(GROUPS, longest_packed(self._shape, self._settings.max_tokens))

    def whole(self, linears: Linears, *, int8_embeddings: bool) -> onnx.ModelProto:
        graph = GraphWriter()
        declare_batch(graph)

        def network(packed: bool) -> Branch:
            def write(inner: GraphWriter) -> str:
                writer = self._writer(inner, linears, packed=packed)
                hidden = writer.embeddings(int8=int8_embeddings)
                for layer in self._layers:
                    *_, (_, hidden) = writer.layer(hidden, layer)
                return writer.pool(hidden)

            return write

        pooled = graph.branch(PACKED, network(packed=True), network(packed=False), "pooled")
        if self._settings.normalize:
            graph.node("LpNormalization", [pooled], OUTPUT, axis=-1, p=2)
        else:
            graph.node("Identity", [pooled], OUTPUT)
        return graph.model("encoder", {OUTPUT: ["texts", self._shape.hidden]})

    def embeddings(self, *, int8: bool) -> tuple[onnx.ModelProto, str]:
        graph = GraphWriter()
        graph.input(INPUT_IDS, TensorProto.INT64, ["rows", "columns"])
        output = self._writer(graph, {}, packed=False).embeddings(int8=int8)
        return graph.model("embeddings", {output: ["rows", "columns", "width"]}), output

    def layer(
        self, linears: Linears, index: int, *, until: str | None = None
    ) -> tuple[onnx.ModelProto, str]:
        graph = GraphWriter()
        graph.input(HIDDEN, TensorProto.FLOAT, ["rows", "columns", self._shape.hidden])
        steps = self._writer(graph, linears, packed=False).layer(HIDDEN, self._layers[index])
        wanted = until or layer_name(index)
        # Nothing is written beyond the step that is wanted.
        result = next(activation for name, activation in steps if name == wanted)
        return graph.model(layer_name(index), {result: None}), result

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> GatedWriter:
        return GatedWriter(
            self._shape, self._settings, self._tensors, linears, graph, packed=packed
        )
