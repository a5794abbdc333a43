"""The numbers and names that the graph of a gated encoder depends on, whatever its config.json calls them.

Each family of the folder reads its own config.json into a `GatedShape`; `encoder.py` writes any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Stored(NamedTuple):
    """A linear layer in the weights: one of `parts` equal parts of the rows of a tensor."""

    name: str
    bias: bool
    part: int = 0
    parts: int = 1


class Norm(NamedTuple):
    """A layer norm in the weights."""

    name: str
    bias: bool = True


class Rotary(NamedTuple):
    """Rotary positions: each pair of channels is turned by its frequency times the place of the token.

    theta: the base of the frequencies. factor: of NTK scaling, which makes frequencies lower.
    """

    theta: float
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class LayerShape:
    """The parts of one layer.

    The feed-forward part is down(activation(gate) * up). rotary: None for ALiBi. window: how many tokens
    to each side a token attends to; None for all. attention_norm: None where the layer has none.
    query_norm, key_norm: over all heads together. second_norm: of the sum of the attention's result and
    what the layer read, again.
    """

    query: Stored
    key: Stored
    value: Stored
    output: Stored
    gate: Stored
    up: Stored
    down: Stored
    attention_norm: Norm | None
    mlp_norm: Norm
    rotary: Rotary | None = None
    window: int | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    second_norm: Norm | None = None


@dataclass(frozen=True, slots=True)
class GatedShape:
    """A whole encoder.

    norm_first: a layer norm stands before each part of a layer, not behind it. token_types: rows of that
    table, 0 where there is none. final_norm: None where the last layer ends with a norm.
    """

    vocabulary: int
    hidden: int
    heads: int
    intermediate: int
    positions: int
    layer_norm_epsilon: float
    activation: str
    norm_first: bool
    words: str
    embedding_norm: Norm
    layers: tuple[LayerShape, ...]
    token_types: int = 0
    token_type_table: str = "embeddings.token_type_embeddings.weight"
    final_norm: Norm | None = None

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor that the graph needs."""
        hidden, wide = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {self.words: (self.vocabulary, hidden)}
        if self.token_types:
            shapes[self.token_type_table] = (self.token_types, hidden)
        for layer in self.layers:
            for stored in (layer.query, layer.key, layer.value, layer.output):
                shapes |= _linear(stored, hidden, hidden)
            for stored in (layer.gate, layer.up):
                shapes |= _linear(stored, wide, hidden)
            shapes |= _linear(layer.down, hidden, wide)
        for norm in self._norms():
            shapes[f"{norm.name}.weight"] = (hidden,)
            if norm.bias:
                shapes[f"{norm.name}.bias"] = (hidden,)
        return shapes

    def _norms(self) -> Iterator[Norm]:
        yield self.embedding_norm
        for layer in self.layers:
            norms = (layer.attention_norm, layer.mlp_norm, layer.query_norm, layer.key_norm)
            yield from (norm for norm in (*norms, layer.second_norm) if norm is not None)
        if self.final_norm is not None:
            yield self.final_norm


def _linear(stored: Stored, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    rows = outputs * stored.parts
    shapes: dict[str, tuple[int, ...]] = {f"{stored.name}.weight": (rows, inputs)}
    if stored.bias:
        shapes[f"{stored.name}.bias"] = (rows,)
    return shapes
