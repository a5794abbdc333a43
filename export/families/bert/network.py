"""Writes the graphs of a BERT: float reference, int8 artifact, and the parts that calibration runs."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto

from export.families.batches import GROUPS, PACKED, declare_batch
from export.families.bert.attention import LONG
from export.families.bert.encoder import BertWriter
from export.families.bert.layers import float_linears, layer_name, layer_of
from export.families.bert.shape import BertShape
from export.families.family import HIDDEN, OUTPUT, Layer
from export.families.linears import FloatLinear, Int8Linear, Linears, LinearsByLayer
from export.graph import Branch, GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.inference.encoder import INPUT_IDS
from server.types import Packing


class BertNetwork:
    """A `Network` (see `families.family`); all its graphs are written by the same `BertWriter`."""

    def __init__(self, shape: BertShape, settings: SentenceSettings, tensors: Tensors) -> None:
        self._shape = shape
        self._settings = settings
        self._tensors = tensors
        self._layers = [layer_of(shape, settings, index) for index in range(shape.layers)]

    @property
    def dimension(self) -> int:
        return self._shape.hidden if self._shape.head is None else 1

    @property
    def layers(self) -> Sequence[Layer]:
        return [layer.described(self._settings.max_tokens) for layer in self._layers]

    def float_linears(self) -> Mapping[str, FloatLinear]:
        return LinearsByLayer(
            [layer.linears for layer in self._layers],
            lambda index: float_linears(self._layers[index], self._tensors),
        )

    def packing(self, linears: Linears) -> Packing:
        in_int8 = any(
            isinstance(each, Int8Linear) and each.output_scale is not None
            for each in linears.values()
        )
        return Packing(GROUPS, LONG - 1 if in_int8 else self._settings.max_tokens)

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
        if self._shape.head is not None:
            self._shape.head.write(graph, pooled, self._tensors, OUTPUT)
        elif self._settings.normalize:
            graph.node("LpNormalization", [pooled], OUTPUT, axis=-1, p=2)
        else:
            graph.node("Identity", [pooled], OUTPUT)
        return graph.model("bert", {OUTPUT: ["texts", self.dimension]})

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

    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> BertWriter:
        return BertWriter(self._shape, self._settings, self._tensors, linears, graph, packed=packed)
