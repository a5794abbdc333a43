"""The command `list`: the families and the published models that are known, and how each is exported."""

from collections.abc import Sequence

from export.estimate import FLOAT_BYTES, of_config
from export.families import FAMILIES
from export.known.models import PUBLISHED, Published
from export.known.presets import Preset
from export.known.recognition import by_name
from export.onnx_file import LARGEST
from export.outline import TASKS
from server.messages.message import Message
from server.messages.terminal import Terminal

# Networks that optimum traces and whose pooling is supported.
TRACED = ("roberta", "xlm-roberta", "camembert", "distilbert", "mpnet")


def run(terminal: Terminal, arguments: Sequence[str]) -> int:
    """Print the list and return the exit status."""
    words = terminal.words
    parser = terminal.parser(
        "python -m export list", words("List the families and published models that are known.")
    )
    parser.parse_args(arguments)
    terminal.say(
        "written directly, without torch: {families}",
        families=tuple(family.name for family in FAMILIES),
    )
    terminal.say(
        "published models: layers x width, million parameters, longest text in tokens, size of a vector, how "
        "it is exported, shorter sizes"
    )
    for model in PUBLISHED:
        terminal.say(
            "  {name:<60} {shape:>8} {parameters:>6,.0f} {tokens:>7,} {vector:>5}  {way}{sizes}",
            name=model.name,
            shape=f"{model.layers}x{model.hidden}",
            parameters=millions(model),
            vector=model.dimension or model.hidden,
            sizes=_shorter(model, by_name(model.name)),
            tokens=model.tokens,
            way=way_of(model),
        )
    terminal.say("python -m export inspect MODEL says the same and more of any folder or hub id")
    return 0


def millions(model: Published) -> float:
    """Return the parameters of a model in millions."""
    found = of_config(model.config)
    return 0 if found is None else found.parameters / 1e6


def way_of(model: Published) -> Message:
    """Return how a published model is exported."""
    if model.task not in TASKS:
        return Message("not yet")
    scores = model.task == "score"
    if any(each.claims(model.config) and (each.scorer or not scores) for each in FAMILIES):
        return Message("directly")
    fits = millions(model) * FLOAT_BYTES * 1e6 < LARGEST
    if model.model_type in TRACED and fits and not scores:
        return Message("--via optimum")
    return Message("not yet")


def _shorter(model: Published, preset: Preset | None) -> str:
    width = model.dimension or model.hidden
    listed = ",".join(str(size) for size in (preset.sizes if preset else ()) if size < width)
    return f"  {listed}" if listed else ""
