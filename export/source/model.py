"""Finds the model that an export is asked for, and reads what an export needs of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import NoSuchModel, UnsupportedModel
from export.families.family import Network
from export.instructions import Instructions, instructions, pooled_as_published
from export.kinds import check_kind
from export.kinds.own_code import check_code
from export.kinds.sighting import CONFIG, see
from export.known.recognition import Clues, Sizes, known_sizes, recognise
from export.outline import Outline, read_outline
from export.quantisation import quantise, rowwise
from export.scorers import check_prompt_fits
from export.settings import Settings
from export.source.archive import SUFFIXES, archive_name, is_archive, unpack
from export.source.card import read_card
from export.source.folder import ModelFolder
from export.source.gguf.folder import GgufFolder, is_gguf, open_model
from export.source.hubs.address import hub_address, is_hub_address
from export.source.json_file import LARGEST_SIZE, size
from export.source.modules import Modules, read_modules
from export.source.scoring import Scoring
from export.source.sentence_settings import SentenceSettings, limited, read_settings
from export.source.tensors import PICKLED, check_plain_weights
from export.source.tokenizer_file import check_tokenizer, read_tokenizer
from server.inference.manifest import TextRules
from server.inference.results import DENSE, ResultForm
from server.messages.message import Message
from server.types import Task


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model that has been read; `network` is None where optimum traces it.

    folder: of the network's files. family, recipe: as the manifest states them. clues: what shows which
    published model it is. notes: what an export leaves out. scoring: of a cross-encoder. instruction_offset: see
    the manifest. task: what the model gives. form: how the graph's rows become results. words: of the vocabulary.
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
    clues: Clues
    notes: tuple[Message, ...] = ()
    scoring: Scoring | None = None
    instruction_offset: int = 0
    task: Task = "dense"
    form: ResultForm = DENSE
    words: int = 0

    @property
    def dimension(self) -> int | None:
        """The width of a vector, where it is known without running the network."""
        return None if self.network is None else self.network.dimension

    def instructions(self, settings: Settings) -> Instructions:
        """Return the instructions that the artifact gets, and where they come from."""
        if self.scoring is not None:
            return self._pair_instruction(self.scoring, settings)
        found = instructions(self.clues, self.settings.prompts, self.settings.default_prompt)
        return found.with_chosen(settings.query_instruction, settings.document_instruction)

    def sizes(self, settings: Settings) -> Sizes:
        """Return the shorter sizes that the artifact gets, and where they come from."""
        if self.task != "dense":
            if settings.matryoshka:
                raise UnsupportedModel(
                    "--matryoshka shortens dense vectors, and this is an export of the task {task}; leave it out",
                    task=self.task,
                )
            return Sizes((), Message("none"))
        if settings.matryoshka is not None:
            return Sizes(settings.matryoshka, Message("the command line"))
        return known_sizes(self.clues, recognise(self.clues), self.dimension)

    def text_rules(self, settings: Settings) -> TextRules:
        if self.scoring is not None:
            return self._pair_rules(self.scoring, settings)
        chosen = self.instructions(settings)
        return TextRules(
            lower_case=self.settings.lower_case,
            max_tokens=self.settings.max_tokens,
            query_instruction=chosen.query,
            document_instruction=chosen.document,
            strip=self.settings.strip,
            max_characters=self.settings.max_characters,
            dropped_token=self.settings.dropped_token,
            instruction_offset=self.instruction_offset,
        )

    def _pair_instruction(self, scoring: Scoring, settings: Settings) -> Instructions:
        """Return the instruction in the prompt of pairs, as that of queries."""
        if scoring.pair_prompt is None:
            return Instructions("", "", Message("none"))
        source = Message("the prompt of the model's own code")
        found = Instructions(scoring.pair_prompt.instruction, "", source)
        return found.with_chosen(settings.query_instruction, None)

    def _pair_rules(self, scoring: Scoring, settings: Settings) -> TextRules:
        prompt = scoring.pair_prompt
        if settings.document_instruction or (settings.query_instruction and prompt is None):
            raise UnsupportedModel(
                "{model_id} scores pairs of texts, which take no instruction; leave out --query-instruction "
                "and --document-instruction",
                model_id=self.model_id,
            )
        if prompt is not None:
            chosen = self._pair_instruction(scoring, settings)
            prompt = msgspec.structs.replace(prompt, instruction=chosen.query)
        return TextRules(
            lower_case=self.settings.lower_case,
            max_tokens=self.settings.max_tokens,
            second_text_offset=scoring.second_text_offset,
            pair_prompt=prompt,
        )


# Models of hubs and archives, a folder for each: apart from the artifacts, so that no file of theirs can
# be taken for one.
DOWNLOADS = Path("models/.hub")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is.

    outputs: the folder in which its artifacts are made by default. origin: the id on the hub, which shows
    what model it is; empty for a folder.
    """

    folder: Path
    outputs: Path
    model_id: str
    revision: str
    origin: str = ""

    @property
    def downloaded(self) -> bool:
        return self.folder != self.outputs


