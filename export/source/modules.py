"""Reads modules.json as sentence-transformers does: which folder has the network, which the pooling.

The names in it come from elsewhere: a name that could mean a place outside the model's folder is refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import CorruptFile, UnsupportedModel
from export.source.file import MOST_SETTINGS
from export.source.folder import ModelFolder
from export.source.json_file import TooDeep, decode, shown
from server.messages.message import Message

MODULES = "modules.json"
SUPPORTED = ("Transformer", "Pooling", "Normalize")
# A table of vectors instead of a network.
STATIC = "StaticEmbedding"
ORDERS = (SUPPORTED[:2], SUPPORTED, (STATIC,), (STATIC, "Normalize"))
# A class of the library itself: sentence_transformers.models.Pooling. Others run code of the model.
CLASS = re.compile(
    r"sentence_transformers\.(?:[A-Za-z_]\w{0,60}\.){1,4}([A-Za-z_]\w{0,60})", re.ASCII
)
# Folders below the model's, such as 1_Pooling. Nothing that is hidden, no way up, and none that an
# artifact may be in.
FOLDER = re.compile(
    r"(?!onnx)(?:[A-Za-z0-9_][\w.-]{0,99}(?:/[A-Za-z0-9_][\w.-]{0,99}){0,3}/?)?", re.ASCII
)
MOST_MODULES = 16


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of a model.

    transformer: the folder of the network, the tokenizer and their settings; empty for the model's
    own. pooling: the folder of its settings, None in a model without modules.json. static: the first module
    is a table of vectors, which lies in the Transformer's place.
    """

    transformer: str = ""
    pooling: str | None = None
    normalize: bool = False
    static: bool = False

    def file(self, name: str) -> str:
        """Return the name of a file of the Transformer, relative to the model's folder."""
        return f"{self.transformer}/{name}" if self.transformer else name

    def pooling_file(self) -> str | None:
        return None if self.pooling is None else f"{self.pooling}/config.json"


def read_modules(folder: ModelFolder) -> Modules:
    """Return the modules of a folder; raises an ExportError for what cannot be exported."""
    if not folder.has(MODULES):
        return Modules()
    modules = parse_modules(folder.path(MODULES), folder.content(MODULES, MOST_SETTINGS))
    for name in (modules.transformer, modules.pooling):
        if name:
            folder.check_inside(MODULES, name)
    return modules


def parse_modules(path: Path, content: bytes) -> Modules:
    """Return the modules that the content of `path`, a modules.json, lists."""
    try:
        listed = decode(content)
    except TooDeep:
        raise CorruptFile("{path} nests objects or arrays too deeply", path=path) from None
    except ValueError as error:
        raise CorruptFile("{path} cannot be read: {error}", path=path, error=error) from None
    if not isinstance(listed, list) or not all(map(_is_module, listed)):
        raise CorruptFile(
            "{path} cannot be read: {error}",
            path=path,
            error=Message("it must be a list of objects, each with a type and a path"),
        )
    if len(listed) > MOST_MODULES:
        raise UnsupportedModel(
            "{path} lists {n_modules} modules, at most {most} are read",
            path=path,
            n_modules=len(listed),
            most=MOST_MODULES,
        )
    kinds = tuple(_kind(path, module["type"]) for module in listed)
    folders = [_folder(path, module["path"]) for module in listed]
    names = [module.get("name", place) for place, module in enumerate(listed)]
    # sentence-transformers keeps the last of two modules that share a name.
    if kinds not in ORDERS or len(set(map(repr, names))) < len(names):
        raise UnsupportedModel(
            "{path} lists the modules {found}; only one Transformer, then one Pooling, then perhaps "
            "one Normalize can be exported, each under a name of its own",
            path=path,
            found=kinds or Message("none at all"),
        )
    if kinds[0] == STATIC:
        return Modules(folders[0], normalize="Normalize" in kinds, static=True)
    transformer, pooling = folders[:2]
    if pooling == transformer:
        raise UnsupportedModel(
            "{path} gives Transformer and Pooling the same folder, {shown}",
            path=path,
            shown=shown(pooling),
        )
    return Modules(transformer, pooling, "Normalize" in kinds)


def _is_module(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), str) for k in ("type", "path"))


def _kind(path: Path, given: str) -> str:
    known = CLASS.fullmatch(given)
    if known is None:
        raise UnsupportedModel(
            "{path} has a module of the type {shown}, which is no class of sentence_transformers; code "
            "of a model is never run",
            path=path,
            shown=shown(given),
        )
    if known[1] not in (*SUPPORTED, STATIC):
        raise UnsupportedModel(
            '{path} has a module "{name}"; only Transformer, Pooling and Normalize are supported '
            "(a Dense layer changes the vector and is not written)",
            path=path,
            name=known[1],
        )
    return known[1]


def _folder(path: Path, given: str) -> str:
    # model2vec writes a dot for the model's own folder.
    if given == ".":
        return ""
    if not FOLDER.fullmatch(given):
        raise UnsupportedModel(
            "{path} names {shown}, which is no plain folder name inside the model's folder, such as "
            "1_Pooling",
            path=path,
            shown=shown(given),
        )
    return given.removesuffix("/")
