"""How a batch of texts lies in the graph of any encoder, and how its parts are found there.

A batch of texts of one length is a rectangle, (B, T). A batch of several lengths is packed: the
tokens of all its texts stand in one row after the other, (1, tokens), without padding. Everything
but attention works on single tokens and so runs on all of them at once. Attention runs once per
group of texts of equal length, without a mask, on exactly the numbers that a text alone would have:
a vector does not depend on its neighbours. There are GROUPS such places; empty ones cost little.
A rectangle needs `input_ids` only; the other inputs have defaults.
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from export.families.instruction import LOWEST, write_kept, write_weights
from export.graph import GraphWriter
from server.inference.encoder import (
    FIRST_ROWS,
    GROUP_SHAPES,
    GROUP_TEXTS,
    GROUP_TOKENS,
    INPUT_IDS,
    POSITION_IDS,
)
from server.inference.results import UNPOOLED

# Whether the batch is packed; made from the inputs once a run.
PACKED = "packed"
# The shapes of the groups in a graph whose vectors are not as wide as a token's row, and what they are made with.
ROW_SHAPES, OTHER_WIDTH = "group_shapes.rows", "group_shapes.other_width"

# Groups of equal length in one batch. Measured (2026-11-23, AVX512-VNNI, one thread), eight texts
# of 11 to 30 tokens: one by one 12.0 ms, packed in eight groups 10.4, in 16 places half empty 10.9;
# a lone text pays 0.14 of 1.45 ms for eight places without the branch and nothing with it.
GROUPS = 8

POOLING_OPERATORS = {"mean": "ReduceMean", "max": "ReduceMax"}
# Above the sizes of any batch.
ANY = 2**62


def declare_batch(graph: GraphWriter, row_width: int | None = None) -> None:
    """Declare the inputs of a whole network, and write PACKED.

    row_width: of a token's row, where it is not that of a vector, which GROUP_SHAPES comes with.
    """
    graph.input(INPUT_IDS, TensorProto.INT64, ["rows", "columns"])
    nothing = np.zeros(GROUPS, np.int64)
    graph.optional_input(POSITION_IDS, np.zeros(1, np.int64), ["columns"])
    graph.optional_input(FIRST_ROWS, np.zeros(1, np.int64), ["texts"])
    graph.optional_input(GROUP_TEXTS, nothing, [GROUPS])
    graph.optional_input(GROUP_TOKENS, nothing, [GROUPS])
    graph.optional_input(GROUP_SHAPES, np.zeros((GROUPS, 3), np.int64), [GROUPS, 3])
    first = graph.node("Gather", [GROUP_TEXTS, graph.integers("first_group", 0)], "first_texts")
    graph.node("Cast", [first], PACKED, to=TensorProto.BOOL)
    if row_width is not None:
        without = graph.integers("group_shapes.without_width", [1, 1, 0])
        texts = graph.node("Mul", [GROUP_SHAPES, without], "group_shapes.texts")
        width = graph.integers(OTHER_WIDTH, [0, 0, row_width])
        graph.node("Add", [texts, width], ROW_SHAPES)


class BatchWriter:
    """Appends what finds texts in a batch; packed: the batch has several lengths in one row.

    width: of a token's row, where GROUP_SHAPES has 1 in its place.
    """

    def __init__(self, graph: GraphWriter, *, packed: bool, width: int | None = None) -> None:
        self.packed = packed
        self._width = width
        self._graph = graph
        # The shapes of all groups, by their kind, and of each.
        self._shapes: dict[str, str] = {}

    def groups(self, tensor: str, sizes: str, name: str, *, one_column: bool = False) -> list[str]:
        """Split a packed tensor (1, tokens, D) into one (texts, T, D) for every group.

        one_column: D is 1.
        """
        if one_column:
            kind, shapes = "group_shapes.one_column", self._one_column_shapes
        else:
            kind, shapes = "group_shapes", self._group_shapes
        return self.groups_in(kind, shapes, tensor, sizes, name)

    def groups_in(
        self, kind: str, shapes: Callable[[], str], tensor: str, sizes: str, name: str
    ) -> list[str]:
        """Split a packed tensor whose rows have a width of their own.

        kind: names the shapes. shapes: writes those of all groups; called once for a kind.
        """
        graph, groups = self._graph, []
        for group, rows in enumerate(graph.split(tensor, sizes, GROUPS, name)):
            shape = f"{kind}.{group}"
            if shape not in self._shapes:
                index = graph.integers(f"group.{group}", group)
                if kind not in self._shapes:
                    self._shapes[kind] = shapes()
                read = [self._shapes[kind], index]
                self._shapes[shape] = graph.node("Gather", read, shape, axis=0)
            # subtle: a 0 in the shape of an empty place means no texts, not "as it was".
            groups.append(graph.node("Reshape", [rows, shape], f"{rows}.texts", allowzero=1))
        return groups

    def _group_shapes(self) -> str:
        """Write the shapes of the groups, with the width of a row."""
        if self._width is None:
            # Constants are shared by all parts of a graph.
            return ROW_SHAPES if self._graph.has_constant(OTHER_WIDTH) else GROUP_SHAPES
        widths = self._graph.integers("group_widths", [1, 1, self._width])
        return self._graph.node("Mul", [GROUP_SHAPES, widths], "group_shapes.wide")

    def _one_column_shapes(self) -> str:
        """Write the shapes of the groups, with rows of one number."""
        most = self._graph.integers("group_shapes.most", [ANY, ANY, 1])
        return self._graph.node("Min", [GROUP_SHAPES, most], "group_shapes.one_column")

    def first_row(self, tensor: str) -> str:
        """Take the first row of each text, (B, 1, D)."""
        graph, name = self._graph, f"{tensor}.first_row"
        if self.packed:
            rows = graph.node("Gather", [tensor, FIRST_ROWS], f"{name}.packed", axis=1)
            return graph.node("Transpose", [rows], name, perm=[1, 0, 2])
        begin, end = graph.integers("zeros", [0]), graph.integers("ones", [1])
        return graph.node("Slice", [tensor, begin, end, graph.integers("axis_1", [1])], name)

    def flat_rows(self, first_rows: str, width: int) -> str:
        """Return rows (B, 1, D), one a text, as (B, D)."""
        flat = self._graph.integers("flat", [-1, width])
        return self._graph.node("Reshape", [first_rows, flat], "first_rows.flat")

    def reduce(self, hidden: str, pooling: str, *, instruction_offset: int = 0) -> str:
        """Reduce the tokens of each text to their mean or maximum, (B, D).

        instruction_offset: what the ids of tokens come with that are left out, see `instruction`. The mean
        of no tokens is zero, as in sentence-transformers. UNPOOLED keeps every token's row: (tokens, D), one
        text after the other in either layout.
        """
        if pooling == UNPOOLED:
            return self._graph.node("Flatten", [hidden], "pool.tokens", axis=2)
        operator = POOLING_OPERATORS[pooling]
        if not instruction_offset:
            return self._reduced(hidden, operator, "pool")
        graph = self._graph
        kept = write_kept(graph, instruction_offset)
        if pooling == "max":
            read = [kept, hidden, graph.floats("pool.lowest", LOWEST)]
            return self._reduced(graph.node("Where", read, "pool.masked"), operator, "pool")
        weights = write_weights(graph, kept)
        masked = graph.node("Mul", [hidden, weights], "pool.masked")
        total = self._reduced(masked, "ReduceSum", "pool.sum")
        count = self._reduced(weights, "ReduceSum", "pool.count", one_column=True)
        # Of no tokens the sum is zero.
        least = graph.node("Max", [count, graph.floats("pool.least", 1.0)], "pool.divisor")
        return graph.node("Div", [total, least], "pool.kept")

    def _reduced(self, tensor: str, operator: str, name: str, *, one_column: bool = False) -> str:
        """Reduce the tokens of each text by an operator, (B, D); one_column: D is 1."""
        graph = self._graph
        axis, texts = graph.integers("axis_1", [1]), [tensor]
        if self.packed:
            texts = self.groups(tensor, GROUP_TOKENS, name, one_column=one_column)
        parts = [
            graph.node(operator, [group, axis], f"{name}.part.{index}", keepdims=0)
            for index, group in enumerate(texts)
        ]
        return graph.node("Concat", parts, f"{name}.parts", axis=0)
