"""What the networks of all families write alike: a whole graph, and the parts that calibration runs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import onnx
from onnx import TensorProto

from export.families.batches import PACKED, declare_batch
from export.families.family import HIDDEN, OUTPUT, Layer
from export.families.linears import FloatLinear, Linears, LinearsByLayer, Readers
from export.families.tail import write_tail
from export.graph import Branch, GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tail import tail_width
from export.source.tensors import Tensors
from server.inference.encoder import INPUT_IDS
from server.types import Packing


class FamilyLayer(Protocol):
    """A layer as its family describes it. linears: the names of its linear layers."""

    @property
    def name(self) -> str: ...

    @property
    def linears(self) -> Readers: ...

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""

    def float_linears(self, tensors: Tensors) -> Mapping[str, FloatLinear]:
        """Return every linear layer, as the checkpoint has it."""


class ScoringHead(Protocol):
    """Makes a score of the row of a pair."""

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, output: str) -> None:
        """Write the scores of `rows` (B, D) under the name `output`, float32 (B, 1), not activated."""


LayerKind = TypeVar("LayerKind", bound=FamilyLayer)
Writes = TypeVar("Writes", bound=FamilyLayer, contravariant=True)


class Writer(Protocol[Writes]):
    """Appends a checkpoint's operators to a graph; its methods return names of activations."""

    def embeddings(self, *, int8: bool) -> str:
        """Write what stands before the first layer, (B, T, D)."""

    def layer(self, hidden: str, layer: Writes) -> Iterator[tuple[str, str]]:
        """Write one layer, step by step.

        Yields the name of each site with its activation before that is read, and in the end the
        layer's name with its result.
        """

    def pool(self, hidden: str) -> str:
        """Reduce the tokens to one row a text, (B, D)."""


class LayeredNetwork(ABC, Generic[LayerKind]):
    """A `Network` (see `families.family`), all of whose graphs are written by one kind of writer.

    title: the name of its whole graph.
    """

    title: ClassVar[str]

    def __init__(
        self,
        hidden: int,
        settings: SentenceSettings,
        tensors: Tensors,
        own_layers: Sequence[LayerKind],
        head: ScoringHead | None = None,
    ) -> None:
        """Take the parts of a network.

        hidden: the width of a token's row, D. head: of a network that scores pairs.
        """
        self._hidden = hidden
        self._settings = settings
        self._tensors = tensors
        self._layers = own_layers
        self._head = head

    @property
    def dimension(self) -> int:
        return tail_width(self._settings.tail, self._hidden) if self._head is None else 1

    @property
    def layers(self) -> Sequence[Layer]:
        return [layer.described() for layer in self._layers]

    @abstractmethod
    def packing(self, linears: Linears) -> Packing:
        """Return which texts the graph of these layers takes together."""

    @abstractmethod
    def _writer(self, graph: GraphWriter, linears: Linears, *, packed: bool) -> Writer[LayerKind]:
        """Return what writes a batch of one layout; packed: several lengths in one row."""

    def float_linears(self) -> Mapping[str, FloatLinear]:
        return LinearsByLayer(
            [layer.linears for layer in self._layers],
            lambda index: self._layers[index].float_linears(self._tensors),
        )

    def whole(self, linears: Linears, *, int8_embeddings: bool) -> onnx.ModelProto:
        graph = GraphWriter()
        of_vector = tail_width(self._settings.tail, self._hidden)
        declare_batch(graph, None if of_vector == self._hidden else self._hidden)
        pooled = self.rows(graph, linears, int8_embeddings=int8_embeddings)
        if self._head is None:
            write_tail(graph, pooled, self._settings, self._tensors, OUTPUT)
        else:
            self._head.write(graph, pooled, self._tensors, OUTPUT)
        return graph.model(self.title, {OUTPUT: ["texts", self.dimension]})

    def rows(self, graph: GraphWriter, linears: Linears, *, int8_embeddings: bool) -> str:
        """Write the network to a graph with a declared batch, as far as pooling; returns the result's name.

        It is written twice, for either layout of a batch, over the same weights.
        """

        def network(packed: bool) -> Branch:
            def write(inner: GraphWriter) -> str:
                writer = self._writer(inner, linears, packed=packed)
                return self._written(writer, int8_embeddings=int8_embeddings)

            return write

        return graph.branch(PACKED, network(packed=True), network(packed=False), "pooled")

    def embeddings(self, *, int8: bool) -> tuple[onnx.ModelProto, str]:
        graph = GraphWriter()
        graph.input(INPUT_IDS, TensorProto.INT64, ["rows", "columns"])
        output = self._writer(graph, {}, packed=False).embeddings(int8=int8)
        return graph.model("embeddings", {output: ["rows", "columns", "width"]}), output

    def layer(
        self, linears: Linears, index: int, *, until: str | None = None
    ) -> tuple[onnx.ModelProto, str]:
        graph, layer = GraphWriter(), self._layers[index]
        graph.input(HIDDEN, TensorProto.FLOAT, ["rows", "columns", self._hidden])
        steps = self._writer(graph, linears, packed=False).layer(HIDDEN, layer)
        wanted = until or layer.name
        # Nothing is written beyond the step that is wanted.
        result = next(activation for name, activation in steps if name == wanted)
        return graph.model(layer.name, {result: None}), result

    def _written(self, writer: Writer[LayerKind], *, int8_embeddings: bool) -> str:
        """Write everything from the words to the rows of the texts, (B, D)."""
        hidden = writer.embeddings(int8=int8_embeddings)
        for layer in self._layers:
            *_, (_, hidden) = writer.layer(hidden, layer)
        return writer.pool(hidden)
