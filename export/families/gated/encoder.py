"""Writes the serving graph of a gated encoder: token ids in, one pooled vector per text out.

A batch lies in it as `families.batches` says. The graph holds the network twice, for rectangles and for
packed batches, over the same weights. With CLS pooling only the first row of the last layer is ever read, so from
that layer's query on only that row is computed.

The same writer serves the float reference, the int8 artifact and the
one-layer graphs that calibration runs; `network.py` makes these, and `layers.py` names the linear layers.
"""

from collections.abc import Iterator

from export.families.activations import write_activation
from export.families.batches import BatchWriter
from export.families.embeddings import write_words
from export.families.gated.attention import AttentionWriter
from export.families.gated.layers import GatedLayer
from export.families.gated.shape import GatedShape, LayerShape, Norm
from export.families.instruction import write_word_ids
from export.families.linears import Linears, LinearWriter, Site
from export.graph import CONTRIB, GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors


class GatedWriter:
    """Appends a checkpoint's operators to a graph; its methods return names of activations.

    packed: for a batch of several lengths in one row.
    """

    def __init__(
        self,
        shape: GatedShape,
        settings: SentenceSettings,
        tensors: Tensors,
        linears: Linears,
        graph: GraphWriter,
        *,
        packed: bool,
    ) -> None:
        self._shape = shape
        self._settings = settings
        self._instruction_offset = settings.instruction_offset(shape.vocabulary)
        self._tensors = tensors
        self._graph = graph
        self._linear = LinearWriter(graph, linears)
        self._batch = BatchWriter(graph, packed=packed)
        self._attention = AttentionWriter(shape, settings.max_tokens, graph, self._batch)

    # --- the parts, in the order of computation ----------------------------------------------------

    def embeddings(self, *, int8: bool) -> str:
        """Write words, the type of all tokens, and their layer norm, (B, T, D)."""
        graph, shape = self._graph, self._shape
        ids = write_word_ids(graph, self._instruction_offset)
        words = write_words(
            graph, self._tensors[shape.words], "embeddings.words", int8=int8, ids=ids
        )
        if shape.token_types:
            # Every token has type 0.
            row = graph.floats("embeddings.type", self._tensors[shape.token_type_table][0])
            words = graph.node("Add", [words, row], "embeddings.sum")
        return self._norm(words, shape.embedding_norm, "embeddings.norm")

    def layer(self, hidden: str, layer: GatedLayer) -> Iterator[tuple[str, str]]:
        """Write one transformer layer, step by step.

        Yields the name of each site with its activation before that is read, and in the end the
        layer's name with its result.
        """
        graph, name, shape, linear = self._graph, layer.name, layer.shape, self._linear
        norm_first = self._shape.norm_first
        read = hidden
        if norm_first and shape.attention_norm is not None:
            read = self._norm(hidden, shape.attention_norm, f"{name}.attention.norm")
        yield layer.attention.name, read
        if layer.one_row:
            first = self._batch.first_row(read)
            yield layer.query.name, first
            context = self._attend_from_first_row(first, read, layer)
            hidden = first if read == hidden else self._batch.first_row(hidden)
        else:
            context = self._attend(read, layer)
        yield layer.context.name, context
        attended = linear.read_and_apply(context, layer.context)
        norm = None if norm_first else shape.attention_norm
        if norm is None:
            attended = graph.node("Add", [attended, hidden], f"{name}.attended")
        else:
            attended = self._norm_of_sum(attended, hidden, norm, f"{name}.attention.norm")
        if shape.second_norm is not None:
            second = f"{name}.attention.second_norm"
            attended = self._norm_of_sum(attended, hidden, shape.second_norm, second)
        read = self._norm(attended, shape.mlp_norm, f"{name}.mlp.norm") if norm_first else attended
        yield layer.mlp.name, read
        product = self._product(read, layer)
        yield layer.down.name, product
        narrow = linear.read_and_apply(product, layer.down)
        if norm_first:
            yield name, graph.node("Add", [narrow, attended], f"{name}.sum")
        else:
            yield name, self._norm_of_sum(narrow, attended, shape.mlp_norm, f"{name}.mlp.norm")

    def pool(self, hidden: str) -> str:
        """Reduce the tokens to one row a text, (B, D)."""
        norm, pooling = self._shape.final_norm, self._settings.pooling
        if norm is not None:
            hidden = self._norm(hidden, norm, "final_norm")
        if pooling == "cls":
            # The last layer left one row a text: (B, 1, D).
            return self._batch.flat_rows(hidden, self._shape.hidden)
        return self._batch.reduce(hidden, pooling, instruction_offset=self._instruction_offset)

    # --- the operators they are made of -----------------------------------------------------------

    def _attend(self, read: str, layer: GatedLayer) -> str:
        projected = self._project(read, layer.attention)
        return self._attention.attend(
            self._normed(projected, layer.shape), layer.shape, f"{layer.name}.attention.context"
        )

    def _attend_from_first_row(self, first: str, read: str, layer: GatedLayer) -> str:
        """Write what the first token of each text gathers from all of its tokens, (B, 1, D)."""
        projected = self._project(first, layer.query) + self._project(read, layer.attention)
        return self._attention.attend_from_first_row(
            self._normed(projected, layer.shape), layer.shape, f"{layer.name}.attention.context"
        )

    def _project(self, read: str, site: Site) -> list[str]:
        given = self._linear.read(read, site)
        return [self._linear.apply(given, reader, site) for reader in site.readers]

    def _normed(self, projected: list[str], shape: LayerShape) -> list[str]:
        """Write the norms of queries and keys, where there are any."""
        query, key, value = projected
        if shape.query_norm is not None:
            query = self._norm(query, shape.query_norm, f"{query}.norm")
        if shape.key_norm is not None:
            key = self._norm(key, shape.key_norm, f"{key}.norm")
        return [query, key, value]

    def _product(self, read: str, layer: GatedLayer) -> str:
        """Write activation(gate) * up, (B, T, the width between)."""
        gate, up = self._project(read, layer.mlp)
        active = write_activation(
            self._graph, self._shape.activation, gate, f"{layer.name}.activation"
        )
        return self._graph.node("Mul", [active, up], f"{layer.name}.product.float")

    def _norm(self, tensor: str, norm: Norm, name: str) -> str:
        read = [tensor, *self._parts_of(norm, name)]
        epsilon = self._shape.layer_norm_epsilon
        return self._graph.node("LayerNormalization", read, name, axis=-1, epsilon=epsilon)

    def _norm_of_sum(self, tensor: str, other: str, norm: Norm, name: str) -> str:
        """Write the norm of tensor + other, as one operator.

        ONNX Runtime would join the two by itself where it knows the shapes, that is in one layout of a batch and
        not in the other. The last bits would differ, and with int8 a text's vector beside other texts.
        """
        read = [tensor, other, *self._parts_of(norm, name)]
        epsilon = self._shape.layer_norm_epsilon
        return self._graph.node("SkipLayerNormalization", read, name, CONTRIB, epsilon=epsilon)

    def _parts_of(self, norm: Norm, name: str) -> list[str]:
        parts = ["weight", *(["bias"] if norm.bias else [])]
        return [
            self._graph.floats(f"{name}.{part}", self._tensors[f"{norm.name}.{part}"])
            for part in parts
        ]