def locate(settings: Settings, inform: Callable[[Message], None] = lambda _: None) -> Place:
    """Return where the model is; downloads it from a hub or unpacks it if `source` says so.

    inform: called with what happens during a download, and where another export is waited for.
    """
    folder = Path(settings.source)
    if folder.is_dir():
        model_id = settings.model_id or folder.resolve().name
        if not _is_utf8(model_id):
            raise UnsupportedModel(
                "the name of {folder} is not UTF-8; name the model with --model-id", folder=folder
            )
        return Place(folder, folder, model_id, "local")
    if is_archive(settings.source) and not is_hub_address(settings.source):
        return _unpacked(folder, settings, inform)
    if is_gguf(folder):
        return _gguf(folder, settings)
    if folder.is_file():
        raise UnsupportedModel(
            "{path} is a file; an export reads folders, GGUF files and archives: {suffixes}",
            path=folder,
            suffixes=SUFFIXES,
        )
    if not is_hub_model(settings.source):
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    from export.source.hubs.hub import fetch

    address = hub_address(settings.source, settings.revision)
    target, revision = fetch(
        settings.source,
        DOWNLOADS / address.name,
        revision=settings.revision,
        allow_pickle=settings.allow_pickle,
        progress=lambda file: inform(Message("downloading {file}", file=file)),
        waiting=inform,
        examine=lambda files: examine(files, settings),
        pair_prompt=settings.pair_prompt,
        task=settings.task,
    )
    name = address.model_id.split("/")[1]
    model_id = settings.model_id or address.model_id
    return Place(target, Path("models") / name, model_id, revision, address.model_id)


def _unpacked(archive: Path, settings: Settings, inform: Callable[[Message], None]) -> Place:
    """Return where the model of an archive is, which is unpacked there."""
    name = archive_name(archive)
    if name in ("", ".", "..") or not _is_utf8(name):
        raise UnsupportedModel(
            "the name of {folder} is not UTF-8, or no name; rename the archive", folder=archive
        )
    folder = unpack(archive, DOWNLOADS, inform)
    return Place(folder, Path("models") / name, settings.model_id or name, "local")


def _gguf(file: Path, settings: Settings) -> Place:
    """Return where the artifacts of a GGUF file are made."""
    if not _is_utf8(file.stem):
        raise UnsupportedModel(
            "the name of {folder} is not UTF-8; name the model with --model-id", folder=file
        )
    return Place(file, Path("models") / file.stem, settings.model_id or file.stem, "local")


def is_hub_model(source: str) -> bool:
    """Return whether `source` names a model on a hub and not a folder, be there one or not."""
    if is_hub_address(source):
        return True
    folder = Path(source)
    # A parent that exists means a mistyped path, not a hub's organisation.
    return not (
        folder.is_dir()
        or is_archive(source)
        or source.count("/") != 1
        or source[0] in "./~"
        or folder.parent.is_dir()
    )


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
        place.folder,
        allow_pickle=settings.allow_pickle,
        max_tokens=settings.max_tokens,
        task=settings.task,
        pair_prompt=settings.pair_prompt,
        tokenizer=settings.tokenizer,
    )
    clues = Clues(
        place.origin or place.model_id, checkpoint.outline.config, checkpoint.outline.card
    )
    checkpoint = checkpoint.with_settings(pooled_as_published(checkpoint.settings, clues))
    network = checkpoint.network()
    return SourceModel(
        folder=place.folder,
        model_id=place.model_id,
        revision=place.revision,
        settings=_stated(checkpoint),
        tokenizer_json=checkpoint.tokenizer_json,
        sha256=checkpoint.sha256,
        family=checkpoint.family.name,
        recipe=rowwise.RECIPE if rowwise.fits(network) else quantise.RECIPE,
        network=network,
        clues=clues,
        notes=(*checkpoint.outline.kind.notes, *checkpoint.settings.notes),
        scoring=checkpoint.scoring,
        instruction_offset=checkpoint.settings.instruction_offset(checkpoint.shape.vocabulary),
        task=checkpoint.outline.task,
        form=checkpoint.outline.form,
        words=checkpoint.shape.vocabulary,
    )


