"""The seam between the exporter and the networks it can write.

A `Family` reads config.json into a `Shape`, which knows the tensors that the weights must have, and
makes a `Network` of shape and weights. A `Network` writes graphs: the whole encoder, and the parts
that calibration runs. The quantiser, the verification and the pipeline use these and know no family by
name; `families.of` chooses one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import onnx

from export.families.linears import FloatLinear, Linears, Site
from export.source.json_file import Json
from export.source.sentence_settings import POOLINGS, SentenceSettings
from export.source.tensors import Shapes, Tensors
from server.types import Packing

# Output of a whole network, and the input of a graph of one layer.
OUTPUT, HIDDEN = "embedding", "hidden"


@dataclass(frozen=True, slots=True)
class LongAttention:
    """The attention of a layer that long texts compute in int8.

    queries, keys, values: the linear layers whose outputs are then read as 8-bit numbers, the values
    less their average. context: the site that the attention's result reaches.
    """

    queries: str
    keys: str
    values: str
    context: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a network, as the quantiser sees it.

    sites: in the order of computation. by_text: its activations have a few rows a text
    instead of one a token. attention: None where it is always computed in float32.
    """

    sites: tuple[Site, ...]
    by_text: bool = False
    attention: LongAttention | None = None


class Network(Protocol):
    """An encoder that can be written as ONNX graphs.

    Linear layers have names, the same in `float_linears`, in `layers` and as tensors of the graphs.
    """

    @property
    def dimension(self) -> int:
        """The width of a vector, D; 1 for scores."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers, in the order of computation."""

    def float_linears(self) -> Mapping[str, FloatLinear]:
        """Return every linear layer of every layer, as the checkpoint has it; see `LinearsByLayer`."""

    def packing(self, linears: Linears) -> Packing:
        """Return which texts the graph of these layers takes together."""

    def whole(self, linears: Linears, *, int8_embeddings: bool) -> onnx.ModelProto:
        """Return the whole network: a batch (see `server.inference.encoder.pack`) -> OUTPUT (B, D).

        Pooled as the settings say, with the Dense layers and normalisations behind; scores are not activated.
        """

    def embeddings(self, *, int8: bool) -> tuple[onnx.ModelProto, str]:
        """Return what stands before the first layer, and its output's name: int64 (B, T) -> (B, T, D)."""

    def layer(
        self, linears: Linears, index: int, *, until: str | None = None
    ) -> tuple[onnx.ModelProto, str]:
        """Return one layer and its output's name: HIDDEN, float32 (B, T, D), to its result.

        until: the name of a site; the output is then the activation of that site.
        """


class Shape(Protocol):
    """The numbers of config.json that a network depends on."""

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""

    @property
    def hidden(self) -> int:
        """The width of a token's row in the last layer, and of what the pooling makes of them."""

    @property
    def positions(self) -> int:
        """The length of the longest text, in tokens."""

    def tensors(self) -> Shapes:
        """Return name -> shape of every tensor that the network needs."""


ShapeKind = TypeVar("ShapeKind", bound=Shape)


@dataclass(frozen=True, slots=True)
class Scorer(Generic[ShapeKind]):
    """The shape of a network that scores pairs.

    Made of the shape without the head, and of whether the tokenizer says which tokens are the second text's.
    second_text_offset: what the ids of these tokens must come with; 0 where the network does not need it.
    pooling: which row the head reads.
    """

    shape: ShapeKind
    second_text_offset: int
    pooling: str = "cls"


@dataclass(frozen=True, slots=True)
class Answers:
    """The tokens by which a language model answers; no is None where the number of yes alone counts.

    tied: the head's table is that of the word embeddings.
    """

    yes: int
    no: int | None
    tied: bool


@dataclass(frozen=True, slots=True)
class MaskedHead:
    """The head of a masked language model, by the names of its tensors: a number for each word.

    dense, norm: what comes first. decoder: the words' rows, which are those of `words`, the embeddings, where
    both are tied. bias: its possible names, in the order in which they are looked for.
    """

    dense: str
    norm: str
    decoder: str
    bias: tuple[str, ...]
    words: str
    activation: str
    epsilon: float


@dataclass(frozen=True, slots=True)
class Family(Generic[ShapeKind]):
    """A kind of network, chosen by its config.json.

    name: as manifests state it. claims: whether a config.json is of this family. read_shape: raises
    an ExportError for what the family cannot write exactly. tensor_name: from a name in the weights'
    files to the one in `Shape.tensors`. network: the tensors given to it are those, checked.
    poolings: what its networks can write. complete: of a family whose sizes only the weights say, returns the
    whole shape and the tensors; raises an ExportError. scorer: gives a shape a head that scores pairs; None where
    no such network is written. answering: gives a language model's shape a head that scores its answer. masked_head:
    the head of a masked language model, where one is written.
    """

    name: str
    claims: Callable[[Json], bool]
    read_shape: Callable[[Json], ShapeKind]
    tensor_name: Callable[[str], str]
    network: Callable[[ShapeKind, SentenceSettings, Tensors], Network]
    poolings: tuple[str, ...] = POOLINGS
    scorer: Callable[[ShapeKind, bool], Scorer[ShapeKind]] | None = None
    masked_head: Callable[[ShapeKind], MaskedHead] | None = None
    answering: Callable[[ShapeKind, Answers], Scorer[ShapeKind]] | None = None
    complete: Callable[[ShapeKind, Tensors], tuple[ShapeKind, Tensors]] | None = None
