"""Reads a folder's sentence-transformers files: pooling, length limit, prompts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.json_file import (
    Json,
    is_object_of_strings,
    optional_json,
    read_json,
    shown,
    whole_number,
)

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# What both routes can write; a family may write fewer.
POOLINGS = ("cls", "mean", "max")


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """The settings of text and pooling in the sentence-transformers module files."""

    pooling: str
    normalize: bool
    max_tokens: int
    lower_case: bool
    prompts: Mapping[str, str]
    default_prompt: str | None


def read_settings(
    folder: Path, positions: int, poolings: Sequence[str] = POOLINGS
) -> SentenceSettings:
    """Return the folder's settings; raises an ExportError for what cannot be honoured exactly.

    positions: the longest text that the network can read, in tokens. poolings: what can be written.
    A folder without modules.json gets what sentence-transformers gives it: mean pooling, not
    normalised in the module list (cosine models normalise at use; the artifact says so), and its
    sentence_bert_config.json is ignored.
    """
    modules = _module_folders(folder)
    transformer = folder / modules.get("Transformer", "")
    sentence_config = {}
    if (folder / "modules.json").exists():
        sentence_config = optional_json(transformer / "sentence_bert_config.json")
    tokenizer_config = optional_json(transformer / "tokenizer_config.json")
    prompts, default_prompt = _read_prompts(folder / "config_sentence_transformers.json")
    pooling = "mean"
    if "Pooling" in modules:
        pooling = _pooling_mode(read_json(folder / modules["Pooling"] / "config.json"), poolings)
    return SentenceSettings(
        pooling=pooling,
        normalize="Normalize" in modules,
        max_tokens=_max_tokens(sentence_config, tokenizer_config, positions),
        lower_case=bool(sentence_config.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt=default_prompt,
    )


def _max_tokens(sentence_config: Json, tokenizer_config: Json, positions: int) -> int:
    model_max_length = whole_number(
        "tokenizer_config.json", tokenizer_config, "model_max_length", positions
    )
    max_tokens = whole_number(
        "sentence_bert_config.json",
        sentence_config,
        "max_seq_length",
        min(positions, model_max_length),
    )
    if not 3 <= max_tokens <= positions:
        raise ShapeMismatch(
            "max_seq_length {shown} is outside 3 to {positions} (max_position_embeddings)",
            shown=shown(max_tokens),
            positions=positions,
        )
    return max_tokens


def _read_prompts(path: Path) -> tuple[dict[str, str], str | None]:
    """Return the prompts by name, and the name of the one that is put before every text."""
    settings = optional_json(path)
    prompts, default = settings.get("prompts"), settings.get("default_prompt_name")
    if prompts is None:
        prompts = {}
    if not is_object_of_strings(prompts):
        raise CorruptFile(
            "{path}: prompts is {shown}, not an object of strings", path=path, shown=shown(prompts)
        )
    if default is not None and not isinstance(default, str):
        raise CorruptFile(
            "{path}: default_prompt_name is {shown}, not a string", path=path, shown=shown(default)
        )
    for name, prompt in prompts.items():
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise CorruptFile(
                "{path}: prompt {shown} holds half of a surrogate pair, which is no character",
                path=path,
                shown=shown(name),
            ) from None
    return prompts, default


def _module_folders(folder: Path) -> dict[str, str]:
    """Return modules.json as {class name: folder}; raises for a module that is not supported."""
    path = folder / "modules.json"
    if not path.exists():
        return {"Transformer": ""}
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        folders = {str(m["type"]).rsplit(".", 1)[-1]: str(m["path"]) for m in modules}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile("{path} cannot be read: {error}", path=path, error=error) from None
    for name in folders:
        if name not in ("Transformer", "Pooling", "Normalize"):
            raise UnsupportedModel(
                '{path} has a module "{name}"; only Transformer, Pooling and Normalize are supported '
                "(a Dense layer changes the vector and is not written)",
                path=path,
                name=name,
            )
    return folders


def _pooling_mode(config: Json, poolings: Sequence[str]) -> str:
    # subtle: for sentence-transformers a missing flag is false, but the one for mean is true.
    modes = [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag, mode == "mean")]
    if config.get("pooling_mode") is not None:
        modes = [str(config["pooling_mode"])]
    if len(modes) != 1 or modes[0] not in poolings:
        found = " + ".join(modes) or "none"
        raise UnsupportedModel(
            "pooling {found} is not supported; one of {supported} is needed",
            found=found,
            supported=tuple(poolings),
        )
    if config.get("include_prompt") is False:
        raise UnsupportedModel(
            "pooling that leaves the prompt out (include_prompt: false) is not supported"
        )
    return modes[0]
