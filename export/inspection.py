"""The command `inspect`: what a model is, and what its export would do, without converting anything."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export import estimate
from export.arguments import (
    add_model,
    add_pair_prompt,
    add_revision,
    add_task,
    add_tokenizer,
    add_via,
)
from export.errors import ExportError
from export.families.static.family import STATIC
from export.instructions import instructions, pooled_as_published
from export.kinds import kind_of
from export.kinds.sighting import Sighting, see
from export.known.recognition import HIDDEN, LAYERS, Clues, known_sizes, number, recognise
from export.outline import Outline
from export.settings import Settings
from export.source.folder import ModelFolder
from export.source.gguf.folder import open_model
from export.source.hubs.address import hub_address
from export.source.model import examine, is_hub_model, locate
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.system.cpu import cpu_budget
from server.types import Task

# What an export of these tasks gives, which the kind of a model does not say.
GIVES: dict[Task, Message] = {
    "sparse": Message("sparse weights"),
    "token_vectors": Message("one vector per token"),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to inspect: its files, what shows its name, and the bytes of its weights."""

    files: ModelFolder
    name: str
    weight_bytes: int


def run(terminal: Terminal, arguments: Sequence[str]) -> int:
    """Inspect a model and return the exit status: 0 for one that can be exported, 1 for another."""
    settings = _settings(terminal, arguments)
    try:
        with subject(settings) as found:
            return inspect(found, settings, terminal)
    except ExportError as error:
        terminal.inform("error: {error}", error=error)
        return 1


def _settings(terminal: Terminal, arguments: Sequence[str]) -> Settings:
    words = terminal.words
    parser = terminal.parser(
        "python -m export inspect",
        words("Say what a model is and what its export would do, without converting anything."),
    )
    add_model(parser, terminal)
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default="int8",
        help=words("precision of the weights (default: int8)"),
    )
    add_task(parser, terminal)
    add_pair_prompt(parser, terminal)
    add_tokenizer(parser, terminal)
    add_via(parser, terminal)
    add_revision(parser, terminal)
    chosen = parser.parse_args(arguments)
    return Settings(
        chosen.model,
        precision=chosen.precision,
        task=chosen.task,
        pair_prompt=chosen.pair_prompt,
        via=chosen.via,
        revision=chosen.revision,
        tokenizer=chosen.tokenizer,
    )


@contextmanager
def subject(settings: Settings) -> Iterator[Subject]:
    """Yield the model that the settings name; of a hub's only the settings come, for as long as this lasts."""
    if not is_hub_model(settings.source):
        place = locate(settings)
        files = open_model(place.folder, settings.tokenizer)
        weights = [place.folder]
        if place.folder.is_dir():
            names = [name for name in files.names() if name.endswith(".safetensors")]
            weights = [place.folder / name for name in names]
        yield Subject(files, place.model_id, sum(path.stat().st_size for path in weights))
        return
    from export.source.hubs.hub import look

    address = hub_address(settings.source, settings.revision)
    with tempfile.TemporaryDirectory(prefix="inspect-") as scratch:
        collected, weight_bytes = look(address, Path(scratch))
        yield Subject(collected, address.model_id, weight_bytes)


def inspect(found: Subject, settings: Settings, terminal: Terminal) -> int:
    """Print what the model is and what an export would do; returns the exit status."""
    sighting = see(found.files, settings.pair_prompt)
    kind = kind_of(sighting)
    terminal.say("model: {place}", place=found.files.place)
    terminal.say("kind: {kind}", kind=kind.name)
    outline, refusal = judge(found.files, settings)
    for line in _network(sighting, outline, found.weight_bytes):
        terminal.say(line)
    notes = kind.notes
    if outline is not None:
        clues = Clues(found.name, outline.config, outline.card)
        outline = outline.with_settings(pooled_as_published(outline.settings, clues))
        for line in _texts(outline, clues):
            terminal.say(line)
        notes = (*outline.kind.notes, *outline.settings.notes)
    for note in notes:
        terminal.say("note: {note}", note=note)
    if refusal is not None:
        terminal.say("refused: {reason}", reason=refusal)
        return 1
    for line in _cost(sighting, outline, settings):
        terminal.say(line)
    return 0


