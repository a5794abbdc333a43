"""Reads everything of a checkpoint but its weights, and refuses what cannot be honoured exactly.

So a model is judged before its weights are downloaded or read. `checkpoint` reads the weights.
"""

from dataclasses import dataclass
from typing import Any

from export import families
from export.errors import UnsupportedModel
from export.families.family import Family, Shape
from export.kinds import check_kind
from export.kinds.kind import Kind
from export.kinds.own_code import check_code
from export.kinds.sighting import CONFIG, see
from export.source.folder import ModelFolder
from export.source.json_file import Json
from export.source.modules import Modules, read_modules
from export.source.scoring import (
    Scoring,
    has_token_types,
    read_activation,
    read_pair_settings,
)
from export.source.sentence_settings import SentenceSettings, limited, read_settings
from export.source.tail import tail_tensors, tail_width
from export.source.tensors import Shapes, check_plain_weights
from export.source.tokenizer_file import check_pairs, check_tokenizer, read_tokenizer
from server.types import Task

# What can be exported.
TASKS: tuple[Task, ...] = ("dense", "score")
CARD = "README.md"
# The cards with the results of MTEB have some 300 KB.
MOST_CARD = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outline:
    """A checkpoint without its weights.

    tokenizer_json: the tokenizer as transformers would build it, without truncation and padding. card:
    README.md, empty where there is none. scoring: of a cross-encoder, None for a model of vectors.
    """

    kind: Kind
    modules: Modules
    config: Json
    family: Family[Any]
    shape: Shape
    settings: SentenceSettings
    tokenizer_json: str
    card: str
    scoring: Scoring | None = None

    @property
    def dimension(self) -> int:
        """The width of a vector; 1 for scores."""
        return 1 if self.scoring is not None else tail_width(self.settings.tail, self.shape.hidden)

    def tensors(self) -> Shapes:
        """Return name -> shape of every tensor that the weights must have."""
        return {**self.shape.tensors(), **tail_tensors(self.settings.tail)}


def read_outline(files: ModelFolder, max_tokens: int | None = None) -> Outline:
    """Read and check a model of a family; raises an ExportError that names the cause.

    max_tokens: what texts are cut to, where that is less than the model reads.
    """
    kind = check_kind(see(files))
    modules = read_modules(files)
    config = files.json(modules.file(CONFIG))
    check_plain_weights(config)
    family = families.of(config)
    check_code(config, family.name)
    shape = family.read_shape(config)
    scoring = None
    if kind.task == "score":
        check_code(config, family.name, "AutoModelForSequenceClassification")
        settings = read_pair_settings(files, shape.positions)
        shape, scoring = _with_head(family, shape, files, config)
    else:
        settings = read_settings(files, shape.positions, family.poolings)
        tail_width(settings.tail, shape.hidden)
    settings = limited(settings, max_tokens)
    tokenizer_json = read_tokenizer(files, modules)
    check_tokenizer(tokenizer_json, shape.vocabulary, settings.max_tokens)
    if scoring is not None:
        check_pairs(tokenizer_json, settings.max_tokens)
    card = read_card(files)
    return Outline(kind, modules, config, family, shape, settings, tokenizer_json, card, scoring)


def _with_head(
    family: Family[Any], shape: Shape, files: ModelFolder, config: Json
) -> tuple[Shape, Scoring]:
    activation = read_activation(config)
    if family.scorer is None:
        raise UnsupportedModel(
            "cross-encoders of the family {family} are not written", family=family.name
        )
    scorer = family.scorer(shape, has_token_types(files, config))
    return scorer.shape, Scoring(activation, scorer.second_text_offset)


def read_card(files: ModelFolder) -> str:
    """Return the text of README.md; empty where there is none, or one that is too long to be a card."""
    path = files.path(CARD)
    if not files.has(CARD) or not path.is_file() or path.stat().st_size > MOST_CARD:
        return ""
    return files.content(CARD, MOST_CARD).decode("utf-8", "replace")
