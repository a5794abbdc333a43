"""Collects what `kind` judges a model by: its settings and the names of its files, read with no trust in them."""

from pathlib import Path
from typing import Any

from export.source.file import MOST_SETTINGS
from export.source.folder import ModelFolder
from export.source.json_file import decode
from export.source.kind import ADAPTER, Sighting
from export.source.modules import FOLDER, MODULES, MOST_MODULES

CONFIG = "config.json"


def see(folder: ModelFolder, place: Path | str | None = None) -> Sighting:
    """Return what can be seen of the model in a folder; raises an ExportError for a file that is damaged.

    place: what messages call it; the folder itself if None.
    """
    listed: list[dict[str, Any]] | None = None
    if folder.has(MODULES):
        listed = listed_modules(folder.content(MODULES, MOST_SETTINGS))
    transformer = transformer_folder(listed)
    if transformer:
        folder.check_inside(MODULES, transformer)
    config, adapter = (
        f"{transformer}/{name}" if transformer else name for name in (CONFIG, ADAPTER)
    )
    base = folder.optional_json(adapter).get("base_model_name_or_path")
    return Sighting(
        place=folder.root if place is None else place,
        config=folder.json(config) if folder.has(config) else None,
        modules=None if listed is None else tuple(str(each.get("type")) for each in listed),
        names=folder.names(),
        transformer=transformer,
        base=base[:200] if isinstance(base, str) else None,
    )


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
