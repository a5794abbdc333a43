"""Reads a checkpoint folder as sentence-transformers would: weights, network shape, text preparation.

What cannot be honoured exactly is refused here, by name, before any work is done. The modules that
write and quantise the network do not check it again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import families
from export.errors import NoSuchModel
from export.families.family import Family, Network, Shape
from export.source.folder import ModelFolder
from export.source.modules import read_modules
from export.source.sentence_settings import SentenceSettings, limited, read_settings
from export.source.tensors import (
    Tensors,
    check_plain_weights,
    check_tensors,
    read_tensors,
    weight_files,
)
from export.source.tokenizer_file import check_tokenizer, read_tokenizer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An encoder that has been read and checked.

    tensors: float32, mapped from the files, under the names that the family gives them.
    tokenizer_json: the tokenizer as transformers would build it, without truncation and padding.
    sha256: over the names and contents of every file that was read.
    """

    folder: Path
    family: Family[Any]
    shape: Shape
    settings: SentenceSettings
    tensors: Tensors
    tokenizer_json: str
    sha256: str

    def network(self) -> Network:
        """Return the encoder as a family writes it."""
        return self.family.network(self.shape, self.settings, self.tensors)


def read_checkpoint(
    folder: Path, *, allow_pickle: bool = False, max_tokens: int | None = None
) -> Checkpoint:
    """Read and check a checkpoint folder; raises an ExportError that names the file at fault.

    max_tokens: what texts are cut to, where that is less than the model reads.
    """
    if not folder.is_dir():
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    files = ModelFolder(folder)
    modules = read_modules(files)
    config = files.json(modules.file("config.json"))
    check_plain_weights(files, modules, config)
    family = families.of(config)
    shape = family.read_shape(config)
    settings = limited(read_settings(files, shape.positions, family.poolings), max_tokens)
    weights = weight_files(files, modules, allow_pickle=allow_pickle)
    tensors = read_tensors(weights, family.tensor_name)
    check_tensors(tensors, shape.tensors())
    tokenizer_json = read_tokenizer(files, modules)
    check_tokenizer(tokenizer_json, shape.vocabulary, settings.max_tokens)
    return Checkpoint(
        folder=folder,
        family=family,
        shape=shape,
        settings=settings,
        tensors=tensors,
        tokenizer_json=tokenizer_json,
        sha256=files.sha256(),
    )
