"""Writes the attention of a decoder: each token attends to itself and to those before it.

The rest of this holds for those. Some decoders attend in both directions: there MultiHeadAttention takes queries
and keys that RotaryEmbedding has turned. It needs no tiles: ONNX Runtime computes it in tiles itself.

ONNX Runtime's GroupQueryAttention turns queries and keys by their places, shares keys and values among
queries, and masks what comes after. It holds the scores of all heads and queries at once, 4 bytes each:
4 GB for 16 heads and 8,192 tokens. So a text of more than TILE tokens is computed in tiles of queries, one
after the other. A tile reads the keys and values of the tiles before it and its own. That is exact, needs
memory that grows with a text's length and not with its square, and skips what the mask would hide.

The operator fails for a batch without texts, so a packed batch is a loop over the groups that there are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from export.families.decoder.shape import DecoderShape
from export.families.gated.positions import rotary_tables
from export.families.gated.shape import Rotary
from export.graph import CONTRIB, GraphWriter
from server.inference.encoder import GROUP_TEXTS, GROUP_TOKENS

# Tokens of a tile, and so of the longest text whose scores are computed at once.
TILE = 512


class Projected(NamedTuple):
    """Queries, float32 (B, T, heads * d), keys and values, (B, T, kv_heads * d)."""

    queries: str
    keys: str
    values: str


class Lengths(NamedTuple):
    """The lengths of texts as the operator wants them, int32.

    last: the place of the last token, (B,). total: the tokens of a text, a scalar.
    """

    last: str
    total: str


class AttentionWriter:
    """Appends attention to a graph.

    max_tokens: of the longest text. packed: the name of what says, when the graph runs, whether the batch is
    packed; None where it never is.
    """

    def __init__(
        self, shape: DecoderShape, max_tokens: int, graph: GraphWriter, packed: str | None
    ) -> None:
        self._shape = shape
        self._max_tokens = max_tokens
        self._graph = graph
        self._packed = packed
        self._widths = shape.query_width, shape.key_width, shape.key_width
        tables = rotary_tables(Rotary(shape.theta), shape.head_width, max_tokens)
        self._tables = [
            graph.floats(f"rotary.{name}", table)
            for name, table in zip(("cosines", "sines"), tables, strict=True)
        ]
        # Tensors that all layers read.
        self._rectangle: Lengths | None = None
        self._long = self._groups = self._begins = ""

    def attend(self, projected: Projected, window: int | None, name: str) -> str:
        """Write what each token gathers, float32 (rows, columns, heads * d), for both layouts of a batch."""
        self._measure(projected.queries)
        if self._packed is None:
            return self._of_rectangle(self._graph, projected, window, name)
        return self._graph.branch(
            self._packed,
            lambda graph: self._of_groups(graph, projected, window, f"{name}.packed"),
            lambda graph: self._of_rectangle(graph, projected, window, f"{name}.rectangle"),
            name,
            share_constants=False,
        )

    def _measure(self, tensor: str) -> None:
        """Write the lengths of the texts in a batch, by any tensor (rows, columns, D) of it."""
        if self._rectangle is not None:
            return
        graph = self._graph
        self._rectangle = _lengths(graph, tensor, "attention")
        if self._max_tokens > TILE:
            most = graph.constant("attention.tile", np.array(TILE, np.int32))
            self._long = graph.node("Greater", [self._rectangle.total, most], "attention.is_long")
        if self._packed is not None:
            some = graph.node("Sign", [GROUP_TEXTS], "attention.groups.some")
            axis = graph.integers("axis_0", [0])
            self._groups = graph.node("ReduceSum", [some, axis], "attention.groups", keepdims=0)
            zero = graph.integers("attention.first_axis", 0)
            read = [GROUP_TOKENS, zero]
            self._begins = graph.node("CumSum", read, "attention.groups.begins", exclusive=1)

    # --- the layouts of a batch -------------------------------------------------------------------

    def _of_rectangle(
        self, graph: GraphWriter, projected: Projected, window: int | None, name: str
    ) -> str:
        assert self._rectangle is not None
        lengths = self._rectangle
        if not self._long or self._shape.both_ways:
            return self._fused(graph, projected, lengths, window, name)
        return graph.branch(
            self._long,
            lambda inner: self._in_tiles(inner, projected, window, f"{name}.tiles"),
            lambda inner: self._fused(inner, projected, lengths, window, f"{name}.whole"),
            name,
            share_constants=False,
        )

    def _of_groups(
        self, graph: GraphWriter, projected: Projected, window: int | None, name: str
    ) -> str:
        """Write attention of a packed batch, (1, tokens, heads * d), one group after the other."""
        body = f"{name}.group"

        def write(inner: GraphWriter, number: str, carried: Sequence[str]) -> list[str]:
            first = inner.integers(f"{body}.axis_0", [0])
            place = inner.node("Unsqueeze", [number, first], f"{body}.place")
            begin = inner.node("Gather", [self._begins, place], f"{body}.begin")
            size = inner.node("Gather", [GROUP_TOKENS, place], f"{body}.size")
            end = inner.node("Add", [begin, size], f"{body}.end")
            n_texts = inner.node("Gather", [GROUP_TEXTS, place], f"{body}.n_texts")
            texts = []
            for part, tensor, width in zip(Projected._fields, projected, self._widths, strict=True):
                rows = _tokens(inner, tensor, begin, end, f"{body}.{part}")
                rest = inner.integers(f"{body}.{part}.rest", [-1, width])
                shape = inner.node("Concat", [n_texts, rest], f"{body}.{part}.shape", axis=0)
                texts.append(inner.node("Reshape", [rows, shape], f"{body}.{part}.texts"))
            lengths = _lengths(inner, texts[0], body)
            attended = self._fused(inner, Projected(*texts), lengths, window, f"{body}.attended")
            row = inner.integers(f"{body}.row", [1, -1, self._shape.query_width])
            found = inner.node("Reshape", [attended, row], f"{body}.found")
            return [inner.node("Concat", [*carried, found], f"{body}.all", axis=1)]

        nothing = np.zeros((1, 0, self._shape.query_width), np.float32)
        start = graph.constant(f"{name}.nothing", nothing)
        (attended,) = graph.carry(self._groups, [start], write, f"{name}.groups")
        return attended

    def _in_tiles(
        self, graph: GraphWriter, projected: Projected, window: int | None, name: str
    ) -> str:
        """Write attention of texts of one length, one tile of queries after the other."""
        body = f"{name}.tile"

        def write(inner: GraphWriter, number: str, carried: Sequence[str]) -> list[str]:
            attended, past_keys, past_values = carried
            size = inner.integers(f"{body}.size", [TILE])
            begin = inner.node("Mul", [number, size], f"{body}.begin")
            past_end = inner.node("Add", [begin, size], f"{body}.full")
            end = inner.node("Min", [past_end, n_tokens], f"{body}.end")
            parts = [
                _tokens(inner, tensor, begin, end, f"{body}.{part}")
                for part, tensor in zip(Projected._fields, projected, strict=True)
            ]
            own = _lengths(inner, parts[0], body)
            scalar = inner.node("Squeeze", [end], f"{body}.scalar")
            total = inner.node("Cast", [scalar], f"{body}.end_32", to=TensorProto.INT32)
            one = inner.constant(f"{body}.one_32", np.array(1, np.int32))
            # Of the tile's own last token to that of the texts so far.
            sizes = inner.node("Add", [own.last, one], f"{body}.sizes")
            before = inner.node("Sub", [total, own.total], f"{body}.before")
            last = inner.node("Add", [own.last, before], f"{body}.last_of_all")
            read = [*parts, past_keys, past_values, last, total, *self._tables, *7 * [""], sizes]
            names = [f"{body}.{part}" for part in ("attended", "past_keys", "past_values")]
            found, *past = inner.outputs(
                "GroupQueryAttention", read, names, CONTRIB, **self._attributes(window)
            )
            return [inner.node("Concat", [attended, found], f"{body}.all", axis=1), *past]

        n_texts = graph.node("Shape", [projected.queries], f"{name}.n_texts", start=0, end=1)
        n_tokens = graph.node("Shape", [projected.queries], f"{name}.n_tokens", start=1, end=2)
        almost = graph.integers(f"{name}.almost", [TILE - 1])
        size = graph.integers(f"{name}.size", [TILE])
        padded = graph.node("Add", [n_tokens, almost], f"{name}.padded")
        trips = graph.node("Div", [padded, size], f"{name}.count")
        trips = graph.node("Squeeze", [trips], f"{name}.trips")
        shape = self._shape
        no_rows = _empty(graph, n_texts, [0, shape.query_width], f"{name}.no_rows")
        no_past = _empty(graph, n_texts, [shape.kv_heads, 0, shape.head_width], f"{name}.no_past")
        return graph.carry(trips, [no_rows, no_past, no_past], write, f"{name}.loop")[0]

    # --- the operators they are made of -----------------------------------------------------------

    def _fused(
        self,
        graph: GraphWriter,
        projected: Projected,
        lengths: Lengths,
        window: int | None,
        name: str,
    ) -> str:
        """Write the operator to `graph`, which may be a subgraph."""
        if self._shape.both_ways:
            return self._both_ways(graph, projected, name)
        read = [*projected, "", "", *lengths, *self._tables]
        return graph.node("GroupQueryAttention", read, name, CONTRIB, **self._attributes(window))

    def _both_ways(self, graph: GraphWriter, projected: Projected, name: str) -> str:
        """Write attention to all tokens of a text, for texts of one length."""
        heads = self._shape.heads
        # The place of the first token; the others follow.
        first = graph.integers(f"{name}.first", [0])
        turned = [
            graph.node(
                "RotaryEmbedding", [each, first, *self._tables], f"{name}.{part}.turned", CONTRIB
            )
            for part, each in (("queries", projected.queries), ("keys", projected.keys))
        ]
        keys = self._for_each_query(graph, turned[1], f"{name}.keys")
        values = self._for_each_query(graph, projected.values, f"{name}.values")
        read = [turned[0], keys, values]
        return graph.node("MultiHeadAttention", read, name, CONTRIB, num_heads=heads)

    def _for_each_query(self, graph: GraphWriter, tensor: str, name: str) -> str:
        """Repeat the heads of keys or values for the queries that share them, (B, T, heads * d)."""
        shape = self._shape
        if shape.heads == shape.kv_heads:
            return tensor
        by_head = graph.integers(f"{name}.by_head", [0, 0, shape.kv_heads, 1, shape.head_width])
        repeats = [1, 1, 1, shape.heads // shape.kv_heads, 1]
        apart = graph.node("Reshape", [tensor, by_head], f"{name}.apart")
        repeated = graph.node(
            "Expand", [apart, graph.integers(f"{name}.repeats", repeats)], f"{name}.repeated"
        )
        rows = graph.integers(f"{name}.rows", [0, 0, shape.query_width])
        return graph.node("Reshape", [repeated, rows], f"{name}.of_queries")

    def _attributes(self, window: int | None) -> dict[str, int]:
        shape = self._shape
        attributes = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "do_rotary": 1}
        # A window that holds every text would only cost time.
        if window is not None and window < self._max_tokens:
            attributes["local_window_size"] = window
        return attributes


def _lengths(graph: GraphWriter, tensor: str, name: str) -> Lengths:
    """Write the lengths of texts of one length, by any tensor (B, T, D) of them."""
    n_texts = graph.node("Shape", [tensor], f"{name}.n_texts_64", start=0, end=1)
    n_tokens = graph.node("Shape", [tensor], f"{name}.n_tokens_64", start=1, end=2)
    scalar = graph.node("Squeeze", [n_tokens], f"{name}.n_tokens_scalar")
    total = graph.node("Cast", [scalar], f"{name}.total", to=TensorProto.INT32)
    one = graph.constant(f"{name}.one", np.array(1, np.int32))
    place = graph.node("Sub", [total, one], f"{name}.last_place")
    return Lengths(graph.node("Expand", [place, n_texts], f"{name}.last"), total)


def _tokens(graph: GraphWriter, tensor: str, begin: str, end: str, name: str) -> str:
    """Write a part of the tokens of a tensor (B, T, D)."""
    axis = graph.integers(f"{name}.axis", [1])
    return graph.node("Slice", [tensor, begin, end, axis], f"{name}.rows")


def _empty(graph: GraphWriter, n_texts: str, rest: list[int], name: str) -> str:
    """Write zeros of the shape (texts, *rest)."""
    sizes = [n_texts, graph.integers(f"{name}.rest", rest)]
    shape = graph.node("Concat", sizes, f"{name}.shape", axis=0)
    return graph.node("ConstantOfShape", [shape], name)
