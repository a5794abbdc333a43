"""Reads everything of a checkpoint but its weights, and refuses what cannot be honoured exactly.

So a model is judged before its weights are downloaded or read. `checkpoint` reads the weights.
"""

from dataclasses import dataclass, replace
from typing import Any

from export import families
from export.errors import UnsupportedModel
from export.families.family import Family, Shape
from export.families.static.family import STATIC
from export.families.static.shape import read_shape
from export.kinds import check_kind, has_head
from export.kinds.kind import Kind
from export.kinds.networks import is_static
from export.kinds.own_code import check_code
from export.kinds.sighting import CONFIG, see
from export.scorers import check_prompt_fits, read_pair_model
from export.source.card import read_card, split_card
from export.source.folder import ModelFolder
from export.source.heads import COLBERT_HEAD, HEADS, Splade, read_splade
from export.source.json_file import Json
from export.source.modules import Modules, read_modules
from export.source.scoring import Scoring
from export.source.sentence_settings import SentenceSettings, limited, read_settings
from export.source.static_folder import read_static
from export.source.tail import tail_tensors, tail_width
from export.source.tensors import Shapes, check_plain_weights
from export.source.tokenizer_file import check_tokenizer, read_tokenizer
from server.inference.results import UNPOOLED, ResultForm
from server.messages.message import Message
from server.types import Task

# What can be exported.
TASKS: tuple[Task, ...] = ("dense", "score", "token_vectors", "sparse")


@dataclass(frozen=True, slots=True)
class Outline:
    """A checkpoint without its weights.

    tokenizer_json: the tokenizer as transformers would build it, without truncation and padding. card:
    README.md, empty where there is none. scoring: of a cross-encoder, None for a model of vectors. stored_head: the
    name of a head in a file of its own, which the network ends with. splade: how a masked language model's words get
    weights.
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
    stored_head: str | None = None
    splade: Splade | None = None

    @property
    def task(self) -> Task:
        """What an export gives for a text."""
        return self.kind.task or "dense"

    @property
    def form(self) -> ResultForm:
        """How the rows of the graph become results; with a ColBERT head the first token has no vector."""
        by_token = self.settings.pooling == UNPOOLED and self.splade is None
        return ResultForm(self.task, by_token, 1 if self.stored_head == COLBERT_HEAD else 0)

    @property
    def dimension(self) -> int:
        """The width of a vector; 1 for scores, the number of words for sparse weights."""
        if self.task == "sparse":
            return self.shape.vocabulary
        return 1 if self.scoring is not None else tail_width(self.settings.tail, self.shape.hidden)

    def with_settings(self, settings: SentenceSettings) -> "Outline":
        """Return the outline with other settings of text and pooling."""
        return replace(self, settings=settings)

    def tensors(self) -> Shapes:
        """Return name -> shape of every tensor that the weights must have."""
        return {**self.shape.tensors(), **tail_tensors(self.settings.tail)}


def read_outline(
    files: ModelFolder,
    max_tokens: int | None = None,
    pair_prompt: str | None = None,
    task: Task | None = None,
) -> Outline:
    """Read and check a model of a family; raises an ExportError that names the cause.

    max_tokens: what texts are cut to, where that is less than the model reads. pair_prompt: the name of the
    prompt in which it reads pairs; None where the files decide. task: what is asked of the model, None for
    what it was made for.
    """
    seen = see(files, pair_prompt)
    kind = check_kind(seen, task)
    kind = replace(kind, notes=(*kind.notes, *files.notes(kind.task or "dense")))
    if is_static(seen):
        check_prompt_fits(pair_prompt, STATIC.name, fits=False)
        return _read_static(files, kind, max_tokens)
    scores = kind.task == "score"
    modules = read_modules(files, scores=scores)
    config = files.json(modules.file(CONFIG))
    check_plain_weights(config)
    family = families.of(config)
    check_code(config, family.name)
    shape = family.read_shape(config)
    check_prompt_fits(pair_prompt, family.name, fits=scores and family.answering is not None)
    tokenizer_json, scoring = read_tokenizer(files, modules), None
    files.check_tokens(tokenizer_json)
    if scores:
        shape, settings, scoring = read_pair_model(
            files, seen, modules, family, shape, tokenizer_json, max_tokens
        )
    else:
        unpooled = kind.task in ("token_vectors", "sparse")
        settings = read_settings(
            files, modules, shape.positions, family.poolings, unpooled=unpooled
        )
        tail_width(settings.tail, shape.hidden)
        settings = limited(settings, max_tokens)
    check_tokenizer(tokenizer_json, shape.vocabulary, settings.max_tokens)
    card = read_card(files)
    head = HEADS.get(kind.task or "dense")
    if head is not None and not has_head(seen, head):
        head = None
    splade = None
    if kind.task == "sparse" and head is None:
        splade = read_splade(files, modules)
        if family.masked_head is None:
            raise UnsupportedModel(
                "SPLADE models of the family {family} are not written", family=family.name
            )
    return Outline(
        kind=kind,
        modules=modules,
        config=config,
        family=family,
        shape=shape,
        settings=settings,
        tokenizer_json=tokenizer_json,
        card=card,
        scoring=scoring,
        stored_head=head,
        splade=splade,
    )


def _read_static(files: ModelFolder, kind: Kind, max_tokens: int | None) -> Outline:
    """Read static embeddings, as model2vec where config.json is its own, else as sentence-transformers."""
    modules = read_modules(files)
    config = files.optional_json(modules.file(CONFIG))
    own = config if STATIC.claims(config) else {}
    text = read_static(files, modules, own, max_tokens)
    shape = read_shape(own, text.vocabulary, text.settings.max_tokens)
    check_tokenizer(text.tokenizer_json, text.vocabulary, text.settings.max_tokens)
    if text.endless:
        cut = Message(
            "the library reads texts of any length with this model, the artifact cuts them to {tokens:,} tokens "
            "(see --max-tokens)",
            tokens=text.settings.max_tokens,
        )
        kind = replace(kind, notes=(*kind.notes, cut))
    # The head of a card names the model that the table was made from, whose instructions mean nothing here.
    body = split_card(read_card(files))[1]
    return Outline(kind, modules, own, STATIC, shape, text.settings, text.tokenizer_json, body)
