"""Reads a folder of static embeddings as model2vec and sentence-transformers read it.

Both put no special tokens around a text and leave the white space at its ends. A folder whose config.json is
model2vec's is read as model2vec reads it: unknown tokens are left out, and a text is first cut to so many
characters, then to so many tokens. sentence-transformers (StaticEmbedding) leaves nothing out and cuts nothing.
"""

import json
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from export.errors import CorruptFile
from export.source.file import MOST_TABLE
from export.source.folder import ModelFolder
from export.source.json_file import Json, boolean, parse_object, shown, whole_number
from export.source.modules import Modules
from export.source.sentence_settings import SentenceSettings, limited, read_prompts
from export.source.tokenizer_file import read_description

TOKENIZER = "tokenizer.json"
# What model2vec cuts texts to where config.json does not say it.
USUAL_TOKENS = 512
# Of a model that reads texts of any length: memory grows with the tokens, 4 bytes for each number of a vector.
MOST_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class StaticText:
    """How a folder's texts are read. tokenizer_json: without special tokens. vocabulary: its ids are below it.

    endless: the library cuts no text, so the artifact cuts where the library does not.
    """

    settings: SentenceSettings
    tokenizer_json: str
    vocabulary: int
    endless: bool


def read_static(
    folder: ModelFolder, modules: Modules, config: Json, max_tokens: int | None
) -> StaticText:
    """Return how texts are read; raises an ExportError. config: of model2vec, or empty."""
    name = modules.file(TOKENIZER)
    content = folder.content(name, MOST_TABLE)
    tokenizer = read_description(folder.path(name), content)
    stored = (tokenizer.truncation or {}).get("max_length")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    described = parse_object(folder.path(name), str(tokenizer.to_str()).encode())
    described["post_processor"] = None
    vocabulary = tokenizer.get_vocab()
    if not vocabulary:
        raise CorruptFile("the tokenizer has no vocabulary")
    prompts, default_prompt = read_prompts(folder)
    longest = _max_length(config) if config else stored
    settings = SentenceSettings(
        pooling="mean",
        normalize=boolean("config.json", config, "normalize", False)
        if config
        else bool(modules.tail),
        max_tokens=min(longest or MOST_TOKENS, MOST_TOKENS),
        lower_case=False,
        prompts=prompts,
        default_prompt=default_prompt,
        strip=False,
        dropped_token=_unknown(described["model"], vocabulary) if config else None,
    )
    settings = limited(settings, max_tokens)
    if config and longest is not None:
        characters = settings.max_tokens * int(median(map(len, vocabulary)))
        settings = replace(settings, max_characters=max(1, characters))
    return StaticText(
        settings,
        json.dumps(described, ensure_ascii=False),
        max(vocabulary.values()) + 1,
        longest is None or longest > MOST_TOKENS,
    )


def _max_length(config: Json) -> int | None:
    """Return the tokens that model2vec cuts texts to; None where it cuts none."""
    if "max_length" in config and config["max_length"] is None:
        return None
    length = whole_number("config.json", config, "max_length", USUAL_TOKENS)
    if length < 3:
        raise CorruptFile(
            "config.json: max_length {shown} is below {least}", shown=shown(length), least=3
        )
    return length


def _unknown(model: dict[str, Any], vocabulary: dict[str, int]) -> int | None:
    """Return the id of the unknown token, which model2vec leaves out."""
    found = model.get("unk_id")
    if "unk_token" in model:
        found = vocabulary.get(str(model["unk_token"])) if model["unk_token"] else None
    return found if isinstance(found, int) else None
