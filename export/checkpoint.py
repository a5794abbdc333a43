"""Reads a checkpoint folder as sentence-transformers would: weights, network shape, text preparation.

No torch is needed for safetensors. What cannot be honoured exactly is refused here, by name, before
any work is done; `bert.py` and `quantise.py` take what this module returns as true.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes  # noqa: F401  Teaches numpy bfloat16, which safetensors then finds by name.
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer, models, normalizers
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from export.errors import (
    CorruptFile,
    MissingPackage,
    NoSuchModel,
    ShapeMismatch,
    UnsupportedModel,
)
from server.messages.message import Message

FloatArray = npt.NDArray[np.float32]

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SUPPORTED_POOLING = ("cls", "mean", "max")
# config.json's hidden_act -> (operator, value of ONNX Gelu's `approximate` attribute)
EXACT_GELU, TANH_GELU, RELU = "gelu", "gelu_tanh", "relu"
ACTIVATIONS = {
    "gelu": EXACT_GELU,
    "gelu_python": EXACT_GELU,
    "gelu_new": TANH_GELU,
    "gelu_fast": TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "relu": RELU,
}
# No BERT is near these. They keep a damaged number from being worked with until memory is gone.
MOST, MOST_LAYERS = 10_000_000, 1_000


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of config.json that the graph depends on."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    token_types: int
    layer_norm_epsilon: float
    activation: str


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """What the sentence-transformers module files say about text and pooling."""

    pooling: str
    normalize: bool
    max_tokens: int
    lower_case: bool
    prompts: Mapping[str, str]
    default_prompt: str | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A BERT encoder in memory.

    tensors: float32, named as in the Hugging Face checkpoint without the leading "bert.".
    tokenizer_json: the tokenizer as transformers would build it, without truncation and padding.
    sha256: over every file that was read, names and contents.
    """

    folder: Path
    shape: BertShape
    settings: SentenceSettings
    tensors: Mapping[str, FloatArray]
    tokenizer_json: str
    sha256: str