def judge(files: ModelFolder, settings: Settings) -> tuple[Outline | None, ExportError | None]:
    """Return the model's outline, if a family writes it, and why it is refused, if it is."""
    try:
        return examine(files, settings), None
    except ExportError as error:
        return None, error


def _network(seen: Sighting, outline: Outline | None, weight_bytes: int) -> Iterator[Message]:
    figures = _estimate(seen, outline)
    if outline is not None:
        yield Message("family: {family}, written directly", family=outline.family.name)
        if outline.family is STATIC:
            yield Message(
                "table: {words:,} tokens, a vector for each; weights of {weights:,.0f} MB",
                words=outline.shape.vocabulary,
                weights=weight_bytes / 1e6,
            )
            return
    elif seen.config is not None:
        yield Message("architecture: {model_type}", model_type=seen.model_type[:80] or "-")
    if figures is not None and seen.config is not None:
        yield Message(
            "network: {layers} layers of width {hidden}, {words:,} words, {parameters:,.1f} million "
            "parameters; weights of {weights:,.0f} MB",
            layers=number(seen.config, LAYERS),
            hidden=number(seen.config, HIDDEN),
            words=number(seen.config, ("vocab_size",)),
            parameters=figures.parameters / 1e6,
            weights=weight_bytes / 1e6,
        )


def _texts(outline: Outline, clues: Clues) -> Iterator[Message]:
    """Yield what is done to texts, and what a vector is like."""
    settings = outline.settings
    if outline.scoring is not None:
        yield Message(
            "pairs of texts: up to {tokens:,} tokens together; score by {activation}",
            tokens=settings.max_tokens,
            activation=outline.scoring.activation,
        )
        if outline.scoring.pair_prompt is not None:
            prompt = outline.scoring.pair_prompt
            yield Message("instruction in the prompt of a pair: {text!r}", text=prompt.instruction)
        return
    if outline.task in GIVES:
        yield Message("gives: {what}", what=GIVES[outline.task])
    yield Message(
        "texts: up to {tokens:,} tokens; pooling {pooling}; {normalised}",
        tokens=settings.max_tokens,
        pooling=settings.pooling if outline.splade is None else outline.splade.pooling,
        normalised=Message("normalised") if settings.normalize else Message("not normalised"),
    )
    if settings.tail:
        yield Message(
            "behind the pooling: {steps}; a vector has {dimension} numbers",
            steps=tuple(step.stated for step in settings.tail),
            dimension=outline.dimension,
        )
    chosen = instructions(clues, settings.prompts, settings.default_prompt)
    yield Message(
        "before queries: {query!r}; before documents: {document!r}; from {source}",
        query=chosen.query,
        document=chosen.document,
        source=chosen.source,
    )
    if not settings.include_prompt:
        yield Message("the pooling leaves out the tokens of an instruction")
    if chosen.warning is not None:
        yield Message("note: {note}", note=chosen.warning)
    shorter = known_sizes(clues, recognise(clues), outline.dimension)
    if shorter.sizes:
        yield Message(
            "shorter vectors: {sizes}; from {source}", sizes=shorter.sizes, source=shorter.source
        )


def _cost(seen: Sighting, outline: Outline | None, settings: Settings) -> Iterator[Message]:
    figures, cores = _estimate(seen, outline), cpu_budget()
    if figures is None:
        yield Message("it can be exported; its cost is not known")
        return
    yield Message(
        "an export would write about {size:,.0f} MB ({precision}), take about {minutes:,.0f} min on "
        "{cores} cores, and need up to about {memory:,.1f} GB of memory; a server with it about "
        "{serving:,.1f} GB",
        size=figures.file_bytes(settings.precision) / 1e6,
        precision=settings.precision,
        minutes=max(1, figures.seconds(cores) / 60),
        cores=cores,
        memory=figures.export_bytes() / 1e9,
        serving=figures.serving_bytes(settings.precision) / 1e9,
    )


def _estimate(seen: Sighting, outline: Outline | None) -> estimate.Estimate | None:
    if outline is not None:
        # Of some tables only the weights say the sizes.
        shapes = outline.tensors()
        return estimate.of_shapes(shapes, outline.config) if shapes else None
    return None if seen.config is None else estimate.of_config(seen.config)
