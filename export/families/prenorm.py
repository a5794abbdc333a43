"""Layers that norm what they read and have RMS norms, as decoders and T5 encoders have: sites and operators."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from export.families.activations import write_activation
from export.families.embeddings import write_words
from export.families.family import Layer
from export.families.instruction import write_word_ids
from export.families.linears import FloatLinear, Linears, LinearWriter, Readers, RowwiseLinear, Site
from export.families.norms import write_rms_norm
from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors


@dataclass(frozen=True, slots=True)
class PreNormLayer:
    """The sites of one layer.

    norms: the names of the norms before attention and before the feed-forward part. wide: what the
    feed-forward part reads, with or without a gate. window: how many tokens a token attends to; None for all
    that the network lets it see.
    """

    name: str
    norms: tuple[str, str]
    attention: Site
    context: Site
    wide: Site
    down: Site
    window: int | None = None

    @property
    def linears(self) -> Readers:
        """The names of the linear layers."""
        return tuple(name for site in self.described().sites for name in site.readers)

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""
        return Layer((self.attention, self.context, self.wide, self.down))

    def float_linears(self, tensors: Tensors) -> dict[str, FloatLinear]:
        """Return every linear layer, as the checkpoint has it."""
        return {name: _stored(tensors, name) for name in self.linears}


def _stored(tensors: Tensors, name: str) -> FloatLinear:
    # A view, not a copy.
    weight = tensors[f"{name}.weight"].T
    bias = tensors.get(f"{name}.bias")
    return FloatLinear(weight, np.zeros(weight.shape[1], np.float32) if bias is None else bias)


class PreNormWriter(ABC):
    """Appends a checkpoint's operators to a graph; its methods return names of activations.

    words: the name of the word embeddings.
    """

    words: ClassVar[str]

    def __init__(
        self,
        settings: SentenceSettings,
        tensors: Tensors,
        linears: Linears,
        graph: GraphWriter,
        *,
        vocabulary: int,
        activation: str,
        epsilon: float,
    ) -> None:
        """Take what all such networks need; epsilon: of their norms."""
        self._pooling = settings.pooling
        self._instruction_offset = settings.instruction_offset(vocabulary)
        self._tensors = tensors
        self._graph = graph
        self._linears = linears
        self._linear = LinearWriter(graph, linears)
        self._activation = activation
        self._epsilon = epsilon

    def embeddings(self, *, int8: bool) -> str:
        """Write the words, (B, T, D)."""
        ids = write_word_ids(self._graph, self._instruction_offset)
        table = self._tensors[self.words]
        return write_words(self._graph, table, "embeddings.words", int8=int8, ids=ids)

    def layer(self, hidden: str, layer: PreNormLayer) -> Iterator[tuple[str, str]]:
        """Write one layer, step by step.

        Yields the name of each site with its activation before that is read, and in the end the
        layer's name with its result.
        """
        graph, name, linear = self._graph, layer.name, self._linear
        before_attention, before_wide = layer.norms
        read = self._norm(hidden, before_attention, layer.attention)
        yield layer.attention.name, read
        context = self._attend(self._project(read, layer.attention), layer)
        yield layer.context.name, context
        attended = linear.read_and_apply(context, layer.context)
        attended = graph.node("Add", [attended, hidden], f"{name}.attended")
        read = self._norm(attended, before_wide, layer.wide)
        yield layer.wide.name, read
        product = self._product(read, layer)
        yield layer.down.name, product
        narrow = linear.read_and_apply(product, layer.down)
        yield name, graph.node("Add", [narrow, attended], f"{name}.sum")

    @abstractmethod
    def pool(self, hidden: str) -> str:
        """Reduce the tokens to one row a text, (B, D), after the last norm."""

    @abstractmethod
    def _attend(self, projected: list[str], layer: PreNormLayer) -> str:
        """Write the attention; projected: queries, keys and values, (B, T, their width)."""

    def _project(self, read: str, site: Site) -> list[str]:
        given = self._linear.read(read, site)
        return [self._linear.apply(given, reader, site) for reader in site.readers]

    def _product(self, read: str, layer: PreNormLayer) -> str:
        """Write activation(gate) * up, or the activation alone: (B, T, the width between)."""
        first, *others = self._project(read, layer.wide)
        active = write_activation(self._graph, self._activation, first, f"{layer.name}.activation")
        if not others:
            return active
        return self._graph.node("Mul", [active, *others], f"{layer.name}.product.float")

    def _norm(self, tensor: str, name: str, site: Site | None = None) -> str:
        """Write an RMS norm; site: what it writes, divided as its readers ask."""
        factors = self._tensors[f"{name}.weight"]
        reader = None if site is None else self._linears.get(site.readers[0])
        if isinstance(reader, RowwiseLinear) and reader.smoothing is not None:
            factors = factors / reader.smoothing
        return write_rms_norm(self._graph, tensor, name, factors, self._epsilon)
