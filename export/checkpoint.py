"""Reads a checkpoint folder as sentence-transformers would: weights, network shape, text preparation.

What cannot be honoured exactly is refused here, by name, before any work is done. The modules that
write and quantise the network do not check it again.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.errors import NoSuchModel, UnsupportedModel
from export.families.family import Family, Network, Shape
from export.families.layered import LayeredNetwork
from export.families.row_heads import HeadedNetwork
from export.heads import Headed, read_headed
from export.outline import Outline, read_outline
from export.source.folder import ModelFolder
from export.source.gguf.folder import GgufFolder, is_gguf, open_model
from export.source.gguf.tensors import check_all_used
from export.source.scoring import Scoring
from export.source.sentence_settings import SentenceSettings
from export.source.tail import read_tail_tensors
from export.source.tensors import (
    StoredTensors,
    Tensors,
    check_tensors,
    read_tensors,
    weight_files,
)
from server.inference.results import UNPOOLED
from server.types import Task


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An encoder that has been read and checked.

    tensors: float32, mapped from the files, under the names that the family gives them. sha256: over the
    names and contents of every file that was read. headed: what the rows of tokens reach, where that is not pooling.
    """

    folder: Path
    outline: Outline
    tensors: Tensors
    sha256: str
    headed: Headed | None = None

    @property
    def family(self) -> Family[Any]:
        return self.outline.family

    @property
    def shape(self) -> Shape:
        return self.outline.shape

    @property
    def settings(self) -> SentenceSettings:
        return self.outline.settings

    @property
    def scoring(self) -> Scoring | None:
        return self.outline.scoring

    @property
    def tokenizer_json(self) -> str:
        return self.outline.tokenizer_json

    def with_settings(self, settings: SentenceSettings) -> "Checkpoint":
        """Return the checkpoint with other settings of text and pooling."""
        return replace(self, outline=self.outline.with_settings(settings))

    def network(self) -> Network:
        """Return the encoder as a family writes it."""
        network = self.family.network(self.shape, self.settings, self.tensors)
        if self.settings.pooling != UNPOOLED:
            return network
        if not isinstance(network, LayeredNetwork):
            raise UnsupportedModel(
                "the family {family} gives no vectors of single tokens", family=self.family.name
            )
        return network if self.headed is None else HeadedNetwork(network, *self.headed)


def read_checkpoint(
    folder: Path,
    *,
    allow_pickle: bool = False,
    max_tokens: int | None = None,
    task: Task | None = None,
    pair_prompt: str | None = None,
    tokenizer: Path | None = None,
) -> Checkpoint:
    """Read and check a checkpoint folder, or a GGUF file; raises an ExportError that names the file at fault.

    max_tokens, task, pair_prompt: see `read_outline`. tokenizer: given beside a GGUF file.
    """
    if not folder.is_dir() and not is_gguf(folder):
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    files = open_model(folder, tokenizer)
    outline = read_outline(files, max_tokens, pair_prompt, task)
    tensors = _read_weights(files, outline, allow_pickle=allow_pickle)
    if outline.family.complete is not None:
        shape, tensors = outline.family.complete(outline.shape, tensors)
        outline = replace(outline, shape=shape)
    check_tensors(tensors, outline.tensors())
    headed = read_headed(files, outline, tensors, allow_pickle=allow_pickle)
    return Checkpoint(folder, outline, tensors, files.sha256(), headed)


def _read_weights(files: ModelFolder, outline: Outline, *, allow_pickle: bool) -> Tensors:
    rename = outline.family.tensor_name
    if isinstance(files, GgufFolder):
        tensors = StoredTensors()
        for name, tensor in files.tensors().items():
            tensors.add(rename(name), tensor)
        check_all_used(tensors, outline.tensors())
        return tensors
    weights = weight_files(files, outline.modules, allow_pickle=allow_pickle)
    tensors = read_tensors(weights, rename)
    tail = outline.settings.tail
    tensors.update(read_tail_tensors(files, tail, allow_pickle=allow_pickle))
    return tensors
