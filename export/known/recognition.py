"""Recognises a published model, or what it was trained from, by the files and not by the folder's name alone."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from export.known.presets import PRESETS, Preset
from export.source.card import split_card
from export.source.json_file import Json
from server.messages.message import Message

# What config.json calls these numbers in different networks.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "dim", "d_model")
# In the head of a model card: the model it was trained from, and its name in the results of MTEB.
CARD_NAME = re.compile(r"^(?:base_model:|-\s+name:)\s*(?:\n-\s*)?[\"']?([\w./-]{3,200})", re.M)
CARD_SIZES = re.compile(r"[\"']?matryoshka_dims[\"']?\s*[:=]\s*\[([\d,\s]{1,400})\]")
MOST_SIZES = 64
# A card names its base and itself. More names come from a damaged file, and each is compared with all presets.
MOST_CARD_NAMES = 16


@dataclass(frozen=True, slots=True)
class Recognition:
    """A group of published models that a model belongs to, and what showed it."""

    preset: Preset
    evidence: Message


@dataclass(frozen=True, slots=True)
class Clues:
    """What may show which model it is.

    model_id: the id on a hub, or the name of the folder or of --model-id. card: README.md, empty if there
    is none.
    """

    model_id: str
    config: Json
    card: str = ""


def recognise(clues: Clues) -> Recognition | None:
    """Return the group of published models that the clues show, None where they show none."""
    for identifier, evidence in _identifiers(clues):
        preset = by_name(identifier)
        if preset is not None:
            return Recognition(preset, evidence)
    preset = by_name(clues.model_id)
    if preset is not None and _shape(clues.config) in preset.shapes():
        return Recognition(preset, Message("its name and sizes"))
    return None


def by_name(identifier: str) -> Preset | None:
    """Return the group that an id or a path names."""
    return next((preset for preset in PRESETS if preset.is_in(identifier)), None)


def _identifiers(clues: Clues) -> Iterator[tuple[str, Message]]:
    """Yield names that show a model by themselves, the surest first."""
    if "/" in clues.model_id:
        yield clues.model_id, Message("its id")
    path = clues.config.get("_name_or_path")
    if isinstance(path, str):
        yield path[:500], Message("_name_or_path in config.json")
    for name in islice(CARD_NAME.finditer(split_card(clues.card)[0]), MOST_CARD_NAMES):
        yield name[1], Message("the head of README.md")


def _shape(config: Json) -> tuple[str, int, int]:
    return str(config.get("model_type")), number(config, LAYERS), number(config, HIDDEN)


def number(config: Json, keys: Sequence[str]) -> int:
    """Return the first of these keys that is a whole number, 0 if none is."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int)), 0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Shorter sizes that a model was trained for, and where that stands."""

    sizes: tuple[int, ...]
    source: Message


def known_sizes(clues: Clues, recognition: Recognition | None, dimension: int | None) -> Sizes:
    """Return the shorter sizes of a model: from its folder, else from the table of published ones.

    dimension: of its vectors; only shorter ones are returned. None where it is not known yet: that of the
    network then.
    """
    dimension = number(clues.config, HIDDEN) if dimension is None else dimension
    listed = clues.config.get("matryoshka_dimensions")
    card = CARD_SIZES.search(clues.card)
    if isinstance(listed, list):
        found = [value for value in listed if isinstance(value, int)]
        source = Message("matryoshka_dimensions in config.json")
    elif card is not None:
        found = [int(part) for part in card[1].split(",") if part.strip()]
        source = Message("README.md")
    elif recognition is not None:
        found = list(recognition.preset.sizes)
        source = recognition.preset.stated
    else:
        return Sizes((), Message("none"))
    sizes = sorted(size for size in set(found) if 1 <= size < dimension)
    return Sizes(tuple(sizes[:MOST_SIZES]), source)