def _stated(checkpoint: Checkpoint) -> SentenceSettings:
    """Return the settings as the manifest states them: SPLADE pools after the network."""
    splade = checkpoint.outline.splade
    if splade is None:
        return checkpoint.settings
    return replace(checkpoint.settings, pooling=splade.pooling)


def examine(files: ModelFolder, settings: Settings) -> Outline | None:
    """Judge a model by everything but its weights; raises an ExportError for what is refused.

    Returns its outline, None where optimum traces it.
    """
    if settings.via == "optimum":
        _outline_for_optimum(files, settings)
        return None
    return read_outline(files, settings.max_tokens, settings.pair_prompt, settings.task)


def _outline_for_optimum(
    files: ModelFolder, options: Settings
) -> tuple[Modules, SentenceSettings, str, tuple[Message, ...]]:
    """Return modules, settings, the tokenizer's JSON and notes of a model that optimum traces."""
    from export.optimum.contract import POOLINGS
    from export.optimum.positions import positions_of

    if isinstance(files, GgufFolder):
        raise UnsupportedModel("--via optimum reads no GGUF file; leave --via out")
    kind = check_kind(see(files), options.task)
    if kind.task == "score":
        raise UnsupportedModel(
            "--via optimum exports models of vectors; this is a cross-encoder, which scores pairs of texts"
        )
    if kind.task != "dense":
        raise UnsupportedModel(
            "--via optimum exports models of one vector a text, not of the task {task}; leave out --via",
            task=kind.task or "",
        )
    modules = read_modules(files)
    config = files.json(modules.file(CONFIG))
    check_plain_weights(config)
    check_code(config, None)
    check_prompt_fits(options.pair_prompt, str(config.get("model_type"))[:80], fits=False)
    settings = read_settings(files, modules, positions_of(config), POOLINGS)
    settings = limited(settings, options.max_tokens)
    if settings.tail:
        raise UnsupportedModel(
            "--via optimum writes no Dense layers, and modules.json lists some; they are written with "
            "networks that are exported directly"
        )
    _check_prompt_is_pooled(settings)
    tokenizer_json = read_tokenizer(files, modules)
    check_tokenizer(tokenizer_json, size(config, "vocab_size", LARGEST_SIZE), settings.max_tokens)
    return modules, settings, tokenizer_json, (*kind.notes, *settings.notes)


def _read_for_optimum(place: Place, options: Settings) -> SourceModel:
    from export.optimum.int8 import RECIPE

    files = open_model(place.folder, options.tokenizer)
    modules, settings, tokenizer_json, notes = _outline_for_optimum(files, options)
    clues = Clues(
        place.origin or place.model_id, files.json(modules.file(CONFIG)), read_card(files)
    )
    settings = pooled_as_published(settings, clues)
    _check_prompt_is_pooled(settings)
    # What transformers may read by itself.
    for pattern in ("*.json", "*.txt", "*.model", "*.safetensors", PICKLED):
        files.note(modules.file(pattern))
    return SourceModel(
        folder=files.path(modules.transformer),
        model_id=place.model_id,
        revision=place.revision,
        settings=settings,
        tokenizer_json=tokenizer_json,
        sha256=files.sha256(),
        family="optimum",
        recipe=RECIPE,
        network=None,
        clues=clues,
        notes=(*notes, *settings.doubts),
    )


def _check_prompt_is_pooled(settings: SentenceSettings) -> None:
    if not settings.include_prompt:
        raise UnsupportedModel(
            "--via optimum does not write pooling that leaves the prompt out (include_prompt: false)"
        )
