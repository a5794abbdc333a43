"""Reads everything of a checkpoint but its weights, and refuses what cannot be honoured exactly.

So a model is judged before its weights are downloaded or read. `checkpoint` reads the weights.
"""

from dataclasses import dataclass
from typing import Any

from export import families
from export.families.family import Family, Shape
from export.kinds import check_kind
from export.kinds.kind import Kind
from export.kinds.own_code import check_code
from export.kinds.sighting import CONFIG, see
from export.scorers import check_prompt_fits, read_pair_model
from export.source.card import read_card
from export.source.folder import ModelFolder
from export.source.json_file import Json
from export.source.modules import ORDERS, SCORE_ORDERS, Modules, read_modules
from export.source.scoring import Scoring
from export.source.sentence_settings import SentenceSettings, limited, read_settings
from export.source.tensors import check_plain_weights
from export.source.tokenizer_file import check_tokenizer, read_tokenizer
from server.types import Task

# What can be exported.
TASKS: tuple[Task, ...] = ("dense", "score")


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


def read_outline(
    files: ModelFolder, max_tokens: int | None = None, pair_prompt: str | None = None
) -> Outline:
    """Read and check a model of a family; raises an ExportError that names the cause.

    max_tokens: what texts are cut to, where that is less than the model reads. pair_prompt: the name of the
    prompt in which it reads pairs; None where the files decide.
    """
    seen = see(files, pair_prompt)
    kind = check_kind(seen)
    scores = kind.task == "score"
    modules = read_modules(files, SCORE_ORDERS if scores else ORDERS)
    config = files.json(modules.file(CONFIG))
    check_plain_weights(config)
    family = families.of(config)
    check_code(config, family.name)
    shape = family.read_shape(config)
    check_prompt_fits(pair_prompt, family, scores=scores)
    tokenizer_json, scoring = read_tokenizer(files, modules), None
    if scores:
        shape, settings, scoring = read_pair_model(
            files, seen, modules, family, shape, tokenizer_json, max_tokens
        )
    else:
        settings = limited(read_settings(files, shape.positions, family.poolings), max_tokens)
    check_tokenizer(tokenizer_json, shape.vocabulary, settings.max_tokens)
    card = read_card(files)
    return Outline(kind, modules, config, family, shape, settings, tokenizer_json, card, scoring)
