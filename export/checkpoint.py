"""Reads a checkpoint folder as sentence-transformers would: weights, network shape, text preparation.

No torch is needed for safetensors. What cannot be honoured exactly is refused here, by name, before
any work is done; `bert.py` and `quantise.py` take what this module returns as true.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        raise NoSuchModel(f"no model folder at {folder}", f"没有这个模型文件夹：{folder}")
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
        raise NoSuchModel(f"{path} does not exist", f"文件不存在：{path}") from None
    except OSError as error:
        raise CorruptFile(
            f"{path} cannot be read: {error.strerror}", f"{path} 无法读取：{error.strerror}"
        ) from None
    except ValueError as error:
        raise CorruptFile(
            f"{path} is not valid JSON: {error}", f"{path} 不是有效的 JSON：{error}"
        ) from None
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} must hold a JSON object", f"{path} 必须是一个 JSON 对象")
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
            f'model_type "{model_type}" is not written directly; try --via optimum',
            f'不直接支持 model_type "{model_type}"；请试试 --via optimum',
        )
    position_type = config.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise UnsupportedModel(
            f'position_embedding_type "{position_type}" is not "absolute"; try --via optimum',
            f'position_embedding_type 为 "{position_type}"，只支持 "absolute"；请试试 --via optimum',
        )
    if config.get("is_decoder"):
        raise UnsupportedModel(
            "is_decoder: true asks for attention to earlier tokens only; try --via optimum",
            "is_decoder: true 要求只关注之前的 token，不直接支持；请试试 --via optimum",
        )
    activation = str(config.get("hidden_act", "gelu"))
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UnsupportedModel(
            f'hidden_act "{activation}" is not one of {known}; try --via optimum',
            f'hidden_act "{activation}" 不在支持之列（{known}）；请试试 --via optimum',
        )
    try:
        shape = BertShape(
            vocabulary=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            intermediate=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            token_types=int(config.get("type_vocab_size", 2)),
            layer_norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=ACTIVATIONS[activation],
        )
    except KeyError as error:
        raise CorruptFile(
            f"config.json lacks {error.args[0]}", f"config.json 缺少 {error.args[0]}"
        ) from None
    except (TypeError, ValueError) as error:
        raise CorruptFile(
            f"config.json holds something other than a number: {error}",
            f"config.json 中有一项不是数字：{error}",
        ) from None
    if min(shape.layers, shape.heads, shape.token_types) < 1 or shape.hidden % shape.heads:
        raise ShapeMismatch(
            f"hidden_size {shape.hidden} cannot be split into {shape.heads} heads"
            f" of {shape.layers} layers with {shape.token_types} token types",
            f"hidden_size {shape.hidden} 无法分成 {shape.heads} 个注意力头"
            f"（{shape.layers} 层，{shape.token_types} 种 token 类型）",
        )
    return shape


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
    prompts = _optional_json(folder / "config_sentence_transformers.json")
    pooling = "mean"
    if "Pooling" in modules:
        pooling = _pooling_mode(read_json(folder / modules["Pooling"] / "config.json"))
    positions = _whole_number(config, "max_position_embeddings", 512)
    model_max_length = _whole_number(tokenizer_config, "model_max_length", positions)
    max_tokens = _whole_number(sentence_config, "max_seq_length", min(positions, model_max_length))
    if not 3 <= max_tokens <= positions:
        raise ShapeMismatch(
            f"max_seq_length {max_tokens} is outside 3 to {positions} (max_position_embeddings)",
            f"max_seq_length {max_tokens} 超出 3 到 {positions}（max_position_embeddings）的范围",
        )
    return SentenceSettings(
        pooling=pooling,
        normalize="Normalize" in modules,
        max_tokens=max_tokens,
        lower_case=bool(sentence_config.get("do_lower_case", False)),
        prompts=dict(prompts.get("prompts") or {}),
        default_prompt=prompts.get("default_prompt_name"),
    )


def _module_folders(folder: Path) -> dict[str, str]:
    """modules.json as {class name: folder}; raises for a module that is not honoured."""
    path = folder / "modules.json"
    if not path.exists():
        return {"Transformer": ""}
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        folders = {str(m["type"]).rsplit(".", 1)[-1]: str(m["path"]) for m in modules}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} cannot be read: {error}", f"{path} 无法读取：{error}") from None
    for name in folders:
        if name not in ("Transformer", "Pooling", "Normalize"):
            raise UnsupportedModel(
                f'{path} has a module "{name}"; only Transformer, Pooling and Normalize are'
                " supported (a Dense layer changes the vector and is not written)",
                f"{path} 含有模块 “{name}”；只支持 Transformer、Pooling 和 Normalize"
                "（Dense 层会改变向量，目前不支持）",
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
            f"pooling {found} is not supported; one of {', '.join(SUPPORTED_POOLING)} is needed",
            f"不支持的池化方式 {found}；需要 {'、'.join(SUPPORTED_POOLING)} 之一",
        )
    if config.get("include_prompt") is False:
        raise UnsupportedModel(
            "pooling that leaves the prompt out (include_prompt: false) is not supported",
            "不支持排除提示词的池化（include_prompt: false）",
        )
    return modes[0]


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _whole_number(settings: dict[str, Any], key: str, default: int) -> int:
    value = settings.get(key)
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        raise CorruptFile(
            f"{key} is {value!r}, not a number", f"{key} 为 {value!r}，不是数字"
        ) from None


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
                f"{path} is not a tokenizer: {error}", f"{path} 不是分词器文件：{error}"
            ) from None
    elif vocabulary.exists():
        tokenizer = _read_vocabulary(vocabulary, config)
    else:
        raise NoSuchModel(
            f"{folder} has neither tokenizer.json nor vocab.txt",
            f"{folder} 中既没有 tokenizer.json 也没有 vocab.txt",
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
            f"{path.parent} has no tokenizer.json, and vocab.txt alone does not describe a {name}",
            f"{path.parent} 中没有 tokenizer.json，仅凭 vocab.txt 无法还原 {name}",
        )
    try:
        built = BertWordPieceTokenizer(models.WordPiece.read_file(str(path)))
        return Tokenizer.from_str(built.to_str())
    except Exception as error:
        # Bare Exception from the Rust library, TypeError where [CLS] or [SEP] is missing.
        raise CorruptFile(
            f"{path} is not a vocabulary: {error}", f"{path} 不是词表文件：{error}"
        ) from None


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
    token, index = max(
        Tokenizer.from_str(tokenizer_json).get_vocab().items(), key=lambda item: item[1]
    )
    if index >= shape.vocabulary:
        raise ShapeMismatch(
            f"the tokenizer gives {token!r} the id {index}, but vocab_size is {shape.vocabulary}",
            f"分词器给 {token!r} 的编号是 {index}，而 vocab_size 只有 {shape.vocabulary}",
        )


# --- the weights ---------------------------------------------------------------------------------


def _weight_files(folder: Path, *, allow_pickle: bool) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).exists()]
        if missing or not names:
            raise NoSuchModel(
                f"{index} names missing files: {', '.join(missing) or 'none at all'}",
                f"{index} 所列的文件不存在：{'、'.join(missing) or '一个也没有'}",
            )
        return [folder / name for name in names]
    pickled = folder / "pytorch_model.bin"
    if pickled.exists() and allow_pickle:
        return [pickled]
    if pickled.exists():
        raise NoSuchModel(
            f"{folder} has only pytorch_model.bin; add --allow-pickle to read it (weights only)",
            f"{folder} 只有 pytorch_model.bin；如确认要读取（仅权重），请加 --allow-pickle",
        )
    raise NoSuchModel(f"{folder} has no model.safetensors", f"{folder} 中没有 model.safetensors")


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
            f"{path} cannot be read as safetensors: {error}",
            f"{path} 无法作为 safetensors 读取：{error}",
        ) from None


def _read_pickle(path: Path) -> dict[str, FloatArray]:
    try:
        import torch
    except ImportError:
        raise MissingPackage(
            "reading pytorch_model.bin needs torch: install the export-any extra",
            "读取 pytorch_model.bin 需要 torch：请安装 export-any 附加依赖",
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in loaded.items()}
    except Exception as error:
        # torch raises many kinds (pickle, zip, attribute errors) for a bad or unsafe file.
        raise CorruptFile(
            f"{path} cannot be read as weights only: {error}",
            f"{path} 无法按“仅权重”读取：{error}",
        ) from None


def _check_shapes(tensors: Mapping[str, FloatArray], shape: BertShape) -> None:
    for name, expected in expected_shapes(shape).items():
        found = tensors[name].shape if name in tensors else None
        if found != expected:
            what = "is missing" if found is None else f"has shape {found}"
            what_zh = "缺失" if found is None else f"形状为 {found}"
            raise ShapeMismatch(
                f"tensor {name} {what}; config.json asks for {expected}",
                f"张量 {name} {what_zh}；config.json 要求 {expected}",
            )
    for name in expected_shapes(shape):
        if not np.isfinite(tensors[name]).all():
            raise CorruptFile(
                f"tensor {name} holds NaN or infinity", f"张量 {name} 含 NaN 或无穷大"
            )


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
