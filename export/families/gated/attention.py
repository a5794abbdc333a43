"""Writes the attention of a gated encoder: rotary positions or ALiBi, of all tokens or of a window.

Everything is exact, and needs memory that grows with a text's length and not with its square:

- Without a window the fused operator, MultiHeadAttention, takes rotary queries and keys as they are.
- With a window of W tokens to each side a text of up to W + 1 tokens needs no mask. A longer one is cut
  into blocks of W queries. Each block attends to its own keys and those of the blocks beside it, 3 W in
  all, under a mask. No other key is in reach.
- ALiBi adds a bias to every score. Texts of TILE tokens and more compute one tile of queries after the other.

Measured (2026-11-29, one thread, 12 heads of 64): rotary positions with the operator RotaryEmbedding take
0.03 ms for 128 tokens, written with Mul, Concat and Add 0.39 ms; they differ by float32 rounding.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from export.families.batches import GROUPS, BatchWriter
from export.families.gated.positions import TILE, alibi_slopes, rotary_tables
from export.families.gated.shape import GatedShape, LayerShape, Rotary
from export.graph import CONTRIB, GraphWriter
from server.inference.encoder import GROUP_TEXTS, GROUP_TOKENS, POSITION_IDS


class AttentionWriter:
    """Appends attention to a graph; max_tokens: of the longest text."""

    def __init__(
        self, shape: GatedShape, max_tokens: int, graph: GraphWriter, batch: BatchWriter
    ) -> None:
        self._heads = shape.heads
        self._hidden = shape.hidden
        self._max_tokens = max_tokens
        self._graph = graph
        self._batch = batch
        # Tensors that all layers read, by what they are.
        self._shared: dict[str, str] = {}

    def attend(self, projected: Sequence[str], layer: LayerShape, name: str) -> str:
        """Write attention in which each text's tokens attend to that text's: (B, T, D).

        projected: queries, keys and values, (B, T, D) each.
        """
        query, key, value = projected
        if layer.rotary is not None:
            query, key = (self._turned(each, layer.rotary) for each in (query, key))
        if self._batch.packed:
            return self._attend_by_group((query, key, value), layer, name)
        if layer.window is not None:
            return self._attend_in_window((query, key, value), layer.window, name)
        if layer.rotary is None:
            return self._attend_with_alibi((query, key, value), name)
        return self._fused(self._graph, (query, key, value), name)

    def attend_from_first_row(self, projected: Sequence[str], layer: LayerShape, name: str) -> str:
        """Write what the query of each text's first token gathers from that text's tokens: (B, 1, D).

        projected: queries, (B, 1, D); keys and values, (B, T, D) each. The first token's place is 0, so its
        query is not turned.
        """
        graph, (query, key, value) = self._graph, projected
        if layer.rotary is not None:
            key = self._turned(key, layer.rotary)
        if not self._batch.packed:
            return self._gather(query, key, value, layer, name)
        queries = graph.split(query, GROUP_TEXTS, GROUPS, f"{query}.groups", axis=0)
        keys = self._batch.groups(key, GROUP_TOKENS, f"{key}.groups")
        values = self._batch.groups(value, GROUP_TOKENS, f"{value}.groups")
        parts = [
            self._gather(*tensors, layer, f"{name}.{group}")
            for group, tensors in enumerate(zip(queries, keys, values, strict=True))
        ]
        return graph.node("Concat", parts, name, axis=0)

    def _gather(self, query: str, key: str, value: str, layer: LayerShape, name: str) -> str:
        graph, bias = self._graph, ""
        if layer.window is not None:
            key = self._near_first(key, layer.window, f"{name}.near_keys")
            value = self._near_first(value, layer.window, f"{name}.near_values")
        if layer.rotary is None:
            distances = np.arange(self._max_tokens)
            row = -alibi_slopes(self._heads)[None, :, None, None] * distances
            n_tokens = graph.node("Shape", [key], f"{name}.n_tokens", start=1, end=2)
            begin, last = graph.integers("zeros", [0]), graph.integers("axis_3", [3])
            read = [graph.floats("alibi.row", row), begin, n_tokens, last]
            bias = graph.node("Slice", read, f"{name}.bias")
        return self._fused(graph, (query, key, value), name, bias)

    def _near_first(self, tensor: str, window: int, name: str) -> str:
        """Write the tokens that the first one of each text sees."""
        graph = self._graph
        begin, axis = graph.integers("zeros", [0]), graph.integers("axis_1", [1])
        end = graph.integers(f"window.{window}.end", [window + 1])
        return graph.node("Slice", [tensor, begin, end, axis], name)

    def _fused(
        self, graph: GraphWriter, projected: Sequence[str], name: str, bias: str = ""
    ) -> str:
        """Write the fused operator to `graph`, which may be a subgraph; bias: added to the scores."""
        read = [*projected, "", "", bias] if bias else projected
        return graph.node("MultiHeadAttention", read, name, CONTRIB, num_heads=self._heads)

    def _attend_by_group(self, projected: Sequence[str], layer: LayerShape, name: str) -> str:
        graph = self._graph
        groups = [self._batch.groups(each, GROUP_TOKENS, f"{each}.groups") for each in projected]
        row = graph.integers("row", [1, -1, self._hidden])
        parts = []
        for group, tensors in enumerate(zip(*groups, strict=True)):
            bias = "" if layer.rotary else self._alibi_of_group(tensors[0], group)
            attended = self._fused(graph, tensors, f"{name}.{group}", bias)
            parts.append(graph.node("Reshape", [attended, row], f"{attended}.row"))
        return graph.node("Concat", parts, name, axis=1)

    # --- rotary positions -------------------------------------------------------------------------

    def _turned(self, tensor: str, rotary: Rotary) -> str:
        """Turn queries or keys, (B, T, D), by the places of their tokens."""
        graph, name = self._graph, f"{tensor}.turned"
        kind = f"rotary.{rotary.theta:g}.{rotary.factor:g}"
        cosines, sines = rotary_tables(rotary, self._hidden // self._heads, self._max_tokens)
        tables = [graph.floats(f"{kind}.cosines", cosines), graph.floats(f"{kind}.sines", sines)]
        if not self._batch.packed:
            # The place of the first token; the others follow.
            read = [tensor, graph.integers("rotary.first", [0]), *tables]
            return graph.node("RotaryEmbedding", read, name, CONTRIB)
        # One token a row, because each says its own place: a row of all would be longer than the tables.
        rows = graph.integers("rotary.rows", [-1, 1, self._hidden])
        by_token = graph.node("Reshape", [tensor, rows], f"{tensor}.by_token")
        if "places" not in self._shared:
            axis = graph.integers("axis_1", [1])
            self._shared["places"] = graph.node("Unsqueeze", [POSITION_IDS, axis], "rotary.places")
        read = [by_token, self._shared["places"], *tables]
        turned = graph.node("RotaryEmbedding", read, f"{name}.by_token", CONTRIB)
        row = graph.integers("row", [1, -1, self._hidden])
        return graph.node("Reshape", [turned, row], name)

    # --- windows ----------------------------------------------------------------------------------

    def _attend_in_window(self, projected: Sequence[str], window: int, name: str) -> str:
        longer = self._longer_than(projected[0], window + 1)
        mask = self._window_mask(projected[0], window, longer)
        padding = self._padding(projected[0], window)
        return self._graph.branch(
            longer,
            lambda graph: self._in_blocks(
                graph, projected, window, mask, padding, f"{name}.blocks"
            ),
            lambda graph: self._fused(graph, projected, f"{name}.whole"),
            name,
            share_constants=False,
        )

    def _in_blocks(
        self,
        graph: GraphWriter,
        projected: Sequence[str],
        window: int,
        mask: str,
        padding: str,
        name: str,
    ) -> str:
        """Write attention of blocks of `window` queries each, to 3 * window keys."""
        width = self._hidden
        query = _padded(graph, projected[0], [0], padding, [0], f"{name}.query")
        of_block = graph.integers("of_block", [-1, window, width])
        read = [graph.node("Reshape", [query, of_block], f"{name}.queries")]
        blocks = graph.integers("blocks", [0, -1, window * width])
        of_three = graph.integers("of_three", [-1, 3 * window, width])
        axis, last = graph.integers("axis_1", [1]), 2**62
        bounds = [
            (graph.integers(f"begin.{place}", [place]), graph.integers(f"end.{place}", [end]))
            for place, end in enumerate((-2, -1, last))
        ]
        for part, tensor in zip(("key", "value"), projected[1:], strict=True):
            padded = _padded(graph, tensor, [window], padding, [window], f"{name}.{part}")
            by_block = graph.node("Reshape", [padded, blocks], f"{name}.{part}.blocks")
            moved = [
                graph.node("Slice", [by_block, *bound, axis], f"{name}.{part}.{place}")
                for place, bound in enumerate(bounds)
            ]
            three = graph.node("Concat", moved, f"{name}.{part}.three", axis=2)
            read.append(graph.node("Reshape", [three, of_three], f"{name}.{part}s"))
        context = self._fused(graph, read, f"{name}.context", mask)
        shape = graph.node("Shape", [query], f"{name}.shape")
        whole = graph.node("Reshape", [context, shape], f"{name}.padded")
        return _cut(graph, whole, projected[0], name)

    def _window_mask(self, tensor: str, window: int, longer: str) -> str:
        """Write what is added to the scores of every block, (B * blocks, 1, window, 3 * window)."""
        kind = f"window.{window}"
        if kind not in self._shared:
            n_blocks = self._n_blocks(tensor, window)
            n_tokens = self._n_tokens(tensor)

            def write(graph: GraphWriter) -> str:
                return _mask_of_blocks(graph, tensor, n_tokens, n_blocks, window)

            def nothing(graph: GraphWriter) -> str:
                return graph.node("Identity", [graph.floats("none", [[[[0.0]]]])], "no_mask")

            self._shared[kind] = self._graph.branch(
                longer, write, nothing, kind, share_constants=False
            )
        return self._shared[kind]

    # --- ALiBi ------------------------------------------------------------------------------------

    def _attend_with_alibi(self, projected: Sequence[str], name: str) -> str:
        bias = self._alibi_of_batch(projected[0])
        n_tokens = self._n_tokens(projected[0])
        n_tiles, padding = self._n_blocks(projected[0], TILE), self._padding(projected[0], TILE)
        return self._graph.branch(
            self._longer_than(projected[0], TILE - 1),
            lambda graph: self._in_tiles(
                graph, projected, n_tokens, n_tiles, padding, f"{name}.tiles"
            ),
            lambda graph: self._fused(graph, projected, f"{name}.whole", bias),
            name,
            share_constants=False,
        )

    def _in_tiles(
        self,
        graph: GraphWriter,
        projected: Sequence[str],
        n_tokens: str,
        n_tiles: str,
        padding: str,
        name: str,
    ) -> str:
        """Write attention of TILE queries after TILE queries, each to all keys."""
        query = _padded(graph, projected[0], [0], padding, [0], f"{name}.query")
        zero, one = graph.integers("zero", 0), graph.integers("one", 1)
        flat = graph.integers("scalar", [])
        count = graph.node("Reshape", [n_tokens, flat], f"{name}.count")
        places = graph.node("Range", [zero, count, one], f"{name}.range")
        places = graph.node("Cast", [places], f"{name}.places", to=TensorProto.FLOAT)
        trips = graph.node("Reshape", [n_tiles, flat], f"{name}.trips")
        slopes = graph.floats("slopes", -alibi_slopes(self._heads)[:, None, None])
        in_tile = graph.floats("in_tile", np.arange(TILE)[:, None])
        size = graph.integers("tile", [TILE])
        axis = graph.integers("axis_1", [1])

        def write(body: GraphWriter, trip: str) -> str:
            begin = body.node("Mul", [trip, size], f"{name}.begin")
            end = body.node("Add", [begin, size], f"{name}.end")
            tile = body.node("Slice", [query, begin, end, axis], f"{name}.tile")
            first = body.node("Cast", [begin], f"{name}.first", to=TensorProto.FLOAT)
            rows = body.node("Add", [in_tile, first], f"{name}.rows")
            away = body.node("Sub", [rows, places], f"{name}.away")
            distance = body.node("Abs", [away], f"{name}.distance")
            scaled = body.node("Mul", [slopes, distance], f"{name}.scaled")
            first_axis = body.integers("axis_0", [0])
            bias = body.node("Unsqueeze", [scaled, first_axis], f"{name}.bias")
            return self._fused(body, (tile, *projected[1:]), f"{name}.context", bias)

        tiles = graph.loop(trips, write, f"{name}.loop")
        by_text = graph.node("Transpose", [tiles], f"{name}.by_text", perm=(1, 0, 2, 3))
        joined = graph.integers("joined", [0, -1, self._hidden])
        whole = graph.node("Reshape", [by_text, joined], f"{name}.padded")
        return _cut(graph, whole, projected[0], name)

    def _alibi(self) -> str:
        """Store the bias of texts below TILE tokens, (1, heads, TILE - 1, TILE - 1)."""
        places = np.arange(TILE - 1)
        distances = np.abs(places[:, None] - places)
        return self._graph.floats(
            "alibi.table", -alibi_slopes(self._heads)[None, :, None, None] * distances
        )

    def _alibi_of_batch(self, tensor: str) -> str:
        if "alibi" not in self._shared:
            self._shared["alibi"] = self._alibi_of(self._n_tokens(tensor), "alibi")
        return self._shared["alibi"]

    def _alibi_of_group(self, tensor: str, group: int) -> str:
        kind = f"alibi.{group}"
        if kind not in self._shared:
            n_tokens = self._graph.node("Shape", [tensor], f"{kind}.n_tokens", start=1, end=2)
            self._shared[kind] = self._alibi_of(n_tokens, kind)
        return self._shared[kind]

    def _alibi_of(self, n_tokens: str, name: str) -> str:
        graph = self._graph
        ends = graph.node("Concat", [n_tokens, n_tokens], f"{name}.ends", axis=0)
        begins, axes = graph.integers("alibi.begins", [0, 0]), graph.integers("alibi.axes", [2, 3])
        return graph.node("Slice", [self._alibi(), begins, ends, axes], f"{name}.bias")

    # --- lengths ----------------------------------------------------------------------------------

    def _n_tokens(self, tensor: str) -> str:
        """Return the length of the texts of a rectangle, int64 (1,), by any tensor (B, T, D) of it."""
        if "n_tokens" not in self._shared:
            self._shared["n_tokens"] = self._graph.node(
                "Shape", [tensor], "attention.n_tokens", start=1, end=2
            )
        return self._shared["n_tokens"]

    def _longer_than(self, tensor: str, limit: int) -> str:
        name = f"attention.longer_than.{limit}"
        if name not in self._shared:
            most = self._graph.integers(f"{name}.limit", [limit])
            read = [self._n_tokens(tensor), most]
            self._shared[name] = self._graph.node("Greater", read, name)
        return self._shared[name]

    def _n_blocks(self, tensor: str, size: int) -> str:
        """Return how many blocks of `size` tokens hold a text, int64 (1,)."""
        name = f"attention.blocks.{size}"
        if name not in self._shared:
            graph, block = self._graph, self._graph.integers(f"{name}.size", [size])
            fill = graph.integers(f"{name}.fill", [size - 1])
            more = graph.node("Add", [self._n_tokens(tensor), fill], f"{name}.more")
            self._shared[name] = graph.node("Div", [more, block], name)
        return self._shared[name]

    def _padding(self, tensor: str, size: int) -> str:
        """Return how many tokens the last block lacks, int64 (1,)."""
        name = f"attention.padding.{size}"
        if name not in self._shared:
            graph, block = (
                self._graph,
                self._graph.integers(f"attention.blocks.{size}.size", [size]),
            )
            full = graph.node("Mul", [self._n_blocks(tensor, size), block], f"{name}.full")
            read = [full, self._n_tokens(tensor)]
            self._shared[name] = graph.node("Sub", read, name)
        return self._shared[name]


def _padded(
    graph: GraphWriter, tensor: str, before: list[int], padding: str, after: list[int], name: str
) -> str:
    """Write zeros before and behind the tokens of each text; behind: `padding` and `after` of them."""
    none = graph.integers("none.padding", [0])
    front, back = graph.integers(f"{name}.front", before), graph.integers(f"{name}.back", after)
    behind = graph.node("Add", [padding, back], f"{name}.behind")
    pads = graph.node("Concat", [none, front, none, none, behind, none], f"{name}.pads", axis=0)
    return graph.node("Pad", [tensor, pads], f"{name}.filled")


def _cut(graph: GraphWriter, padded: str, like: str, name: str) -> str:
    """Write the tokens of `padded` that are not padding: as many as `like` has."""
    n_tokens = graph.node("Shape", [like], f"{name}.n_tokens", start=1, end=2)
    begin, axis = graph.integers("begin.0", [0]), graph.integers("axis_1", [1])
    return graph.node("Slice", [padded, begin, n_tokens, axis], name)


def _mask_of_blocks(
    graph: GraphWriter, tensor: str, n_tokens: str, n_blocks: str, window: int
) -> str:
    """Write 0 for a key that a query of a block sees, and minus infinity for one that it does not.

    Key k of block b is token (b - 1) * window + k.
    """
    zero, one = graph.integers("zero", 0), graph.integers("one", 1)
    count = graph.node("Reshape", [n_blocks, graph.integers("scalar", [])], "count")
    numbers = graph.node("Range", [zero, count, one], "numbers")
    starts = graph.node("Mul", [numbers, graph.integers("size", [window])], "starts")
    shape = graph.integers("starts.shape", [-1, 1, 1])
    starts = graph.node("Reshape", [starts, shape], "starts.column")
    in_block = np.arange(3 * window) - window
    tokens = graph.node("Add", [starts, graph.integers("in_block", in_block[None, None])], "tokens")
    behind_start = graph.node("GreaterOrEqual", [tokens, zero], "behind_start")
    before_end = graph.node("Less", [tokens, n_tokens], "before_end")
    exists = graph.node("And", [behind_start, before_end], "exists")
    near = np.abs(np.arange(window)[:, None] - in_block) <= window
    seen = graph.node("And", [exists, graph.constant("near", near[None])], "seen")
    nothing, never = graph.floats("nothing", 0.0), graph.floats("never", -np.inf)
    mask = graph.node("Where", [seen, nothing, never], "mask")
    # The same for every text of the batch.
    mask = graph.node("Unsqueeze", [mask, graph.integers("first_axis", [0])], "mask.of_text")
    n_texts = graph.node("Shape", [tensor], "n_texts", start=0, end=1)
    same = graph.integers("same", [1, 1, 1])
    shape = graph.node("Concat", [n_texts, same], "mask.shape", axis=0)
    mask = graph.node("Expand", [mask, shape], "mask.of_texts")
    by_block = graph.integers("mask.by_block", [-1, 1, window, 3 * window])
    return graph.node("Reshape", [mask, by_block], "mask.blocks")
