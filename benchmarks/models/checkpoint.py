"""Writes a checkpoint of a published shape with random weights, as sentence-transformers saves one.

Tensors are written one at a time, so a model of any size takes little memory. The tokenizer is made up: as many
words as the model's, among them all characters that the project's texts need.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from benchmarks.models.published import SCORE, Published
from export import families
from export.families.bert.family import DISTILBERT_PARTS, MPNET_PARTS
from export.known.recognition import HIDDEN
from export.texts.files import ENGLISH, MULTILINGUAL, read_texts

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
# Letters of a part of a word.
PART = 5
MODULES = "sentence_transformers.models"
LAYERS = "encoder.layer."
# Family -> transformers' names by those of a BERT, and what a layer's names begin with.
PARTS = {
    "distilbert": (
        {ours: theirs for theirs, ours in DISTILBERT_PARTS.items()},
        "transformer.layer.",
    ),
    "mpnet": ({ours: theirs for theirs, ours in MPNET_PARTS.items()}, LAYERS),
}


def write_checkpoint(folder: Path, model: Published) -> Path:
    """Write a random model of this shape; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder / "model.safetensors", stored_shapes(model))
    _write_json(folder / "config.json", dict(model.config))
    tokenizer = _tokenizer(model.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(model))
    if model.pooling != SCORE:
        _write_modules(folder, model)
    return folder


def stored_shapes(model: Published) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its name in the file, as transformers calls it."""
    config = dict(model.config)
    family = families.of(config)
    shape = family.read_shape(config)
    if model.pooling == SCORE:
        assert family.scorer is not None
        shape = family.scorer(shape, False).shape
    return {
        _stored_name(name, model.prefix, family.name): tuple(size)
        for name, size in shape.tensors().items()
    }


def _stored_name(name: str, prefix: str, family: str) -> str:
    """Return transformers' name of a tensor, where a family calls it as in a BERT."""
    parts, layers = PARTS.get(family, ({}, ""))
    if parts and name.startswith(LAYERS):
        index, _, rest = name.removeprefix(LAYERS).partition(".")
        part, _, kind = rest.rpartition(".")
        return f"{layers}{index}.{parts.get(part, part)}.{kind}"
    return name if name.startswith("classifier.") else prefix + name


def _tokenizer_config(model: Published) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    }


def _write_modules(folder: Path, model: Published) -> None:
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": model.max_tokens})
    names = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{MODULES}.{name}"}
        for index, (name, path) in enumerate(names.items())
    ]
    _write_json(folder / "modules.json", modules)
    pooling = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    hidden = next(model.config[key] for key in HIDDEN if key in model.config)
    flags = {f"pooling_mode_{name}": kind == model.pooling for kind, name in pooling.items()}
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **flags})


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    with path.open("wb") as file:
        file.write(len(described).to_bytes(8, "little") + described)
        for part in _random(shapes):
            file.write(part)


def _random(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[bytes]:
    """Yield the numbers of each tensor; outputs of a linear layer keep unit variance."""
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        vector = len(shape) == 1
        # A norm's weights are near 1. All other vectors are biases.
        norm = vector and name.endswith(".weight")
        scale = 0.1 if vector or "embed" in name else shape[-1] ** -0.5
        for rows in range(0, shape[0], 65_536):
            size = (min(65_536, shape[0] - rows), *shape[1:])
            part = generator.standard_normal(size, dtype=np.float32) * np.float32(scale)
            yield (part + np.float32(norm)).tobytes()


def _parts() -> Iterator[str]:
    """Yield words of the project's texts, long ones in parts: XLM-R has some 1.5 tokens a word."""
    for text_set in (ENGLISH, MULTILINGUAL):
        for path in (text_set.calibration, text_set.verification):
            for text in read_texts(path, at_least=1):
                for word in unicodedata.normalize("NFKC", text).split():
                    yield f"▁{word[:PART]}"
                    yield from (word[at : at + PART] for at in range(PART, len(word), PART))


def _tokenizer(vocabulary: int) -> Tokenizer:
    """Return a Unigram as XLM-R has: characters, parts of the words of the project's texts, made-up words."""
    characters = [chr(code) for code in (*range(33, 127), *range(0x4E00, 0x9FA5))]
    marks = [*"▁，。、；：？！“”（）《》—…·"]
    pieces = dict.fromkeys((*marks, *characters, *_parts()))
    letters, number = "etaoinshrdlucmfwypvbgkqjxz", 0
    while len(pieces) < vocabulary - len(SPECIAL) - 1:
        word, rest = "", number
        while rest or not word:
            word, rest = word + letters[rest % 26], rest // 26
        pieces[f"▁{word}"] = None
        number += 1
    scored = [(piece, -8.0 - index / 20_000) for index, piece in enumerate(pieces)]
    table = [*((token, 0.0) for token in SPECIAL), *scored[: vocabulary - len(SPECIAL) - 1]]
    built = Tokenizer(models.Unigram([*table, ("<mask>", 0.0)], 3, False))
    built.normalizer = normalizers.NFKC()
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    built.add_special_tokens([*SPECIAL, "<mask>"])
    return built
