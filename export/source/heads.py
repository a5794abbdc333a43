"""Reads what follows the rows of tokens: layers in files of their own, as bge-m3 has two, and SPLADE's pooling."""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer

from export.errors import UnsupportedModel
from export.source.folder import ModelFolder
from export.source.json_file import shown
from export.source.modules import Modules
from export.source.tensors import StoredTensors, read_tensors, stored_weights
from export.source.tokenizer_class import content_of
from server.types import Task

# Names of the files, without an ending, and of the layers.
SPARSE_HEAD, COLBERT_HEAD = "sparse_linear", "colbert_linear"
# What each is for.
HEADS: Mapping[Task, str] = {"sparse": SPARSE_HEAD, "token_vectors": COLBERT_HEAD}
# What SpladePooling may be told, and what it does where nothing is said.
SPLADE_POOLINGS, SPLADE_ACTIVATIONS = ("max", "sum"), {"relu": 1, "log1p_relu": 2}
# Special tokens that have no weight, and their names in XLM-R where the tokenizer's settings name none.
UNWEIGHTED = {
    "cls_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


@dataclass(frozen=True, slots=True)
class Splade:
    """How a weight of each word is made of a masked language model's numbers.

    pooling: "max" or "sum" over the tokens of a text. logarithms: how often log(1 + x) is taken of a number.
    """

    pooling: str = "max"
    logarithms: int = 1


def read_splade(folder: ModelFolder, modules: Modules) -> Splade:
    """Return the settings of SpladePooling, its own where there are none; raises UnsupportedModel."""
    file = modules.pooling_file()
    config = {} if file is None else folder.json(file)
    pooling = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    # subtle: a list, because a value of the file may be of a type that has no hash.
    if pooling not in SPLADE_POOLINGS or activation not in [*SPLADE_ACTIVATIONS]:
        raise UnsupportedModel(
            "{file}: pooling_strategy {pooling} with activation_function {activation} is not written; "
            "{poolings} and {activations} are",
            file=str(file),
            pooling=shown(pooling),
            activation=shown(activation),
            poolings=SPLADE_POOLINGS,
            activations=tuple(SPLADE_ACTIVATIONS),
        )
    return Splade(pooling, SPLADE_ACTIVATIONS[activation])


def head_files(head: str) -> tuple[str, str]:
    """Return the names under which the weights of a head may be stored: as safetensors, or in a pickle."""
    return f"{head}.safetensors", f"{head}.pt"


def read_head(
    folder: ModelFolder, modules: Modules, head: str, *, allow_pickle: bool
) -> StoredTensors:
    """Return the tensors of a head, named HEAD.weight and HEAD.bias; raises an ExportError."""
    safe, pickled = map(modules.file, head_files(head))
    file = stored_weights(folder.has, folder.place, (safe, pickled), allow_pickle=allow_pickle)
    return read_tensors([folder.file(file)], lambda stored: f"{head}.{stored}")


def unweighted_ids(folder: ModelFolder, modules: Modules, tokenizer_json: str) -> tuple[int, ...]:
    """Return the ids of the special tokens that get no weight."""
    config, special = (
        folder.optional_json(modules.file(name))
        for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    tokenizer = Tokenizer.from_str(tokenizer_json)
    found = set()
    for key, default in UNWEIGHTED.items():
        content = content_of(config.get(key) or special.get(key) or default)
        if isinstance(content, str) and (token := tokenizer.token_to_id(content)) is not None:
            found.add(token)
    return tuple(sorted(found))
