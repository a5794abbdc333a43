"""Writes the serving graph of a decoder: token ids in, one pooled vector per text out.

A batch lies in it as `families.batches` says. Everything but attention and pooling works on single tokens, so
the network stands in the graph once, for both layouts: weights of gigabytes are prepared once when it is
loaded. The same writer serves the float reference, the int8 artifact and the one-layer graphs that
calibration runs; `network.py` makes these, and `layers.py` names the linear layers.
"""

from collections.abc import Iterator

from export.families.activations import SILU, write_activation
from export.families.batches import BatchWriter
from export.families.decoder.attention import AttentionWriter, Projected
from export.families.decoder.layers import DecoderLayer
from export.families.decoder.shape import WORDS, DecoderShape
from export.families.embeddings import write_words
from export.families.instruction import write_word_ids
from export.families.linears import Linears, LinearWriter, RowwiseLinear, Site
from export.families.norms import write_rms_norm
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.inference.encoder import FIRST_ROWS


class DecoderWriter:
    """Appends a checkpoint's operators to a graph; its methods return names of activations.

    packed: the name of what says whether the batch is packed; None where it never is.
    """

    def __init__(
        self,
        shape: DecoderShape,
        settings: SentenceSettings,
        tensors: Tensors,
        linears: Linears,
        graph: GraphWriter,
        *,
        packed: str | None,
    ) -> None:
        self._shape = shape
        self._pooling = settings.pooling
        self._instruction_offset = settings.instruction_offset(shape.vocabulary)
        self._tensors = tensors
        self._graph = graph
        self._packed = packed
        self._linears = linears
        self._linear = LinearWriter(graph, linears)
        self._attention = AttentionWriter(shape, settings.max_tokens, graph, packed)

    # --- the parts, in the order of computation ----------------------------------------------------

    def embeddings(self, *, int8: bool) -> str:
        """Write the words, (B, T, D)."""
        ids = write_word_ids(self._graph, self._instruction_offset)
        table = self._tensors[WORDS]
        return write_words(self._graph, table, "embeddings.words", int8=int8, ids=ids)

    def layer(self, hidden: str, layer: DecoderLayer) -> Iterator[tuple[str, str]]:
        """Write one layer, step by step.

        Yields the name of each site with its activation before that is read, and in the end the
        layer's name with its result.
        """
        graph, name, linear = self._graph, layer.name, self._linear
        read = self._norm(hidden, f"{name}.input_layernorm", layer.attention)
        yield layer.attention.name, read
        context = self._attend(read, layer)
        yield layer.context.name, context
        attended = linear.read_and_apply(context, layer.context)
        attended = graph.node("Add", [attended, hidden], f"{name}.attended")
        read = self._norm(attended, f"{name}.post_attention_layernorm", layer.mlp)
        yield layer.mlp.name, read
        product = self._product(read, layer)
        yield layer.down.name, product
        narrow = linear.read_and_apply(product, layer.down)
        yield name, graph.node("Add", [narrow, attended], f"{name}.sum")

    def pool(self, hidden: str) -> str:
        """Reduce the tokens to one row a text, (B, D), after the last norm."""
        graph = self._graph
        last = self._pooling == "lasttoken"
        if not last:
            hidden = self._norm(hidden, "norm")
        assert self._packed is not None
        write = _last_token if last else self._reduced
        pooled = graph.branch(
            self._packed,
            lambda inner: write(inner, hidden, packed=True),
            lambda inner: write(inner, hidden, packed=False),
            "pooled.rows",
        )
        return self._norm(pooled, "norm") if last else pooled

    # --- the operators they are made of -----------------------------------------------------------

    def _attend(self, read: str, layer: DecoderLayer) -> str:
        site = layer.attention
        given = self._linear.read(read, site)
        queries, keys, values = (self._linear.apply(given, each, site) for each in site.readers)
        if self._shape.head_norms:
            queries = self._norm_heads(queries, f"{layer.name}.self_attn.q_norm")
            keys = self._norm_heads(keys, f"{layer.name}.self_attn.k_norm")
        projected = Projected(queries, keys, values)
        return self._attention.attend(projected, layer.window, f"{layer.name}.attended.heads")

    def _product(self, read: str, layer: DecoderLayer) -> str:
        """Write silu(gate) * up, (B, T, the width between)."""
        given = self._linear.read(read, layer.mlp)
        gate, up = (self._linear.apply(given, reader, layer.mlp) for reader in layer.mlp.readers)
        active = write_activation(self._graph, SILU, gate, f"{layer.name}.activation")
        return self._graph.node("Mul", [active, up], f"{layer.name}.product.float")

    def _norm_heads(self, tensor: str, name: str) -> str:
        """Write the norm of each head's part of a row."""
        graph, width = self._graph, self._shape.head_width
        heads = graph.integers("heads", [0, -1, width])
        by_head = graph.node("Reshape", [tensor, heads], f"{name}.by_head")
        normed = self._norm(by_head, name)
        shape = graph.node("Shape", [tensor], f"{name}.shape")
        return graph.node("Reshape", [normed, shape], f"{name}.rows")

    def _norm(self, tensor: str, name: str, site: Site | None = None) -> str:
        """Write an RMS norm; site: what it writes, divided as its readers ask."""
        factors = self._tensors[f"{name}.weight"]
        reader = None if site is None else self._linears.get(site.readers[0])
        if isinstance(reader, RowwiseLinear) and reader.smoothing is not None:
            factors = factors / reader.smoothing
        return write_rms_norm(self._graph, tensor, name, factors, self._shape.epsilon)

    def _reduced(self, graph: GraphWriter, hidden: str, *, packed: bool) -> str:
        batch, offset = BatchWriter(graph, packed=packed), self._instruction_offset
        return batch.reduce(hidden, self._pooling, instruction_offset=offset)


def _last_token(graph: GraphWriter, hidden: str, *, packed: bool) -> str:
    """Write the row of each text's last token, (B, D)."""
    if not packed:
        return graph.node("Gather", [hidden, graph.integers("last", -1)], "pooled.last", axis=1)
    # A text ends where the next one begins.
    begin, end = graph.integers("ones", [1]), graph.integers("beyond", [2**62])
    next_rows = graph.node("Slice", [FIRST_ROWS, begin, end], "pooled.next_rows")
    total = graph.node("Shape", [hidden], "pooled.total", start=1, end=2)
    ends = graph.node("Concat", [next_rows, total], "pooled.ends", axis=0)
    rows = graph.node("Sub", [ends, begin], "pooled.last_rows")
    found = graph.node("Gather", [hidden, rows], "pooled.row", axis=1)
    return graph.node("Squeeze", [found, graph.integers("axis_0", [0])], "pooled.texts")
