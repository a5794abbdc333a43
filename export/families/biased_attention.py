"""Writes attention with a bias by the distance of two tokens (`relative_bias`), for both layouts of a batch.

The bias of a text is a matrix of its length squared, for each head. It is never stored as one. The graph has one
row a head, the bias by distance, and makes of it, once a run for all layers, the biases of a tile of queries:

    biases[q, c] = row[c - before - q]      q < TILE, before = the tokens before the last tile

A tile that begins at token b reads the columns from before - b on, one for each key: there the distance
is k - b - q. A text of up to TILE tokens is one tile. Its biases are the whole matrix. Longer texts compute
one tile of queries after the other, so that memory grows with a text's length and not with the square of it.
"""

from collections.abc import Sequence

from export.families.batches import BatchWriter
from export.families.relative_bias import Buckets, bias_by_distance
from export.graph import CONTRIB, GraphWriter
from export.source.tensors import FloatArray
from server.inference.encoder import GROUP_SHAPES, GROUP_TOKENS

# Queries of a tile, and so tokens of the longest text whose scores are computed at once.
TILE = 128


class BiasedAttention:
    """Appends attention to a graph.

    table: float32 (buckets, heads); width: of queries, keys and values, all heads
    together. max_tokens: of the longest text. scale: of the scores before the bias.
    """

    def __init__(
        self,
        graph: GraphWriter,
        batch: BatchWriter,
        table: FloatArray,
        buckets: Buckets,
        *,
        width: int,
        max_tokens: int,
        scale: float,
    ) -> None:
        self._graph = graph
        self._heads = table.shape[1]
        self._width = width
        self._scale = scale
        self._batch = batch
        self._is_tiled = max_tokens > TILE
        # The last tile's queries reach beyond the text.
        self._least = -(max_tokens + TILE)
        self._row = bias_by_distance(table, buckets, self._least, max_tokens)
        # Tensors that all layers read, by what they are.
        self._shared: dict[str, str] = {}

    def attend(self, projected: Sequence[str], name: str) -> str:
        """Write attention in which each text's tokens attend to that text's: (B, T, width).

        projected: queries, keys and values, (B, T, width) each.
        """
        if self._batch.packed:
            return self._attend_by_group(projected, name)
        n_tokens = self._n_tokens(projected[0])
        biases = self._biases(n_tokens, "rectangle")
        if not self._is_tiled:
            return self._fused(self._graph, projected, biases, name)
        return self._graph.branch(
            self._is_long(n_tokens),
            lambda graph: self._in_tiles(graph, projected, n_tokens, biases, f"{name}.tiles"),
            lambda graph: self._fused(graph, projected, biases, f"{name}.whole"),
            name,
            share_constants=False,
        )

    def of_first(self, tokens: str, name: str) -> str:
        """Write each head's bias of the tokens of a text, (B, T, D), for its first one: (1, 1, heads, T)."""
        graph = self._graph
        row = graph.floats("bias.of_first", self._row[None, None, :, -self._least :])
        n_tokens = graph.node("Shape", [tokens], f"{name}.n_tokens", start=1, end=2)
        begin, axis = graph.integers("zeros", [0]), graph.integers("axis_3", [3])
        return graph.node("Slice", [row, begin, n_tokens, axis], f"{name}.bias")

    # --- the layouts of a batch -------------------------------------------------------------------

    def _attend_by_group(self, projected: Sequence[str], name: str) -> str:
        graph = self._graph
        groups = [self._groups(each) for each in projected]
        row = graph.integers("attention.row", [1, -1, self._width])
        parts = []
        for group, tensors in enumerate(zip(*groups, strict=True)):
            kind = f"group.{group}"
            biases = self._biases(self._n_tokens(tensors[0], kind), kind)
            attended = self._fused(graph, tensors, biases, f"{name}.{group}")
            parts.append(graph.node("Reshape", [attended, row], f"{attended}.row"))
        return graph.node("Concat", parts, name, axis=1)

    def _groups(self, tensor: str) -> list[str]:
        """Split a packed tensor (1, tokens, width) into one (texts, T, width) for every group."""
        kind, name = "attention.group_shapes", f"{tensor}.groups"
        return self._batch.groups_in(kind, self._group_shapes, tensor, GROUP_TOKENS, name)

    def _group_shapes(self) -> str:
        """Write the shapes of the groups, with the width of all heads in the place of the output's."""
        graph = self._graph
        kept = graph.integers("attention.kept", [1, 1, 0])
        width = graph.integers("attention.width", [0, 0, self._width])
        sizes = graph.node("Mul", [GROUP_SHAPES, kept], "attention.group_sizes")
        return graph.node("Add", [sizes, width], "attention.group_shapes")

    def _in_tiles(
        self, graph: GraphWriter, projected: Sequence[str], n_tokens: str, biases: str, name: str
    ) -> str:
        """Write attention of TILE queries after TILE queries, each to all keys, to a subgraph."""
        query, keys, values = projected
        body = f"{name}.tile"

        def write(inner: GraphWriter, number: str, carried: Sequence[str]) -> list[str]:
            size, zero = inner.integers(f"{body}.size", [TILE]), inner.integers(f"{body}.zero", [0])
            begin = inner.node("Mul", [number, size], f"{body}.begin")
            full = inner.node("Add", [begin, size], f"{body}.full")
            end = inner.node("Min", [full, n_tokens], f"{body}.end")
            axis = inner.integers(f"{body}.tokens", [1])
            queries = inner.node("Slice", [query, begin, end, axis], f"{body}.queries")
            n_rows = inner.node("Sub", [end, begin], f"{body}.n_rows")
            first = inner.node("Sub", [before, begin], f"{body}.first")
            last = inner.node("Add", [first, n_tokens], f"{body}.last")
            begins = inner.node("Concat", [zero, first], f"{body}.begins", axis=0)
            ends = inner.node("Concat", [n_rows, last], f"{body}.ends", axis=0)
            axes = inner.integers(f"{body}.axes", [2, 3])
            bias = inner.node("Slice", [biases, begins, ends, axes], f"{body}.bias")
            found = self._fused(inner, (queries, keys, values), bias, f"{body}.found")
            return [inner.node("Concat", [*carried, found], f"{body}.all", axis=1)]

        before = self._before(n_tokens, "rectangle")
        trips = graph.node("Div", [before, graph.integers(f"{name}.size", [TILE])], f"{name}.full")
        one = graph.integers(f"{name}.one", [1])
        trips = graph.node("Add", [trips, one], f"{name}.count")
        trips = graph.node("Squeeze", [trips], f"{name}.trips")
        # No rows yet, of each text.
        zero, axis = graph.integers(f"{name}.zero", [0]), graph.integers(f"{name}.axis", [1])
        nothing = graph.node("Slice", [query, zero, zero, axis], f"{name}.nothing")
        (attended,) = graph.carry(trips, [nothing], write, f"{name}.loop")
        return attended

    def _fused(self, graph: GraphWriter, projected: Sequence[str], bias: str, name: str) -> str:
        """Write the fused operator to `graph`, which may be a subgraph."""
        read = [*projected, "", "", bias]
        heads, scale = self._heads, self._scale
        return graph.node("MultiHeadAttention", read, name, CONTRIB, num_heads=heads, scale=scale)

    # --- biases -----------------------------------------------------------------------------------

    def _biases(self, n_tokens: str, kind: str) -> str:
        """Write the biases of a tile of queries, float32 (1, heads, the tile's rows, before + T)."""
        name = f"bias.{kind}"
        if name not in self._shared:
            graph = self._graph
            before = self._before(n_tokens, kind)
            size = graph.integers("bias.tile", [TILE])
            columns = graph.node("Add", [before, n_tokens], f"{name}.n_columns")
            rows = graph.node("Min", [n_tokens, size], f"{name}.n_rows")
            # The place of distance 0 in the row.
            middle = graph.integers("bias.middle", [-self._least])
            start = graph.node("Sub", [middle, before], f"{name}.start")
            across = graph.node(
                "Add", [self._count(columns, f"{name}.columns"), start], f"{name}.across"
            )
            down = self._count(rows, f"{name}.rows")
            down = graph.node("Unsqueeze", [down, graph.integers("axis_1", [1])], f"{name}.down")
            places = graph.node("Sub", [across, down], f"{name}.places")
            # The first axis is the batch's: the same for every text.
            row = graph.floats("bias.row", self._row[None])
            self._shared[name] = graph.node("Gather", [row, places], name, axis=2)
        return self._shared[name]

    def _before(self, n_tokens: str, kind: str) -> str:
        """Return how many tokens stand before the last tile, int64 (1,)."""
        name = f"bias.{kind}.before"
        if name not in self._shared:
            graph = self._graph
            size, one = graph.integers("bias.tile", [TILE]), graph.integers("ones", [1])
            last = graph.node("Sub", [n_tokens, one], f"{name}.last")
            tiles = graph.node("Div", [last, size], f"{name}.tiles")
            self._shared[name] = graph.node("Mul", [tiles, size], name)
        return self._shared[name]

    def _count(self, n: str, name: str) -> str:
        """Write 0, 1, ... n - 1, for n of the shape (1,)."""
        graph = self._graph
        zero, one = graph.integers("zero", 0), graph.integers("one", 1)
        end = graph.node("Squeeze", [n], f"{name}.end")
        return graph.node("Range", [zero, end, one], name)

    def _n_tokens(self, tensor: str, kind: str = "rectangle") -> str:
        """Return the length of the texts of a group, int64 (1,), by any tensor (B, T, D) of it."""
        name = f"attention.{kind}.n_tokens"
        if name not in self._shared:
            self._shared[name] = self._graph.node("Shape", [tensor], name, start=1, end=2)
        return self._shared[name]

    def _is_long(self, n_tokens: str) -> str:
        if "is_long" not in self._shared:
            most = self._graph.integers("attention.tile", [TILE])
            self._shared["is_long"] = self._graph.node(
                "Greater", [n_tokens, most], "attention.is_long"
            )
        return self._shared["is_long"]
