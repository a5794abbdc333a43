"""Collects what a model's kind is judged by: its settings and the names of its files.

Nothing in the files is trusted, and no weights are read.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from export.known.pair_prompts import NO_PROMPT
from export.known.recognition import Clues, recognise
from export.source.card import read_card
from export.source.file import MOST_SETTINGS
from export.source.folder import ModelFolder
from export.source.json_file import Json, decode
from export.source.modules import FOLDER, MODULES, MOST_MODULES, in_folder

CONFIG = "config.json"
# Where it is there, transformers loads the model that it names, and adds its weights.
ADAPTER = "adapter_config.json"
# Names of weights that transformers would load of a Transformer's folder.
WHOLE_WEIGHTS = re.compile(r"(?:model|pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)")

# No other text names a class; rules search in these names, and messages show them.
CLASS_NAME = re.compile(r"\w{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What can be seen of a model without its weights.

    place: the folder, or the id on a hub. config: config.json of the Transformer's folder, None where there
    is none. modules: the classes in modules.json, None where there is none. names: of all files, relative
    to the model's folder. transformer: the folder of the network, empty for the model's own. base: the
    model that an adapter belongs to. pair_prompt: the name of the prompt (`known.pair_prompts`) in which it
    reads pairs, None where none is known.
    """

    place: Path | str
    config: Json | None
    modules: tuple[str, ...] | None
    names: Collection[str]
    transformer: str = ""
    base: str | None = None
    pair_prompt: str | None = None

    @property
    def here(self) -> set[str]:
        """The names of the files in the Transformer's folder."""
        folder = PurePosixPath(self.transformer)
        return {path.name for path in map(PurePosixPath, self.names) if path.parent == folder}

    @property
    def classes(self) -> set[str]:
        """The last parts of the names of the modules' classes."""
        return {name.rpartition(".")[2] for name in self.modules or ()}

    @property
    def architectures(self) -> list[str]:
        listed = (self.config or {}).get("architectures")
        names = listed if isinstance(listed, list) else []
        return [name for name in names if isinstance(name, str) and CLASS_NAME.fullmatch(name)]

    def ends_in(self, ending: str) -> bool:
        """Return whether the name of a class in `architectures` ends so."""
        return any(name.endswith(ending) for name in self.architectures)

    @property
    def model_type(self) -> str:
        return str((self.config or {}).get("model_type") or "")

    @property
    def has_weights(self) -> bool:
        return any(map(WHOLE_WEIGHTS.fullmatch, self.here))


def see(folder: ModelFolder, pair_prompt: str | None = None) -> Sighting:
    """Return what can be seen of the model in a folder; raises an ExportError for a damaged file.

    pair_prompt: what the command says of it; None where the files decide.
    """
    listed: list[dict[str, Any]] | None = None
    if folder.has(MODULES):
        listed = listed_modules(folder.content(MODULES, MOST_SETTINGS))
    transformer = transformer_folder(listed)
    if transformer:
        folder.check_inside(MODULES, transformer)
    config, adapter = (in_folder(transformer, name) for name in (CONFIG, ADAPTER))
    base = folder.optional_json(adapter).get("base_model_name_or_path")
    settings = folder.json(config) if folder.has(config) else None
    return Sighting(
        place=folder.place,
        config=settings,
        modules=None if listed is None else tuple(str(each.get("type")) for each in listed),
        names=folder.names(),
        transformer=transformer,
        base=base[:200] if isinstance(base, str) else None,
        pair_prompt=_pair_prompt(folder, settings, pair_prompt),
    )


def _pair_prompt(folder: ModelFolder, config: Json | None, chosen: str | None) -> str | None:
    if chosen is not None:
        return None if chosen == NO_PROMPT else chosen
    place = folder.place
    name = place if isinstance(place, str) else place.resolve().name
    found = recognise(Clues(name, config or {}, read_card(folder)))
    return None if found is None else found.preset.pair_prompt


def listed_modules(content: bytes) -> list[dict[str, Any]]:
    """Return the objects that a modules.json lists, none if it is malformed, which `modules` refuses."""
    try:
        listed = decode(content)
    except ValueError:
        return []
    found = listed if isinstance(listed, list) else []
    return [each for each in found[:MOST_MODULES] if isinstance(each, dict)]


def transformer_folder(listed: list[dict[str, Any]] | None) -> str:
    """Return the folder of the first module, where the network is; empty for the model's own."""
    path = listed[0].get("path") if listed else ""
    plain = isinstance(path, str) and FOLDER.fullmatch(path)
    return path.removesuffix("/") if plain and isinstance(path, str) else ""
