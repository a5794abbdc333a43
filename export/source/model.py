"""Finds the model that an export is asked for, and reads what an export needs of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export import quantise
from export.checkpoint import read_checkpoint
from export.errors import NoSuchModel, UnsupportedModel
from export.families.family import Network
from export.instructions import instructions
from export.settings import Settings
from export.source.folder import ModelFolder
from export.source.json_file import LARGEST_SIZE, size
from export.source.modules import read_modules
from export.source.sentence_settings import SentenceSettings, limited, read_settings
from export.source.tensors import PICKLED, check_plain_weights
from export.source.tokenizer_file import check_tokenizer, read_tokenizer
from server.inference.manifest import TextRules
from server.messages.message import Message


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model that has been read; `network` is None where optimum traces it.

    folder: of the network's files. family, recipe: as the manifest states them.
    """

    folder: Path
    model_id: str
    revision: str
    settings: SentenceSettings
    tokenizer_json: str
    sha256: str
    family: str
    recipe: str
    network: Network | None

    @property
    def dimension(self) -> int | None:
        """The width of a vector, where it is known without running the network."""
        return None if self.network is None else self.network.dimension

    def text_rules(self, settings: Settings) -> TextRules:
        query, document = instructions(
            self.model_id, self.settings.prompts, self.settings.default_prompt
        )
        return TextRules(
            lower_case=self.settings.lower_case,
            max_tokens=self.settings.max_tokens,
            query_instruction=_first_given(settings.query_instruction, query),
            document_instruction=_first_given(settings.document_instruction, document),
        )


def _first_given(chosen: str | None, default: str) -> str:
    return default if chosen is None else chosen


# Downloads of hub models, a folder for each: apart from the artifacts, so that no file of a hub can be
# taken for one.
DOWNLOADS = Path("models/.hub")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is.

    outputs: the folder in which its artifacts are made by default.
    """

    folder: Path
    outputs: Path
    model_id: str
    revision: str

    @property
    def downloaded(self) -> bool:
        return self.folder != self.outputs


def locate(settings: Settings, waiting: Callable[[Message], None] = lambda _: None) -> Place:
    """Return where the model is; downloads it when `source` is a hub id.

    waiting: called where another export downloads the same model, before that one is waited for.
    """
    folder = Path(settings.source)
    if folder.is_dir():
        model_id = settings.model_id or folder.resolve().name
        if not _is_utf8(model_id):
            raise UnsupportedModel(
                "the name of {folder} is not UTF-8; name the model with --model-id", folder=folder
            )
        return Place(folder, folder, model_id, "local")
    # A parent that exists means a mistyped path, not a hub's organisation.
    if settings.source.count("/") != 1 or settings.source[0] in "./~" or folder.parent.is_dir():
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    from export.source.hub import fetch

    target, revision = fetch(
        settings.source,
        DOWNLOADS / settings.source,
        revision=settings.revision,
        allow_pickle=settings.allow_pickle,
        waiting=waiting,
    )
    name = settings.source.split("/")[1]
    return Place(target, Path("models") / name, settings.model_id or settings.source, revision)


def _is_utf8(text: str) -> bool:
    """Return whether a text from the command line or the disk is more than bytes in disguise."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_model(place: Place, settings: Settings) -> SourceModel:
    """Read and check a model's folder; raises an ExportError that names the file at fault."""
    if settings.via == "optimum":
        return _read_for_optimum(place, settings)
    checkpoint = read_checkpoint(
        place.folder, allow_pickle=settings.allow_pickle, max_tokens=settings.max_tokens
    )
    return SourceModel(
        place.folder,
        place.model_id,
        place.revision,
        checkpoint.settings,
        checkpoint.tokenizer_json,
        checkpoint.sha256,
        checkpoint.family.name,
        quantise.RECIPE,
        checkpoint.network(),
    )


def _read_for_optimum(place: Place, options: Settings) -> SourceModel:
    from export.optimum.int8 import RECIPE

    files = ModelFolder(place.folder)
    modules = read_modules(files)
    config = files.json(modules.file("config.json"))
    check_plain_weights(files, modules, config)
    positions = size(config, "max_position_embeddings", 512)
    settings = limited(read_settings(files, positions), options.max_tokens)
    tokenizer_json = read_tokenizer(files, modules)
    check_tokenizer(tokenizer_json, size(config, "vocab_size", LARGEST_SIZE), settings.max_tokens)
    # What transformers may read by itself.
    for pattern in ("*.json", "*.txt", "*.model", "*.safetensors", PICKLED):
        files.note(modules.file(pattern))
    return SourceModel(
        files.path(modules.transformer),
        place.model_id,
        place.revision,
        settings,
        tokenizer_json,
        files.sha256(),
        "optimum",
        RECIPE,
        None,
    )
