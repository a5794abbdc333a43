"""Writes the serving graph of a BERT encoder: token ids in, one pooled vector per text out.

A batch lies in it as `families.batches` says.
Where the attention of long texts is in int8 (`attention.py`) they stand only in rectangles. The graph
holds the network twice, for rectangles and for packed batches, over the same weights.

With CLS pooling only the first row of the last layer is ever read, so from that layer's query on
only that row is computed. One query needs no keys and values of all tokens either: its product with
a key is that of (query @ key weights) with the token, and a weighted sum of values is the weighted
sum of tokens, projected once. Both are exact; see `_attend_from_first_row`.

The same writer serves the float reference, the int8 artifact and the one-layer graphs that calibration
runs; `network.py` makes these, and `layers.py` names the linear layers.
"""

from collections.abc import Generator, Iterator, Sequence

from export.families.activations import write_activation
from export.families.affine import write_layer_norm
from export.families.batches import GROUPS, BatchWriter
from export.families.bert.attention import LONG, Scales, attend_in_int8
from export.families.bert.layers import BertLayer
from export.families.bert.shape import DISTANCE_BIAS, BertShape
from export.families.biased_attention import BiasedAttention
from export.families.embeddings import write_words
from export.families.instruction import write_word_ids
from export.families.linears import Int8Linear, Linears, LinearWriter, Site
from export.graph import CONTRIB, GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.inference.encoder import (
    GROUP_TEXTS,
    GROUP_TOKENS,
    INPUT_IDS,
    POSITION_IDS,
)


