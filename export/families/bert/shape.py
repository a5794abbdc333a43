"""Reads the config.json of a BERT or a relative, and says which tensors its weights must have.

Relatives: RoBERTa and XLM-R count positions from behind their padding token, ERNIE adds the embedding of a
task, DistilBERT has no token types and other names for the same numbers, MPNet adds a bias by distance to the
scores of attention.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.families.activations import read_activation
from export.families.affine import affine_shapes
from export.families.bert.head import Head
from export.families.config import check_heads, n_layers
from export.families.relative_bias import Buckets, read_buckets
from export.source.json_file import Json, check_aliases, is_number, shown, size
from export.source.tensors import FloatArray, Tensors

POSITIONS, TOKEN_TYPES, TASK_TYPES = (
    f"embeddings.{name}_embeddings.weight" for name in ("position", "token_type", "task_type")
)
# Of MPNet; all layers share it.
DISTANCE_BIAS = "encoder.relative_attention_bias.weight"
# Padding's id in MPNet, whatever config.json says. A text's first token has the position behind it.
MPNET_PADDING = 1


class Keys(NamedTuple):
    """What config.json calls the numbers of a network."""

    hidden: str
    layers: str
    heads: str
    intermediate: str
    activation: str


BERT_KEYS = Keys(
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
)
DISTILBERT_KEYS = Keys("dim", "n_layers", "n_heads", "hidden_dim", "activation")


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of config.json that the graph depends on.

    positions: of the longest text. first_position: the row of the position table of a text's first token.
    token_types, task_types: rows of these tables, 0 where the network has none. head: of a network that
    scores pairs. second_text_offset: what the ids of a pair's second text come with, 0 where these have no
    type of their own. buckets: of the bias by distance, None where the network has none.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    token_types: int
    layer_norm_epsilon: float
    activation: str
    first_position: int = 0
    task_types: int = 0
    head: Head | None = None
    second_text_offset: int = 0
    buckets: Buckets | None = None

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor that the graph needs."""
        hidden, wide = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocabulary, hidden),
            POSITIONS: (self.first_position + self.positions, hidden),
            **{name: (rows, hidden) for name, rows in self._types() if rows},
            **affine_shapes("embeddings.LayerNorm", hidden),
        }
        for index in range(self.layers):
            prefix = f"encoder.layer.{index}."
            for name in ("query", "key", "value"):
                shapes |= affine_shapes(f"{prefix}attention.self.{name}", hidden, hidden)
            shapes |= affine_shapes(f"{prefix}attention.output.dense", hidden, hidden)
            shapes |= affine_shapes(f"{prefix}attention.output.LayerNorm", hidden)
            shapes |= affine_shapes(f"{prefix}intermediate.dense", wide, hidden)
            shapes |= affine_shapes(f"{prefix}output.dense", hidden, wide)
            shapes |= affine_shapes(f"{prefix}output.LayerNorm", hidden)
        if self.buckets is not None:
            shapes[DISTANCE_BIAS] = (self.buckets.number, self.heads)
        if self.head is not None:
            shapes |= self.head.tensors(hidden)
        return shapes

    def position_rows(self, tensors: Tensors) -> FloatArray:
        """Return what is added to a text's words by their place: float32 (positions, D).

        Every token has type 0 and every text task 0, so these rows are added once, here.
        """
        rows = tensors[POSITIONS][self.first_position :]
        for name, n_types in self._types():
            if n_types:
                rows = rows + tensors[name][0]
        return rows

    def _types(self) -> tuple[tuple[str, int], ...]:
        return (TOKEN_TYPES, self.token_types), (TASK_TYPES, self.task_types)


def read_bert(config: Json) -> BertShape:
    """Return the network's numbers; raises an ExportError for what the graph cannot honour."""
    return _shape(config, BERT_KEYS, token_types=size(config, "type_vocab_size", 2))


def read_roberta(config: Json) -> BertShape:
    """Return the numbers of a RoBERTa or XLM-R, whose texts begin at the position behind the padding's."""
    shape = _shape(config, BERT_KEYS, token_types=size(config, "type_vocab_size", 2))
    return _behind_padding(shape, size(config, "pad_token_id", 1, least=0))


def read_mpnet(config: Json) -> BertShape:
    """Return the numbers of an MPNet: positions as in a RoBERTa, no token types, a bias by distance."""
    shape = _shape(config, BERT_KEYS, token_types=0)
    return replace(_behind_padding(shape, MPNET_PADDING), buckets=read_buckets(config))


def _behind_padding(shape: BertShape, padding: int) -> BertShape:
    """Return the shape of a network whose texts begin at the position behind the padding's."""
    first = padding + 1
    if shape.positions <= first:
        raise ShapeMismatch(
            "max_position_embeddings {positions} leaves no position behind pad_token_id {padding}",
            positions=shape.positions,
            padding=padding,
        )
    return replace(shape, first_position=first, positions=shape.positions - first)


def read_ernie(config: Json) -> BertShape:
    """Return the numbers of an ERNIE, which may add the embedding of a task."""
    tasks = size(config, "task_type_vocab_size", 3) if config.get("use_task_id") else 0
    return replace(read_bert(config), task_types=tasks)


def read_distilbert(config: Json) -> BertShape:
    """Return the numbers of a DistilBERT."""
    check_aliases(
        config, hidden_size="dim", num_hidden_layers="n_layers", num_attention_heads="n_heads"
    )
    return _shape({"layer_norm_eps": 1e-12, **config}, DISTILBERT_KEYS, token_types=0)


def _shape(config: Json, keys: Keys, *, token_types: int) -> BertShape:
    _check_attention(config)
    shape = BertShape(
        vocabulary=size(config, "vocab_size"),
        hidden=size(config, keys.hidden),
        layers=n_layers(config, keys.layers),
        heads=size(config, keys.heads),
        intermediate=size(config, keys.intermediate),
        positions=size(config, "max_position_embeddings"),
        token_types=token_types,
        layer_norm_epsilon=_layer_norm_epsilon(config),
        activation=read_activation(config, keys.activation),
    )
    check_heads(keys.hidden, shape.hidden, shape.heads)
    return shape


def _check_attention(config: Json) -> None:
    position_type = config.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise UnsupportedModel(
            'position_embedding_type "{position_type}" is not "absolute"; try --via optimum',
            position_type=str(position_type)[:80],
        )
    if config.get("is_decoder"):
        raise UnsupportedModel(
            "is_decoder: true asks for attention to earlier tokens only; try --via optimum"
        )


def _layer_norm_epsilon(config: Json) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    # Written so that NaN, which Python reads from JSON, is refused.
    if not is_number(value) or not 0 <= value < 1:
        raise CorruptFile(
            "config.json: layer_norm_eps is {shown}, not a number from 0 to below 1",
            shown=shown(value),
        )
    return float(value)
