"""Reads modules.json as sentence-transformers does: where the network and the pooling are, and what follows.

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
# Dropout acts in training only.
DENSE, NORMALIZE, DROPOUT = "Dense", "Normalize", "Dropout"
FIRST, TAIL = ("Transformer", "Pooling"), (DENSE, NORMALIZE, DROPOUT)
# What the refusal of another module names.
SUPPORTED = (*FIRST, *TAIL)
# A model that gives a weight for each word of its vocabulary.
SPLADE = ("MLMTransformer", "SpladePooling")
# A head of models that score pairs.
LOGIT_SCORE = "LogitScore"
# A table of vectors instead of a network.
STATIC = "StaticEmbedding"
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
class Layout:
    """An order of modules. tail: what may follow `first`, in any number and order. scores: of pairs of texts."""

    first: tuple[str, ...]
    tail: tuple[str, ...] = ()
    scores: bool = False

    def fits(self, kinds: tuple[str, ...]) -> bool:
        n_first = len(self.first)
        return kinds[:n_first] == self.first and set(kinds[n_first:]) <= set(self.tail)


LAYOUTS = (
    Layout(FIRST, TAIL),
    Layout(SPLADE),
    Layout((STATIC,), (NORMALIZE, DROPOUT)),
    # As newer versions of CrossEncoder list them.
    Layout(("Transformer",), scores=True),
    Layout(("Transformer", LOGIT_SCORE), scores=True),
)
KNOWN = {kind for layout in LAYOUTS for kind in (*layout.first, *layout.tail)}


@dataclass(frozen=True, slots=True)
class Module:
    """A module that follows the pooling: DENSE or NORMALIZE, and the folder of its files."""

    kind: str
    folder: str

    def file(self, name: str) -> str:
        """Return the name of a file of this module, relative to the model's folder."""
        return in_folder(self.folder, name)


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of a model.

    transformer: the folder of the network, the tokenizer and their settings; empty for the model's
    own. pooling: the folder of its settings, None in a model without modules.json. tail: the modules behind
    the pooling that change its result, in their order. answers: the folder of LogitScore. static: the first
    module is a table of vectors, which lies in the Transformer's place.
    """

    transformer: str = ""
    pooling: str | None = None
    tail: tuple[Module, ...] = ()
    answers: str | None = None
    static: bool = False

    @property
    def dense(self) -> list[Module]:
        """The modules with weights of their own."""
        return [module for module in self.tail if module.kind == DENSE]

    def file(self, name: str) -> str:
        """Return the name of a file of the Transformer, relative to the model's folder."""
        return in_folder(self.transformer, name)

    def pooling_file(self) -> str | None:
        return None if self.pooling is None else in_folder(self.pooling, "config.json")

    def answers_file(self) -> str | None:
        return None if self.answers is None else in_folder(self.answers, "config.json")

    def tail_files(self) -> list[str]:
        """Return the names of the settings of the modules behind the pooling."""
        return [module.file("config.json") for module in self.tail]


def in_folder(folder: str, name: str) -> str:
    """Return the name of a file in a folder of the model, empty for the model's own."""
    return f"{folder}/{name}" if folder else name


def read_modules(folder: ModelFolder, *, scores: bool = False) -> Modules:
    """Return the modules of a folder; raises an ExportError for what cannot be exported.

    scores: the model scores pairs of texts.
    """
    if not folder.has(MODULES):
        return Modules()
    modules = parse_modules(
        folder.path(MODULES), folder.content(MODULES, MOST_SETTINGS), scores=scores
    )
    tail = (each.folder for each in modules.tail)
    for name in (modules.transformer, modules.pooling, modules.answers, *tail):
        if name:
            folder.check_inside(MODULES, name)
    return modules


def parse_modules(path: Path, content: bytes, *, scores: bool | None = None) -> Modules:
    """Return the modules that the content of `path`, a modules.json, lists.

    scores: see `read_modules`; None where the kind of model is not known.
    """
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
    layout = _layout_of(kinds, scores)
    # sentence-transformers keeps the last of two modules that share a name.
    if layout is None or len(set(map(repr, names))) < len(names):
        raise UnsupportedModel(
            "{path} lists the modules {found}; only one Transformer, then one Pooling, then any of Dense, "
            "Normalize and Dropout can be exported, each under a name of its own",
            path=path,
            found=kinds or Message("none at all"),
        )
    placed = list(zip(kinds, folders, strict=True))
    first, tail = dict(placed[: len(layout.first)]), placed[len(layout.first) :]
    modules = Modules(
        folders[0],
        pooling=first.get(FIRST[1], first.get(SPLADE[1])),
        tail=tuple(Module(kind, place) for kind, place in tail if kind != DROPOUT),
        answers=first.get(LOGIT_SCORE),
        static=STATIC in first,
    )
    _check_own_folders(path, modules)
    return modules


def _layout_of(kinds: tuple[str, ...], scores: bool | None) -> Layout | None:
    possible = (each for each in LAYOUTS if scores in (None, each.scores))
    return next((each for each in possible if each.fits(kinds)), None)


def _check_own_folders(path: Path, modules: Modules) -> None:
    """Refuse a folder that two modules read, whose files cannot be those of both."""
    owners = {modules.transformer: "Transformer"}
    of_others = (
        ("Pooling", modules.pooling),
        (LOGIT_SCORE, modules.answers),
        *((DENSE, each.folder) for each in modules.dense),
    )
    for kind, folder in of_others:
        if folder is not None and owners.setdefault(folder, kind) != kind:
            raise UnsupportedModel(
                "{path} gives {first} and {second} the same folder, {shown}",
                path=path,
                first=owners[folder],
                second=kind,
                shown=shown(folder),
            )


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
    if known[1] not in KNOWN:
        raise UnsupportedModel(
            '{path} has a module "{name}"; only {supported} are supported',
            path=path,
            name=known[1],
            supported=SUPPORTED,
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