class BertWriter:
    """Appends a checkpoint's operators to a graph; its methods return names of activations.

    packed: for a batch of several lengths in one row.
    """

    def __init__(
        self,
        shape: BertShape,
        settings: SentenceSettings,
        tensors: Tensors,
        linears: Linears,
        graph: GraphWriter,
        *,
        packed: bool,
    ) -> None:
        self._shape = shape
        self._settings = settings
        self._tensors = tensors
        self._linears = linears
        self._graph = graph
        self._linear = LinearWriter(graph, linears)
        # The shapes of groups come with the width of the graph's output, which is 1 for scores.
        width = None if shape.head is None else shape.hidden
        self._batch = BatchWriter(graph, packed=packed, width=width)
        self._instruction_offset = settings.instruction_offset(shape.vocabulary)
        self._long: str | None = None
        self._biased: BiasedAttention | None = None
        if shape.buckets is not None:
            self._biased = BiasedAttention(
                graph,
                self._batch,
                tensors[DISTANCE_BIAS],
                shape.buckets,
                width=shape.hidden,
                max_tokens=settings.max_tokens,
                scale=(shape.hidden // shape.heads) ** -0.5,
            )

    # --- the parts, in the order of computation ----------------------------------------------------

    def embeddings(self, *, int8: bool) -> str:
        """Write words, positions and their layer norm, (B, T, D)."""
        graph, name = self._graph, "embeddings"
        table = self._tensors[f"{name}.word_embeddings.weight"]
        ids, kinds = self._ids_and_types()
        words = write_words(graph, table, f"{name}.words", int8=int8, ids=ids)
        if kinds is not None:
            # subtle: before the positions. After them, the last digits of a packed batch were others than
            # those of a rectangle, and what rounds them made 0.02 of that (384 wide, two layers).
            words = graph.node("Add", [words, kinds], f"{name}.typed_words")
        rows = self._shape.position_rows(self._tensors)[: self._settings.max_tokens]
        position = self._positions(graph.floats(f"{name}.positions.float", rows))
        total = graph.node("Add", [words, position], f"{name}.sum")
        return self._layer_norm(total, f"{name}.LayerNorm")

    def layer(self, hidden: str, layer: BertLayer) -> Iterator[tuple[str, str]]:
        """Write one transformer layer, step by step.

        Yields the name of each site with its activation before that is read, and in the end the
        layer's name with its result.
        """
        graph, name, linear = self._graph, layer.name, self._linear
        residual = self._batch.first_row(hidden) if layer.by_head else hidden
        yield layer.attention.name, residual
        if layer.by_head:
            context = yield from self._attend_from_first_row(residual, hidden, layer)
        else:
            context = self._attend(hidden, layer)
        yield layer.context.name, context
        attended = linear.read_and_apply(context, layer.context)
        attended = graph.node("Add", [attended, residual], f"{name}.attention.sum")
        attended = self._layer_norm(attended, f"{name}.attention.output.LayerNorm")
        yield layer.intermediate.name, attended
        wide = linear.read_and_apply(attended, layer.intermediate)
        active = write_activation(graph, self._shape.activation, wide, f"{name}.activation")
        yield layer.output.name, active
        narrow = linear.read_and_apply(active, layer.output)
        total = graph.node("Add", [narrow, attended], f"{name}.output.sum")
        yield name, self._layer_norm(total, f"{name}.output.LayerNorm")

    def pool(self, hidden: str) -> str:
        """Reduce the tokens to one row a text, (B, D)."""
        if self._settings.pooling == "cls":
            # The last layer left one row a text: (B, 1, D).
            return self._batch.flat_rows(hidden, self._shape.hidden)
        return self._batch.reduce(
            hidden, self._settings.pooling, instruction_offset=self._instruction_offset
        )

    # --- the operators they are made of -----------------------------------------------------------

    def _ids_and_types(self) -> tuple[str, str | None]:
        """Return the ids of words, (B, T), and what the type of each token adds to it, (B, T, D).

        Ids of a pair's second text come with an offset. Type 0 is in the table of positions already. A
        model of pairs has no instructions.
        """
        if not self._shape.second_text_offset:
            return write_word_ids(self._graph, self._instruction_offset), None
        graph, name = self._graph, "embeddings"
        offset = graph.integers(f"{name}.offset", self._shape.second_text_offset)
        kinds = graph.node("Div", [INPUT_IDS, offset], f"{name}.types")
        ids = graph.node("Mod", [INPUT_IDS, offset], f"{name}.ids")
        types = self._tensors[f"{name}.token_type_embeddings.weight"]
        table = graph.floats(f"{name}.types.float", types - types[0])
        return ids, graph.node("Gather", [table, kinds], f"{name}.type_rows")

    def _positions(self, table: str) -> str:
        """Choose rows of the position table: 0, 1, ... T - 1, or those that a packed batch asks for."""
        graph = self._graph
        if self._batch.packed:
            return graph.node("Gather", [table, POSITION_IDS], "embeddings.positions")
        n_tokens = graph.node("Shape", [INPUT_IDS], "embeddings.n_tokens", start=1, end=2)
        begin, axis = graph.integers("zeros", [0]), graph.integers("axis_0", [0])
        return graph.node("Slice", [table, begin, n_tokens, axis], "embeddings.positions")

    def _attend(self, hidden: str, layer: BertLayer) -> str:
        """Write attention in which each text's tokens attend to that text's."""
        graph, name, site = self._graph, f"{layer.name}.attention.context", layer.attention
        read = self._linear.read(hidden, site)
        projected = [self._linear.apply(read, reader, site) for reader in site.readers]
        if self._biased is not None:
            return self._biased.attend(projected, name)
        if not self._batch.packed:
            return self._attend_by_length(projected, site.readers, name)
        groups = [self._batch.groups(each, GROUP_TOKENS, f"{each}.groups") for each in projected]
        row = graph.integers("row", [1, -1, self._shape.hidden])
        parts = []
        for group, tensors in enumerate(zip(*groups, strict=True)):
            attended = self._fused(graph, tensors, f"{name}.{group}")
            parts.append(graph.node("Reshape", [attended, row], f"{attended}.row"))
        return graph.node("Concat", parts, name, axis=1)

    def _fused(self, graph: GraphWriter, projected: Sequence[str], name: str) -> str:
        """Write attention in float32 to `graph`, which may be a subgraph."""
        heads = self._shape.heads
        return graph.node("MultiHeadAttention", projected, name, CONTRIB, num_heads=heads)

    def _attend_by_length(self, projected: Sequence[str], readers: Sequence[str], name: str) -> str:
        """Write attention in int8 for long texts, where the linear layers have scales for it."""
        steps = [
            linear.output_scale
            for linear in (self._linears[reader] for reader in readers)
            if isinstance(linear, Int8Linear) and linear.output_scale is not None
        ]
        if not steps:
            return self._fused(self._graph, projected, name)
        scales, heads = Scales(*steps), self._shape.heads
        width = self._shape.hidden // heads
        return self._graph.branch(
            self._is_long(projected[0]),
            lambda graph: attend_in_int8(graph, projected, scales, heads, width, f"{name}.int8"),
            lambda graph: self._fused(graph, projected, f"{name}.float"),
            name,
            share_constants=False,
        )

    def _is_long(self, tensor: str) -> str:
        """Return whether the texts of a batch are long, by any tensor (B, T, D) of it."""
        if self._long is None:
            n_tokens = self._graph.node("Shape", [tensor], "attention.n_tokens", start=1, end=2)
            least = self._graph.integers("attention.long", [LONG])
            self._long = self._graph.node("GreaterOrEqual", [n_tokens, least], "attention.is_long")
        return self._long

    def _attend_from_first_row(
        self, first_row: str, hidden: str, layer: BertLayer
    ) -> Generator[tuple[str, str], None, str]:
        """Write what the one query row of each text gathers from all of its tokens, (B, 1, D).

        A score is (query @ key weights') @ token, and the gathered values are (weights @ tokens) @ value
        weights. So keys and values of the tokens are never computed, and the two products have one row
        a head and text instead of one row a token.

        Measured (2026-11-25, AVX512-VNNI, one thread, bge-small-zh-v1.5, microseconds of one layer's
        attention; in brackets with int8 keys and values of all tokens): 1x18 70 (81), 1x128 109 (407),
        4x64 188 (830), 16x16 252 (837). With float32 weights 16x16 takes 289, with one product of
        block-diagonal rows instead of one a head 461.
        """
        graph, width = self._graph, self._shape.hidden // self._shape.heads
        name = f"{layer.name}.attention"
        query = self._linear.read_and_apply(first_row, layer.attention)
        yield layer.keys.name, query
        sought = self._by_head(query, layer.keys, width, axis=2)
        found = self._gather_tokens(
            graph.node("Concat", sought, f"{name}.sought", axis=1),
            hidden,
            width**-0.5,
            f"{name}.found",
        )
        yield layer.values.name, found
        values = self._by_head(found, layer.values, 1, axis=1)
        return graph.node("Concat", values, f"{name}.context", axis=2)

    def _by_head(self, tensor: str, site: Site, size: int, axis: int) -> list[str]:
        """Apply each head's layer to its part of an activation, `size` long on an axis."""
        read, heads = self._linear.read(tensor, site), site.readers
        sizes = self._graph.integers(f"sizes_by_head.{size}", [size] * len(heads))
        parts = self._graph.split(read, sizes, len(heads), f"{site.name}.heads", axis)
        return [
            self._linear.apply(part, head, site) for part, head in zip(parts, heads, strict=True)
        ]

    def _gather_tokens(self, sought: str, hidden: str, scale: float, name: str) -> str:
        """Write the softmax-weighted sum of each text's tokens for each head: (B, heads, D) twice.

        It is attention with the heads for queries and the tokens for keys and values. Written as two
        products and a Softmax it is 0.25 % of the whole faster, but the products' last digits depend on
        the number of threads, and what quantises them makes 0.002 of that.
        """
        graph = self._graph

        def gather(sought: str, tokens: str, output: str) -> str:
            read = [sought, tokens, tokens]
            if self._biased is not None:
                read += ["", "", self._biased.of_first(tokens, output)]
            return graph.node("MultiHeadAttention", read, output, CONTRIB, num_heads=1, scale=scale)

        if not self._batch.packed:
            return gather(sought, hidden, name)
        texts = graph.split(sought, GROUP_TEXTS, GROUPS, f"{sought}.groups", axis=0)
        tokens = self._batch.groups(hidden, GROUP_TOKENS, f"{name}.tokens")
        parts = [
            gather(*pair, f"{name}.{group}")
            for group, pair in enumerate(zip(texts, tokens, strict=True))
        ]
        return graph.node("Concat", parts, name, axis=0)

    def _layer_norm(self, tensor: str, name: str) -> str:
        epsilon = self._shape.layer_norm_epsilon
        return write_layer_norm(self._graph, tensor, name, self._tensors, epsilon)
