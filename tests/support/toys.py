"""Small seeded models and texts: checkpoint folders as the hub has them, with random weights."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Array = npt.NDArray[Any]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
PUNCTUATION = ",.!?;:'\"()-，。！？；：、“”《》（）"
CHARACTERS = (
    "墨池笔纸砚书画山水云雨风花鸟鱼虫天地日月星人大小上下左右东西南北春夏秋冬早晚明暗冷热"
    "一二三四五六七八九十百千万年时分我你他的是在有不了和也就都说看听写读走来去回到开关"
    "学生老师医院银行公司法律合同劳动工资假期数据模型向量搜索文档机器智能城市道路"
)
WORDS = ("search", "server", "index", "ink", "well", "##ed", "##ing", "##er")
VOCABULARY = (
    *SPECIAL,
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *DIGITS,
    *(f"##{digit}" for digit in DIGITS),
    *PUNCTUATION,
    *CHARACTERS,
    *WORDS,
)
TRANSFORMER, POOLING, NORMALIZE = "Transformer", "Pooling", "Normalize"
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
}


def write_toy_checkpoint(
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    intermediate: int = 64,
    vocabulary: Sequence[str] = VOCABULARY,
    token_types: int = 2,
    pooling: str = "cls",
    normalize: bool = True,
    activation: str = "gelu",
    lower_case: bool = True,
    max_tokens: int = 64,
    positions: int | None = None,
    layer_norm_epsilon: float = 1e-12,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
    seed: int = 0,
) -> Path:
    """Write a random BERT as sentence-transformers saves one; returns `folder`.

    lower_case: texts are lower-cased before a tokenizer which does not, as in bge-*-zh-v1.5; its
    vocabulary has no upper case. positions: rows of the position table, `max_tokens` unless given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = max_tokens if positions is None else positions
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "hidden_act": activation,
        "max_position_embeddings": positions,
        "type_vocab_size": token_types,
        "layer_norm_eps": layer_norm_epsilon,
        "position_embedding_type": "absolute",
    }
    write_json(folder / "config.json", config)
    tensors = random_tensors(
        seed, len(vocabulary), hidden, layers, intermediate, positions, token_types
    )
    save_file(tensors, folder / "model.safetensors")
    tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": positions},
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_tokens, "do_lower_case": lower_case},
    )
    write_modules(folder, [TRANSFORMER, POOLING, *([NORMALIZE] if normalize else [])])
    flags = {flag: mode == pooling for mode, flag in POOLING_FLAGS.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **flags})
    if prompts is not None:
        write_json(
            folder / "config_sentence_transformers.json",
            {"prompts": dict(prompts), "default_prompt_name": default_prompt},
        )
    return folder


def write_modules(folder: Path, names: Sequence[str]) -> None:
    """Write modules.json: the first module in the folder itself, the others in folders of their own."""
    paths = [f"{index}_{name}" if index else "" for index, name in enumerate(names)]
    types = [f"models.{name}" for name in names]
    write_typed_modules(folder, dict(zip(paths, types, strict=True)))


def write_typed_modules(folder: Path, types: Mapping[str, str]) -> None:
    """Write modules.json with the type of the module in each folder, without its first word."""
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (path, kind) in enumerate(types.items())
    ]
    write_json(folder / "modules.json", modules)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def random_tensors(
    seed: int,
    vocabulary: int,
    hidden: int,
    layers: int,
    intermediate: int,
    positions: int,
    token_types: int,
) -> dict[str, Array]:
    """Return float32 tensors under the names of a Hugging Face BertModel; outputs keep unit variance."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> dict[str, Array]:
        weight = normal(outputs, inputs, scale=inputs**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": normal(outputs, scale=0.1)}

    def layer_norm(name: str) -> dict[str, Array]:
        return {
            f"{name}.weight": 1 + normal(hidden, scale=0.1),
            f"{name}.bias": normal(hidden, scale=0.1),
        }

    tensors = {
        "embeddings.word_embeddings.weight": normal(vocabulary, hidden),
        "embeddings.position_embeddings.weight": normal(positions, hidden, scale=0.3),
        "embeddings.token_type_embeddings.weight": normal(token_types, hidden, scale=0.3),
        **layer_norm("embeddings.LayerNorm"),
    }
    for index in range(layers):
        prefix = f"encoder.layer.{index}"
        for name in ("query", "key", "value"):
            tensors |= linear(f"{prefix}.attention.self.{name}", hidden, hidden)
        tensors |= linear(f"{prefix}.attention.output.dense", hidden, hidden)
        tensors |= layer_norm(f"{prefix}.attention.output.LayerNorm")
        tensors |= linear(f"{prefix}.intermediate.dense", intermediate, hidden)
        tensors |= linear(f"{prefix}.output.dense", hidden, intermediate)
        tensors |= layer_norm(f"{prefix}.output.LayerNorm")
    return tensors


def tokenizer(vocabulary: Sequence[str] = VOCABULARY, *, lower_case: bool = False) -> Tokenizer:
    """Return BERT's WordPiece: [CLS] text [SEP], one token a Chinese character."""
    places = {token: place for place, token in enumerate(vocabulary)}
    built = Tokenizer(models.WordPiece(places, unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=lower_case, strip_accents=None)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, places[token]) for token in ("[CLS]", "[SEP]")],
    )
    built.decoder = decoders.WordPiece()
    built.add_special_tokens(list(SPECIAL))
    return built


def toy_texts(number: int, *, longest: int = 40, seed: int = 0) -> list[str]:
    """Return distinct texts of Chinese characters, words, digits and punctuation, 1 to `longest` pieces."""
    choose = random.Random(seed)
    pieces = [*CHARACTERS, *DIGITS, *PUNCTUATION, " search ", " Server ", " ink ", " GPU ", " x1 "]
    texts: dict[str, None] = {}
    while len(texts) < number:
        length = choose.randint(1, longest)
        text = "".join(choose.choice(pieces) for _ in range(length)).strip()
        if text:
            texts[text] = None
    return list(texts)


def write_toy_texts(path: Path, number: int, *, longest: int = 40, seed: int = 0) -> Path:
    """Write `toy_texts`, one a line; returns `path`."""
    lines = toy_texts(number, longest=longest, seed=seed)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
