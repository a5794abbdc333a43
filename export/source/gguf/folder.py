"""A GGUF file as the folder of a model: config.json and the others are made of its settings.

So everything that judges a folder judges a file, too. The weights stay in the file.
"""

import json
import re
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

from export.errors import NoSuchModel, UnsupportedModel
from export.source.file import exists, read_file
from export.source.folder import ModelFolder
from export.source.gguf.header import Header, read_header
from export.source.gguf.networks import Numbers, architecture_of, check_causal, pooling_of
from export.source.gguf.tensors import stored_tensors
from export.source.gguf.tokenizer import check_same_tokens, rebuilt_tokenizer, stored_tokens
from export.source.json_file import read_json, whole_number
from export.source.tensors import StoredTensor
from server.messages.message import Message
from server.types import Task

SUFFIX = ".gguf"
SENTENCE = "sentence_bert_config.json"
# Read of the folder that --tokenizer names.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "added_tokens.json", SENTENCE),
)
# Where a file may name the model that it was made from.
SOURCES = (
    "general.source.repo_url",
    "general.source.huggingface.repository",
    "general.base_model.0.repo_url",
    "general.source.url",
)
REPOSITORY = re.compile(r"(?:https://huggingface\.co/)?([\w.-]{1,100}/[\w.-]{1,100})", re.ASCII)


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()


def open_model(path: Path, tokenizer: Path | None = None) -> ModelFolder:
    """Return a model's folder, or a GGUF file as one; raises an ExportError. tokenizer: given beside a file."""
    if is_gguf(path):
        return GgufFolder(path, tokenizer)
    if tokenizer is not None:
        raise UnsupportedModel(
            "--tokenizer is for a GGUF file; {place} has a tokenizer of its own", place=path
        )
    return ModelFolder(path)


class GgufFolder(ModelFolder):
    """The files that a GGUF file stands for. header: of the file."""

    def __init__(self, file: Path, tokenizer: Path | None) -> None:
        super().__init__(file.parent)
        self.place = file
        self._gguf = file
        self._read = {file.name: None}
        self.header = read_header(file)
        self._architecture, self._known = architecture_of(self.header)
        self._beside = {} if tokenizer is None else _beside(tokenizer)
        self._made = {
            name: json.dumps(value, ensure_ascii=False).encode()
            for name, value in self._settings().items()
        }
        if not self._beside:
            self._made["tokenizer.json"] = rebuilt_tokenizer(self.header).encode()

    def tensors(self) -> dict[str, StoredTensor]:
        """Return the tensors under the names of a checkpoint; raises an ExportError."""
        return stored_tensors(self._gguf, self.header, self._known.names)

    def notes(self, task: Task) -> tuple[Message, ...]:
        """Return what an export of a task should tell of this file."""
        normalised = Message(
            "GGUF files do not say whether vectors are normalised; these are, as llama.cpp does it"
        )
        rebuilt = Message(
            "the tokenizer is rebuilt from the GGUF file: it lower-cases texts and takes accents off, as "
            "llama.cpp does; where the original does not, give it with --tokenizer"
        )
        # Vectors of single tokens are never normalised.
        told = (normalised,) if task == "dense" else ()
        return told if self._beside else (*told, rebuilt)

    def check_tokens(self, tokenizer_json: str) -> None:
        """Refuse a tokenizer whose tokens are not those of the file."""
        check_same_tokens(self.header, tokenizer_json)

    def path(self, name: str) -> Path:
        return self._beside.get(name, self.root / name)

    def has(self, name: str) -> bool:
        return name in self._made or name in self._beside

    def names(self) -> Collection[str]:
        # The weights are in the file itself.
        return {*self._made, *self._beside, "model.safetensors"}

    def content(self, name: str, most: int) -> bytes:
        made = self._made.get(name)
        content = read_file(self.path(name), most) if made is None else made
        self._read[name] = sha256(content).hexdigest()
        return content

    def note(self, pattern: str, most: int | None = None) -> None:
        """Do nothing: no file beside the GGUF file is read, but those of --tokenizer."""

    def check_inside(self, named_by: str, folder: str) -> None:
        """Do nothing: the folders are those of this module."""

    def _settings(self) -> dict[str, Any]:
        numbers = Numbers(self.header, self._architecture)
        check_causal(numbers, self._architecture)
        config = self._known.config(numbers)
        config["vocab_size"] = stored_tokens(self.header, numbers.rows("token_embd.weight"))
        if (source := _source(self.header)) is not None:
            config["_name_or_path"] = source
        module = "sentence_transformers.models."
        paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        settings: dict[str, Any] = {
            "config.json": config,
            "modules.json": [
                {"idx": index, "name": str(index), "path": path, "type": module + name}
                for index, (name, path) in enumerate(paths.items())
            ],
            "1_Pooling/config.json": pooling_of(numbers),
        }
        settings[SENTENCE] = self._sentence_settings(numbers.number("context_length"))
        numbers.check_all_read()
        if "tokenizer_config.json" not in self._beside:
            # A class that changes nothing in tokenizer.json.
            settings["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        return settings

    def _sentence_settings(self, context_length: float) -> dict[str, Any]:
        """Return the rules of the folder of --tokenizer, for texts of at most what the file says."""
        path = self._beside.pop(SENTENCE, None)
        given = {} if path is None else read_json(path)
        longest = whole_number(SENTENCE, given, "max_seq_length", int(context_length))
        return {**given, "max_seq_length": min(longest, context_length)}


def _source(header: Header) -> str | None:
    """Return the hub id of the model that a file was made from, or its name."""
    for key in SOURCES:
        found = REPOSITORY.fullmatch(str(header.settings.get(key, "")))
        if found is not None:
            return found[1]
    name = header.settings.get("general.name")
    return re.sub(r"\s+", "-", name)[:200] if isinstance(name, str) and name else None


def _beside(tokenizer: Path) -> dict[str, Path]:
    """Return the files of a tokenizer by their names.

    A path to a tokenizer.json stands for the folder, whose other files say how it is used. A file of another name
    stands for itself.
    """
    if tokenizer.is_file() and tokenizer.name != "tokenizer.json":
        return {"tokenizer.json": tokenizer}
    if tokenizer.is_file():
        tokenizer = tokenizer.parent
    found = {name: tokenizer / name for name in TOKENIZER_FILES if exists(tokenizer / name)}
    if not found.keys() & {"tokenizer.json", "vocab.txt"}:
        raise NoSuchModel("{folder} has neither tokenizer.json nor vocab.txt", folder=tokenizer)
    return found
