"""The head of a masked language model, pooled to a weight for each word of the vocabulary: SPLADE.

Each token's row becomes a number for every word, and a text's weight of a word is the largest over its tokens, or
their sum, of log(1 + relu(number)). All numbers of a batch at once would take gigabytes, so the graph computes
those of TILE rows at a time, in a loop, and pools them at once.
"""

from dataclasses import dataclass

import numpy as np

from export.errors import CorruptFile
from export.families.activations import write_activation
from export.families.affine import affine_shapes, write_affine, write_layer_norm
from export.families.family import OUTPUT, MaskedHead
from export.families.linears import FloatLinear, Linear, LinearWriter, RowwiseLinear, Site
from export.graph import GraphWriter
from export.quantisation.ranges import quantize_columns
from export.source.heads import Splade
from export.source.tensors import Shapes, Tensors
from server.inference.encoder import INPUT_IDS

# Rows whose words are computed at once: 16 MB of numbers for BERT's vocabulary.
TILE = 128
DECODER = Site("words", ("words.decoder",))
REDUCE = {"max": "ReduceMax", "sum": "ReduceSum"}


@dataclass(frozen=True, slots=True)
class WordWeights:
    """Gives each word of the vocabulary a weight, 0 or more.

    hidden: the width of a row. words: of the vocabulary. tied: whether the words' rows are those of the embeddings.
    bias: the name of the words' bias.
    """

    names: MaskedHead
    splade: Splade
    hidden: int
    words: int
    tied: bool
    bias: str

    @property
    def width(self) -> int:
        return self.words

    @property
    def one_length(self) -> bool:
        return True

    def tensors(self) -> Shapes:
        hidden, names = self.hidden, self.names
        return {
            **affine_shapes(names.dense, hidden, hidden),
            **affine_shapes(names.norm, hidden),
            self._table: (self.words, hidden),
            self.bias: (self.words,),
        }

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, *, int8: bool) -> None:
        """Write OUTPUT, float32 (B, words), from `rows`, float32 (B * T, D) of B texts of T tokens."""
        decoder = self._decoder(tensors, int8=int8)
        ready = self._transformed(graph, rows, tensors)
        tiles = _Tiles(graph, ready, self.hidden)

        def pooled(inner: GraphWriter, number: str) -> str:
            tile = tiles.cut(inner, number)
            linear = LinearWriter(inner, {DECODER.readers[0]: decoder})
            numbers = linear.read_and_apply(tile, DECODER)
            if self.splade.pooling == "sum":
                numbers = self._weights(inner, numbers, "words.weights")
            axis = inner.integers("tile.tokens", [1])
            return inner.node(
                REDUCE[self.splade.pooling], [numbers, axis], "tile.pooled", keepdims=0
            )

        parts = graph.loop(tiles.trips, pooled, "words.tiles")
        whole = tiles.joined(parts, REDUCE[self.splade.pooling], self.words)
        if self.splade.pooling == "max":
            # Both functions grow with their argument, so they may follow the maximum.
            whole = self._weights(graph, whole, "words.weights")
        graph.node("Identity", [whole], OUTPUT)

    @property
    def _table(self) -> str:
        return self.names.words if self.tied else f"{self.names.decoder}.weight"

    def _decoder(self, tensors: Tensors, *, int8: bool) -> Linear:
        weight, bias = np.ascontiguousarray(tensors[self._table].T), tensors[self.bias]
        if not int8:
            return FloatLinear(weight, bias)
        codes, scale = quantize_columns(weight, 127)
        return RowwiseLinear(codes.astype(np.int8), scale, bias)

    def _transformed(self, graph: GraphWriter, rows: str, tensors: Tensors) -> str:
        names = self.names
        dense = write_affine(graph, rows, names.dense, tensors)
        active = write_activation(graph, names.activation, dense, f"{names.dense}.active")
        return write_layer_norm(graph, active, names.norm, tensors, names.epsilon)

    def _weights(self, graph: GraphWriter, numbers: str, name: str) -> str:
        """Write log(1 + relu(number)), a second logarithm where the model has one."""
        found = graph.node("Relu", [numbers], f"{name}.positive")
        one = graph.floats("words.one", 1.0)
        for times in range(self.splade.logarithms):
            above = graph.node("Add", [found, one], f"{name}.above.{times}")
            found = graph.node("Log", [above], f"{name}.log.{times}")
        return found


