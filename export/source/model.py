"""Finds the model that an export is asked for, and reads what an export needs of it."""

from dataclasses import dataclass
from pathlib import Path

from export import quantise
from export.checkpoint import hash_files, read_checkpoint
from export.errors import NoSuchModel
from export.families.family import Network
from export.instructions import instructions
from export.settings import Settings
from export.source.json_file import read_json, size
from export.source.sentence_settings import SentenceSettings, read_settings
from export.source.tensors import PICKLED
from export.source.tokenizer_file import read_tokenizer
from server.inference.manifest import TextRules


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model that has been read; `network` is None where optimum traces it.

    family, recipe: as the manifest states them.
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


def locate(settings: Settings) -> tuple[Path, str, str]:
    """Return checkpoint folder, model id and revision; downloads when `source` is a hub id."""
    folder = Path(settings.source)
    if folder.is_dir():
        return folder, settings.model_id or folder.resolve().name, "local"
    # A parent that exists means a mistyped path, not a hub's organisation.
    if settings.source.count("/") != 1 or settings.source[0] in "./~" or folder.parent.is_dir():
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    from export.source.hub import fetch

    name = settings.source.split("/")[1]
    target, revision = fetch(
        settings.source,
        Path("models") / name,
        revision=settings.revision,
        allow_pickle=settings.allow_pickle,
    )
    return target, settings.model_id or settings.source, revision


def read_model(folder: Path, model_id: str, revision: str, settings: Settings) -> SourceModel:
    """Read and check a model's folder; raises an ExportError that names the file at fault."""
    if settings.via == "optimum":
        return _read_for_optimum(folder, model_id, revision)
    checkpoint = read_checkpoint(folder, allow_pickle=settings.allow_pickle)
    return SourceModel(
        folder,
        model_id,
        revision,
        checkpoint.settings,
        checkpoint.tokenizer_json,
        checkpoint.sha256,
        checkpoint.family.name,
        quantise.RECIPE,
        checkpoint.network(),
    )


def _read_for_optimum(folder: Path, model_id: str, revision: str) -> SourceModel:
    from export.optimum.int8 import RECIPE

    config = read_json(folder / "config.json")
    weights = [*folder.glob("*.safetensors"), *folder.glob(PICKLED)]
    return SourceModel(
        folder,
        model_id,
        revision,
        read_settings(folder, size(config, "max_position_embeddings", 512)),
        read_tokenizer(folder),
        hash_files(folder, weights),
        "optimum",
        RECIPE,
        None,
    )