def read_checkpoint(folder: Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Read and check a checkpoint folder; raises an ExportError that names the file at fault."""
    if not folder.is_dir():
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    config = read_json(folder / "config.json")
    shape = _bert_shape(config)
    settings = read_settings(folder, config)
    weight_files = _weight_files(folder, allow_pickle=allow_pickle)
    tensors = _read_tensors(weight_files)
    _check_shapes(tensors, shape)
    tokenizer_json = read_tokenizer(folder)
    _check_vocabulary(tokenizer_json, shape)
    return Checkpoint(
        folder=folder,
        shape=shape,
        settings=settings,
        tensors=tensors,
        tokenizer_json=tokenizer_json,
        sha256=hash_files(folder, weight_files),
    )


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoSuchModel("{path} does not exist", path=path) from None
    except OSError as error:
        raise CorruptFile(
            "{path} cannot be read: {strerror}", path=path, strerror=error.strerror
        ) from None
    except ValueError as error:
        raise CorruptFile("{path} is not valid JSON: {error}", path=path, error=error) from None
    except RecursionError:
        raise CorruptFile("{path} nests objects or arrays too deeply", path=path) from None
    if not isinstance(value, dict):
        raise CorruptFile("{path} must hold a JSON object", path=path)
    return value


def hash_files(folder: Path, weight_files: list[Path]) -> str:
    """One sha256 over the JSON settings, the vocabulary and the weights that make the model."""
    names = [*folder.glob("*.json"), *folder.glob("*/config.json"), *folder.glob("vocab.txt")]
    digest = hashlib.sha256()
    for path in sorted({*names, *weight_files}):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


# --- the network's shape -------------------------------------------------------------------------


def _bert_shape(config: dict[str, Any]) -> BertShape:
    model_type = config.get("model_type")
    if model_type != "bert":
        raise UnsupportedModel(
            'model_type "{model_type}" is not written directly; try --via optimum',
            model_type=model_type,
        )
    position_type = config.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise UnsupportedModel(
            'position_embedding_type "{position_type}" is not "absolute"; try --via optimum',
            position_type=position_type,
        )
    if config.get("is_decoder"):
        raise UnsupportedModel(
            "is_decoder: true asks for attention to earlier tokens only; try --via optimum",
        )
    activation = str(config.get("hidden_act", "gelu"))
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UnsupportedModel(
            'hidden_act "{activation}" is not one of {known}; try --via optimum',
            activation=activation,
            known=known,
        )
    shape = BertShape(
        vocabulary=_size(config, "vocab_size"),
        hidden=_size(config, "hidden_size"),
        layers=_size(config, "num_hidden_layers", most=MOST_LAYERS),
        heads=_size(config, "num_attention_heads"),
        intermediate=_size(config, "intermediate_size"),
        positions=_size(config, "max_position_embeddings"),
        token_types=_size(config, "type_vocab_size", 2),
        layer_norm_epsilon=_layer_norm_epsilon(config),
        activation=ACTIVATIONS[activation],
    )
    if shape.hidden % shape.heads:
        raise ShapeMismatch(
            "hidden_size {hidden} cannot be split into {heads} heads",
            hidden=shape.hidden,
            heads=shape.heads,
        )
    return shape


def _size(config: dict[str, Any], key: str, default: int | None = None, most: int = MOST) -> int:
    """A number of config.json that counts something; without a default it must be there."""
    if default is None and key not in config:
        raise CorruptFile("config.json lacks {key}", key=key)
    # A null is taken for the default, and so refused where there is none.
    size = _whole_number("config.json", config, key, default)
    if not 1 <= size <= most:
        raise CorruptFile(
            "config.json: {key} {shown} is outside 1 to {most}",
            key=key,
            shown=_shown(size),
            most=most,
        )
    return size


def _layer_norm_epsilon(config: dict[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    # Written so that NaN, which Python reads from JSON, is refused.
    if not _is_number(value) or not 0 <= value < 1:
        raise CorruptFile(
            "config.json: layer_norm_eps is {shown}, not a number from 0 to below 1",
            shown=_shown(value),
        )
    return float(value)


# --- the sentence-transformers module files ------------------------------------------------------


def read_settings(folder: Path, config: dict[str, Any]) -> SentenceSettings:
    """Pooling, normalisation, length limit, lower-casing and prompts of the folder.

    A folder without modules.json gets what sentence-transformers gives it: mean pooling, not
    normalised in the module list (cosine models normalise at use; the artifact says so), and its
    sentence_bert_config.json is not looked at.
    """
    modules = _module_folders(folder)
    transformer = folder / modules.get("Transformer", "")
    sentence_config = {}
    if (folder / "modules.json").exists():
        sentence_config = _optional_json(transformer / "sentence_bert_config.json")
    tokenizer_config = _optional_json(transformer / "tokenizer_config.json")
    prompts, default_prompt = _read_prompts(folder / "config_sentence_transformers.json")
    pooling = "mean"
    if "Pooling" in modules:
        pooling = _pooling_mode(read_json(folder / modules["Pooling"] / "config.json"))
    positions = _size(config, "max_position_embeddings", 512)
    model_max_length = _whole_number(
        "tokenizer_config.json", tokenizer_config, "model_max_length", positions
    )
    max_tokens = _whole_number(
        "sentence_bert_config.json",
        sentence_config,
        "max_seq_length",
        min(positions, model_max_length),
    )
    if not 3 <= max_tokens <= positions:
        raise ShapeMismatch(
            "max_seq_length {shown} is outside 3 to {positions} (max_position_embeddings)",
            shown=_shown(max_tokens),
            positions=positions,
        )
    return SentenceSettings(
        pooling=pooling,
        normalize="Normalize" in modules,
        max_tokens=max_tokens,
        lower_case=bool(sentence_config.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt=default_prompt,
    )


def _read_prompts(path: Path) -> tuple[dict[str, str], str | None]:
    """(prompts by name, name of the one that is put before every text)."""
    settings = _optional_json(path)
    prompts, default = settings.get("prompts"), settings.get("default_prompt_name")
    if prompts is None:
        prompts = {}
    if not _is_object_of_strings(prompts):
        raise CorruptFile(
            "{path}: prompts is {shown}, not an object of strings",
            path=path,
            shown=_shown(prompts),
        )
    if default is not None and not isinstance(default, str):
        raise CorruptFile(
            "{path}: default_prompt_name is {shown}, not a string",
            path=path,
            shown=_shown(default),
        )
    for name, prompt in prompts.items():
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise CorruptFile(
                "{path}: prompt {shown} holds half of a surrogate pair, which is no character",
                path=path,
                shown=_shown(name),
            ) from None
    return prompts, default


def _module_folders(folder: Path) -> dict[str, str]:
    """modules.json as {class name: folder}; raises for a module that is not honoured."""
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


def _pooling_mode(config: dict[str, Any]) -> str:
    # subtle: sentence-transformers takes a flag that is not there as false, but for mean as true.
    modes = [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag, mode == "mean")]
    if config.get("pooling_mode") is not None:
        modes = [str(config["pooling_mode"])]
    if len(modes) != 1 or modes[0] not in SUPPORTED_POOLING:
        found = " + ".join(modes) or "none"
        raise UnsupportedModel(
            "pooling {found} is not supported; one of {supported} is needed",
            found=found,
            supported=tuple(SUPPORTED_POOLING),
        )
    if config.get("include_prompt") is False:
        raise UnsupportedModel(
            "pooling that leaves the prompt out (include_prompt: false) is not supported",
        )
    return modes[0]


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _whole_number(file: str, settings: dict[str, Any], key: str, default: int | None) -> int:
    value = settings.get(key)
    if value is None and default is not None:
        return default
    # 512.0 is whole, too: 1e30 is what some write for "no limit".
    if not _is_number(value) or (isinstance(value, float) and not value.is_integer()):
        raise CorruptFile(
            "{file}: {key} is {shown}, not a whole number",
            file=file,
            key=key,
            shown=_shown(value),
        )
    return int(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_object_of_strings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _shown(value: object) -> str:
    """A value for a message: on one line, not too long, and printable whatever it holds."""
    return reprlib.repr(value)


# --- the tokenizer -------------------------------------------------------------------------------


def read_tokenizer(folder: Path) -> str:
    """The tokenizer's JSON as transformers would use it.

    subtle: transformers lets tokenizer_config.json, and its own defaults where that says nothing,
    override the normaliser stored in tokenizer.json, so that file alone may lower-case differently
    from the original model.
    """
    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    config = _optional_json(folder / "tokenizer_config.json")
    if path.exists():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            # The Rust library raises bare Exception for a file it cannot parse.
            raise CorruptFile(
                "{path} is not a tokenizer: {error}", path=path, error=error
            ) from None
    elif vocabulary.exists():
        tokenizer = _read_vocabulary(vocabulary, config)
    else:
        raise NoSuchModel(
            "{folder} has neither tokenizer.json nor vocab.txt",
            folder=folder,
        )
    if "Bert" in str(config.get("tokenizer_class", "Bert")):
        _override_normalizer(tokenizer, config)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return str(tokenizer.to_str())


def _read_vocabulary(path: Path, config: dict[str, Any]) -> Tokenizer:
    """BERT's WordPiece over vocab.txt; `_override_normalizer` sets what the model wants of it."""
    name = config.get("tokenizer_class", "BertTokenizer")
    if name not in ("BertTokenizer", "BertTokenizerFast"):
        raise UnsupportedModel(
            "{parent} has no tokenizer.json, and vocab.txt alone does not describe a {name}",
            parent=path.parent,
            name=name,
        )
    try:
        built = BertWordPieceTokenizer(models.WordPiece.read_file(str(path)))
        return Tokenizer.from_str(built.to_str())
    except Exception as error:
        # Bare Exception from the Rust library, TypeError where [CLS] or [SEP] is missing.
        raise CorruptFile("{path} is not a vocabulary: {error}", path=path, error=error) from None


def _override_normalizer(tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    normalizer.lowercase = bool(config.get("do_lower_case", True))
    normalizer.handle_chinese_chars = bool(config.get("tokenize_chinese_chars", True))
    strip_accents = config.get("strip_accents")
    normalizer.strip_accents = None if strip_accents is None else bool(strip_accents)
    tokenizer.normalizer = normalizer


def _check_vocabulary(tokenizer_json: str, shape: BertShape) -> None:
    vocabulary = Tokenizer.from_str(tokenizer_json).get_vocab()
    if not vocabulary:
        raise CorruptFile("the tokenizer has no vocabulary")
    token, index = max(vocabulary.items(), key=lambda item: item[1])
    if index >= shape.vocabulary:
        raise ShapeMismatch(
            "the tokenizer gives {token!r} the id {index}, but vocab_size is {vocabulary}",
            token=token,
            index=index,
            vocabulary=shape.vocabulary,
        )


# --- the weights ---------------------------------------------------------------------------------


def _weight_files(folder: Path, *, allow_pickle: bool) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        weight_map = read_json(index).get("weight_map", {})
        if not _is_object_of_strings(weight_map):
            raise CorruptFile(
                "{index}: weight_map is {shown}, not an object of strings",
                index=index,
                shown=_shown(weight_map),
            )
        names = sorted(set(weight_map.values()))
        for name in names:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise CorruptFile(
                    "{index} names {shown}, which is outside the folder",
                    index=index,
                    shown=_shown(name),
                )
        missing = [name for name in names if not (folder / name).exists()]
        if missing or not names:
            raise NoSuchModel(
                "{index} names missing files: {missing}",
                index=index,
                missing=tuple(missing) or Message("none at all"),
            )
        return [folder / name for name in names]
    pickled = folder / "pytorch_model.bin"
    if pickled.exists() and allow_pickle:
        return [pickled]
    if pickled.exists():
        raise NoSuchModel(
            "{folder} has only pytorch_model.bin; add --allow-pickle to read it (weights only)",
            folder=folder,
        )
    raise NoSuchModel("{folder} has no model.safetensors", folder=folder)


def _read_tensors(files: list[Path]) -> dict[str, FloatArray]:
    tensors: dict[str, FloatArray] = {}
    for path in files:
        reader = _read_pickle if path.suffix == ".bin" else _read_safetensors
        for name, array in reader(path).items():
            name = name.removeprefix("bert.")
            # Checkpoints converted from TensorFlow keep its names for the layer norm.
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
            name = name.replace("LayerNorm.beta", "LayerNorm.bias")
            tensors[name] = array
    return tensors


def _read_safetensors(path: Path) -> dict[str, FloatArray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {
                name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in file.keys()
            }
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        # AttributeError and TypeError: an element type that numpy does not have.
        raise CorruptFile(
            "{path} cannot be read as safetensors: {error}",
            path=path,
            error=error,
        ) from None


def _read_pickle(path: Path) -> dict[str, FloatArray]:
    try:
        import torch
    except ImportError:
        raise MissingPackage(
            "reading pytorch_model.bin needs torch: install the export-any extra",
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in loaded.items()}
    except Exception as error:
        # torch raises many kinds (pickle, zip, attribute errors) for a bad or unsafe file.
        raise CorruptFile(
            "{path} cannot be read as weights only: {error}",
            path=path,
            error=error,
        ) from None


def _check_shapes(tensors: Mapping[str, FloatArray], shape: BertShape) -> None:
    for name, expected in expected_shapes(shape).items():
        found = tensors[name].shape if name in tensors else None
        if found != expected:
            what = Message("is missing")
            if found is not None:
                what = Message("has shape {shape}", shape=str(found))
            raise ShapeMismatch(
                "tensor {name} {what}; config.json asks for {expected}",
                name=name,
                what=what,
                expected=str(expected),
            )
    for name in expected_shapes(shape):
        if not np.isfinite(tensors[name]).all():
            raise CorruptFile("tensor {name} holds NaN or infinity", name=name)


def expected_shapes(shape: BertShape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that the graph needs."""
    hidden, wide = shape.hidden, shape.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (shape.vocabulary, hidden),
        "embeddings.position_embeddings.weight": (shape.positions, hidden),
        "embeddings.token_type_embeddings.weight": (shape.token_types, hidden),
        **_affine("embeddings.LayerNorm", hidden),
    }
    for index in range(shape.layers):
        prefix = f"encoder.layer.{index}."
        for name in ("query", "key", "value"):
            shapes |= _affine(f"{prefix}attention.self.{name}", hidden, hidden)
        shapes |= _affine(f"{prefix}attention.output.dense", hidden, hidden)
        shapes |= _affine(f"{prefix}attention.output.LayerNorm", hidden)
        shapes |= _affine(f"{prefix}intermediate.dense", wide, hidden)
        shapes |= _affine(f"{prefix}output.dense", hidden, wide)
        shapes |= _affine(f"{prefix}output.LayerNorm", hidden)
    return shapes


def _affine(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