class _Tiles:
    """Cuts the rows of B texts of T tokens into tiles: several short texts, or a part of a long one."""

    def __init__(self, graph: GraphWriter, rows: str, hidden: int) -> None:
        self._graph = graph
        node, number = graph.node, graph.integers
        texts = node("Shape", [INPUT_IDS], "tiles.texts", start=0, end=1)
        tokens = node("Shape", [INPUT_IDS], "tiles.tokens", start=1, end=2)
        tile, one = number("tiles.tile", [TILE]), number("ones", [1])
        self._texts, self._one = texts, one
        # Texts and tokens of a tile, and how many tiles there are either way.
        self._high = node("Max", [node("Div", [tile, tokens], "tiles.fit"), one], "tiles.high")
        self._wide = node("Min", [tile, tokens], "tiles.wide")
        self._rows_of_tiles = self._ceil(texts, self._high, "tiles.down")
        self._across = self._ceil(tokens, self._wide, "tiles.across")
        trips = node("Mul", [self._rows_of_tiles, self._across], "tiles.trips")
        self.trips = node("Squeeze", [trips], "tiles.trips.scalar")
        # Texts of zeros make the last tile as high as the others.
        filled = node("Mul", [self._rows_of_tiles, self._high], "tiles.filled")
        missing = node("Sub", [filled, texts], "tiles.missing")
        nothing = number("tiles.nothing", [0, 0, 0])
        shape = node(
            "Concat", [texts, tokens, number("tiles.hidden", [hidden])], "tiles.shape", axis=0
        )
        shaped = node("Reshape", [rows, shape], "tiles.texts_of_rows")
        pads = node(
            "Concat", [nothing, missing, number("tiles.no_pads", [0, 0])], "tiles.pads", axis=0
        )
        self._padded = node("Pad", [shaped, pads], "tiles.padded")

    def cut(self, inner: GraphWriter, number: str) -> str:
        """Write to a loop's body the tile of this number, (texts, tokens, D)."""
        node = inner.node
        place = node("Reshape", [number, inner.integers("tile.one", [1])], "tile.number")
        down = node("Div", [place, self._across], "tile.down")
        across = node("Mod", [place, self._across], "tile.across")
        top, left = (
            node("Mul", [each, size], f"{each}.begin")
            for each, size in ((down, self._high), (across, self._wide))
        )
        begins = node("Concat", [top, left], "tile.begins", axis=0)
        sizes = node("Concat", [self._high, self._wide], "tile.sizes", axis=0)
        ends = node("Add", [begins, sizes], "tile.ends")
        axes = inner.integers("tile.axes", [0, 1])
        return node("Slice", [self._padded, begins, ends, axes], "tile.rows")

    def joined(self, parts: str, reduce: str, words: int) -> str:
        """Write the rows of all texts, (B, words), from the tiles' (trips, texts, words)."""
        node, number = self._graph.node, self._graph.integers
        shape = node(
            "Concat",
            [self._rows_of_tiles, self._across, self._high, number("tiles.words", [words])],
            "tiles.parts.shape",
            axis=0,
        )
        shaped = node("Reshape", [parts, shape], "tiles.parts")
        pooled = node(reduce, [shaped, self._one], "tiles.pooled", keepdims=0)
        flat = node("Reshape", [pooled, number("tiles.flat", [-1, words])], "tiles.pooled.flat")
        begin, axis = number("zeros", [0]), number("axis_0", [0])
        return node("Slice", [flat, begin, self._texts, axis], "tiles.of_texts")

    def _ceil(self, number: str, by: str, name: str) -> str:
        """Write the quotient of two whole numbers, rounded up."""
        node = self._graph.node
        above = node("Sub", [node("Add", [number, by], f"{name}.sum"), self._one], f"{name}.above")
        return node("Div", [above, by], name)


def bias_of(tensors: Tensors, names: MaskedHead) -> str:
    """Return the name of the words' bias that the weights have; raises CorruptFile where two of them differ."""
    found = [name for name in names.bias if name in tensors]
    for other in found[1:]:
        if not np.array_equal(tensors[found[0]], tensors[other]):
            raise CorruptFile(
                "the weights have the bias of the words twice, and {name} differs from {other}",
                name=found[0],
                other=other,
            )
    return found[0] if found else names.bias[0]
