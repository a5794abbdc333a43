"""Writes the serving graph of a decoder: token ids in, one pooled vector per text out.

A batch lies in it as `families.batches` says. Everything but attention and pooling works on single tokens, so
the network stands in the graph once, for both layouts: weights of gigabytes are prepared once when it is
loaded. The same writer serves the float reference, the int8 artifact and the one-layer graphs that
calibration runs; `network.py` makes these, and `layers.py` names the linear layers.
"""

from export.families.activations import SILU
from export.families.batches import BatchWriter
from export.families.decoder.attention import AttentionWriter, Projected
from export.families.decoder.shape import WORDS, DecoderShape
from export.families.linears import Linears
from export.families.prenorm import PreNormLayer, PreNormWriter
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from server.inference.encoder import FIRST_ROWS


class DecoderWriter(PreNormWriter):
    """Writes a decoder; packed: the name of what says whether the batch is packed, None where it never is."""

    words = WORDS

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
        super().__init__(
            settings,
            tensors,
            linears,
            graph,
            vocabulary=shape.vocabulary,
            activation=SILU,
            epsilon=shape.epsilon,
        )
        self._shape = shape
        self._packed = packed
        self._attention = AttentionWriter(shape, settings.max_tokens, graph, packed)

    def pool(self, hidden: str) -> str:
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

    def _attend(self, projected: list[str], layer: PreNormLayer) -> str:
        queries, keys, values = projected
        if self._shape.head_norms:
            queries = self._norm_heads(queries, f"{layer.name}.self_attn.q_norm")
            keys = self._norm_heads(keys, f"{layer.name}.self_attn.k_norm")
        given = Projected(queries, keys, values)
        return self._attention.attend(given, layer.window, f"{layer.name}.attended.heads")

    def _norm_heads(self, tensor: str, name: str) -> str:
        """Write the norm of each head's part of a row."""
        graph, width = self._graph, self._shape.head_width
        heads = graph.integers("heads", [0, -1, width])
        by_head = graph.node("Reshape", [tensor, heads], f"{name}.by_head")
        normed = self._norm(by_head, name)
        shape = graph.node("Shape", [tensor], f"{name}.shape")
        return graph.node("Reshape", [normed, shape], f"{name}.rows")

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
