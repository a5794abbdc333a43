"""Writes the serving graph of a T5 encoder: token ids in, one pooled vector per text out.

A batch lies in it as `families.batches` says. The graph holds the network twice, for rectangles and for
packed batches, over the same weights. Words have no positions: attention alone knows the distance of two tokens.

The same writer serves the float reference, the int8 artifact and the one-layer graphs that calibration
runs; `network.py` makes these, and `layers.py` names the linear layers.
"""

from collections.abc import Iterator

from export.families.activations import write_activation
from export.families.batches import BatchWriter
from export.families.biased_attention import BiasedAttention
from export.families.embeddings import write_words
from export.families.instruction import write_word_ids
from export.families.linears import Linears, LinearWriter, RowwiseLinear, Site
from export.families.norms import write_rms_norm
from export.families.t5.layers import T5Layer
from export.families.t5.shape import DISTANCE_BIAS, FINAL_NORM, WORDS, T5Shape
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors


class T5Writer:
    """Appends a checkpoint's operators to a graph; its methods return names of activations.

    packed: for a batch of several lengths in one row.
    """

    def __init__(
        self,
        shape: T5Shape,
        settings: SentenceSettings,
        tensors: Tensors,
        linears: Linears,
        graph: GraphWriter,
        *,
        packed: bool,
    ) -> None:
        self._shape = shape
        self._pooling = settings.pooling
        self._instruction_offset = settings.instruction_offset(shape.vocabulary)
        self._tensors = tensors
        self._graph = graph
        self._linears = linears
        self._linear = LinearWriter(graph, linears)
        self._batch = BatchWriter(graph, packed=packed)
        self._attention = BiasedAttention(
            graph,
            tensors[DISTANCE_BIAS],
            shape.buckets,
            width=shape.inner,
            max_tokens=settings.max_tokens,
            # Queries are trained to need none.
            scale=1.0,
            packed=packed,
        )

    # --- the parts, in the order of computation ----------------------------------------------------

    def embeddings(self, *, int8: bool) -> str:
        """Write the words, (B, T, D)."""
        ids, table = write_word_ids(self._graph, self._instruction_offset), self._tensors[WORDS]
        return write_words(self._graph, table, "embeddings.words", int8=int8, ids=ids)

    def layer(self, hidden: str, layer: T5Layer) -> Iterator[tuple[str, str]]:
        """Write one layer, step by step.

        Yields the name of each site with its activation before that is read, and in the end the
        layer's name with its result.
        """
        graph, name, linear = self._graph, layer.name, self._linear
        read = self._norm(hidden, f"{name}.layer.0.layer_norm", layer.attention)
        yield layer.attention.name, read
        projected = self._project(read, layer.attention)
        context = self._attention.attend(projected, f"{name}.attended.heads")
        yield layer.context.name, context
        attended = linear.read_and_apply(context, layer.context)
        attended = graph.node("Add", [attended, hidden], f"{name}.attended")
        read = self._norm(attended, f"{name}.layer.1.layer_norm", layer.wide)
        yield layer.wide.name, read
        product = self._product(read, layer)
        yield layer.down.name, product
        narrow = linear.read_and_apply(product, layer.down)
        yield name, graph.node("Add", [narrow, attended], f"{name}.sum")

    def pool(self, hidden: str) -> str:
        """Reduce the tokens to one row a text, (B, D), after the last norm."""
        normed, offset = self._norm(hidden, FINAL_NORM), self._instruction_offset
        return self._batch.reduce(normed, self._pooling, instruction_offset=offset)

    # --- the operators they are made of -----------------------------------------------------------

    def _project(self, read: str, site: Site) -> list[str]:
        given = self._linear.read(read, site)
        return [self._linear.apply(given, reader, site) for reader in site.readers]

    def _product(self, read: str, layer: T5Layer) -> str:
        """Write activation(gate) * up, or the activation alone: (B, T, the width between)."""
        first, *others = self._project(read, layer.wide)
        name = f"{layer.name}.activation"
        active = write_activation(self._graph, self._shape.activation, first, name)
        if not others:
            return active
        return self._graph.node("Mul", [active, *others], f"{layer.name}.product.float")

    def _norm(self, tensor: str, name: str, site: Site | None = None) -> str:
        """Write an RMS norm; site: what it writes, divided as its readers ask."""
        factors = self._tensors[f"{name}.weight"]
        reader = None if site is None else self._linears.get(site.readers[0])
        if isinstance(reader, RowwiseLinear) and reader.smoothing is not None:
            factors = factors / reader.smoothing
        return write_rms_norm(self._graph, tensor, name, factors, self._shape.epsilon)
