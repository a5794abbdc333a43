"""Heads that work on the row of every token, for any family: what a model gives besides one vector a text.

`HeadedNetwork` is a network whose rows reach such a head. The heads of bge-m3 are here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
from onnx import TensorProto

from export.families.affine import affine_shapes, write_affine
from export.families.batches import declare_batch
from export.families.family import OUTPUT, Layer
from export.families.layered import LayeredNetwork
from export.families.linears import FloatLinear, Linears
from export.graph import GraphWriter
from export.source.heads import COLBERT_HEAD, SPARSE_HEAD
from export.source.tensors import Shapes, Tensors
from server.inference.encoder import INPUT_IDS
from server.types import Packing


class RowHead(Protocol):
    """What follows the rows of all tokens in a graph.

    one_length: it takes only texts of one length together.
    """

    @property
    def width(self) -> int:
        """The width of the graph's output."""

    @property
    def one_length(self) -> bool: ...

    def tensors(self) -> Shapes:
        """Return name -> shape of the tensors that it needs."""

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, *, int8: bool) -> None:
        """Write OUTPUT from `rows`, float32 (tokens, D), one text after the other.

        int8: large tables may be in int8.
        """


class HeadedNetwork:
    """A `Network` (see `families.family`) whose rows reach a head."""

    def __init__(self, network: LayeredNetwork[Any], head: RowHead, tensors: Tensors) -> None:
        self._network = network
        self._head = head
        self._tensors = tensors

    @property
    def dimension(self) -> int:
        return self._head.width

    @property
    def layers(self) -> Sequence[Layer]:
        return self._network.layers

    def float_linears(self) -> Mapping[str, FloatLinear]:
        return self._network.float_linears()

    def packing(self, linears: Linears) -> Packing:
        packing = self._network.packing(linears)
        return Packing(1, packing.longest) if self._head.one_length else packing

    def whole(self, linears: Linears, *, int8_embeddings: bool) -> onnx.ModelProto:
        graph = GraphWriter()
        hidden = self._network.dimension
        declare_batch(graph, None if self.dimension == hidden else hidden)
        rows = self._network.rows(graph, linears, int8_embeddings=int8_embeddings)
        self._head.write(graph, rows, self._tensors, int8=int8_embeddings)
        return graph.model("headed", {OUTPUT: ["rows", self.dimension]})

    def embeddings(self, *, int8: bool) -> tuple[onnx.ModelProto, str]:
        return self._network.embeddings(int8=int8)

    def layer(
        self, linears: Linears, index: int, *, until: str | None = None
    ) -> tuple[onnx.ModelProto, str]:
        return self._network.layer(linears, index, until=until)


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """Gives each token a weight, 0 or more: bge-m3's sparse head.

    hidden: the width of a row. unweighted: ids of special tokens, whose weight is always 0.
    """

    hidden: int
    unweighted: tuple[int, ...]

    @property
    def width(self) -> int:
        return 1

    @property
    def one_length(self) -> bool:
        return False

    def tensors(self) -> Shapes:
        return affine_shapes(SPARSE_HEAD, 1, self.hidden)

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, *, int8: bool) -> None:
        del int8
        linear = write_affine(graph, rows, SPARSE_HEAD, tensors)
        weights = graph.node("Relu", [linear], "weights")
        ids = graph.node("Reshape", [INPUT_IDS, graph.integers("column", [-1, 1])], "ids.column")
        special = graph.integers("special", [self.unweighted])
        found = graph.node("Equal", [ids, special], "is_special.each")
        found = graph.node("Cast", [found], "is_special.float", to=TensorProto.FLOAT)
        axis = graph.integers("axis_1", [1])
        found = graph.node("ReduceMax", [found, axis], "is_special", keepdims=1)
        kept = graph.node("Sub", [graph.floats("one", 1.0), found], "is_word")
        graph.node("Mul", [weights, kept], OUTPUT)


@dataclass(frozen=True, slots=True)
class TokenProjection:
    """Gives each token a vector of unit length by a linear layer: bge-m3's ColBERT head.

    hidden: the width of a row. width: of a vector.
    """

    hidden: int
    width: int

    @property
    def one_length(self) -> bool:
        return False

    def tensors(self) -> Shapes:
        return affine_shapes(COLBERT_HEAD, self.width, self.hidden)

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, *, int8: bool) -> None:
        del int8
        projected = write_affine(graph, rows, COLBERT_HEAD, tensors)
        graph.node("LpNormalization", [projected], OUTPUT, axis=-1, p=2)
