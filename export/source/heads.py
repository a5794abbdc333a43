"""Reads linear layers that stand in files of their own beside a network's weights, as bge-m3 has two."""

from collections.abc import Mapping

from tokenizers import Tokenizer

from export.errors import NoSuchModel
from export.source.folder import ModelFolder
from export.source.modules import Modules
from export.source.tensors import StoredTensors, read_tensors
from server.types import Task

# Names of the files, without an ending, and of the layers.
SPARSE_HEAD, COLBERT_HEAD = "sparse_linear", "colbert_linear"
# What each is for.
HEADS: Mapping[Task, str] = {"sparse": SPARSE_HEAD, "token_vectors": COLBERT_HEAD}
# Special tokens that have no weight, and their names in XLM-R where the tokenizer's settings name none.
UNWEIGHTED = {
    "cls_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


def head_files(head: str) -> tuple[str, str]:
    """Return the names under which the weights of a head may be stored: as safetensors, or in a pickle."""
    return f"{head}.safetensors", f"{head}.pt"


def read_head(
    folder: ModelFolder, modules: Modules, head: str, *, allow_pickle: bool
) -> StoredTensors:
    """Return the tensors of a head, named HEAD.weight and HEAD.bias; raises an ExportError."""
    safe, pickled = map(modules.file, head_files(head))
    if folder.has(safe):
        file = safe
    elif not folder.has(pickled):
        raise NoSuchModel("{folder} has no {file}", folder=folder.place, file=safe)
    elif allow_pickle:
        file = pickled
    else:
        raise NoSuchModel(
            "{folder} has only {file}; add --allow-pickle to read it (weights only)",
            folder=folder.place,
            file=pickled,
        )
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
        named = config.get(key) or special.get(key) or default
        content = named.get("content") if isinstance(named, dict) else named
        if isinstance(content, str) and (token := tokenizer.token_to_id(content)) is not None:
            found.add(token)
    return tuple(sorted(found))
