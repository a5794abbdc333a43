"""How much memory and time do the export and the longest text of a model of bge-m3's shape take?

    python -m benchmarks.large_model FOLDER [--layers 24] [EXPORT OPTIONS]

The weights are random: cost depends on the shape, agreement with float32 means nothing. The checkpoint
and the artifact stay in FOLDER (5 GB). Each step runs in a process of its own, so that its peak of resident
memory is its own; a mapped file counts while it is in use. One JSON line a step.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from server.inference.model import Model
from server.system.cpu import cpu_budget

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a checkpoint; the defaults are bge-m3's."""

    layers: int = 24
    hidden: int = 1024
    heads: int = 16
    intermediate: int = 4096
    vocabulary: int = 250_002
    max_tokens: int = 8192


def write_checkpoint(folder: Path, shape: Shape = Shape()) -> Path:
    """Write a random XLM-R as sentence-transformers saves one, a tensor at a time; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder / "model.safetensors", _shapes(shape))
    config = {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "hidden_act": "gelu",
        "max_position_embeddings": shape.max_tokens + 2,
        "pad_token_id": 1,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    _write_json(folder / "config.json", config)
    _tokenizer(shape.vocabulary).save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": shape.max_tokens},
    )
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": shape.max_tokens})
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
        {
            "idx": 2,
            "name": "2",
            "path": "2_Normalize",
            "type": "sentence_transformers.models.Normalize",
        },
    ]
    _write_json(folder / "modules.json", modules)
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, wide = shape.hidden, shape.intermediate
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (shape.vocabulary, hidden),
        "embeddings.position_embeddings.weight": (shape.max_tokens + 2, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    linears = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (wide, hidden),
        "output.dense": (hidden, wide),
    }
    for index in range(shape.layers):
        for name, size in linears.items():
            found[f"encoder.layer.{index}.{name}.weight"] = size
            found[f"encoder.layer.{index}.{name}.bias"] = size[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"encoder.layer.{index}.{name}.weight"] = (hidden,)
            found[f"encoder.layer.{index}.{name}.bias"] = (hidden,)
    return found


def _write_weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
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


def _random(shapes: dict[str, tuple[int, ...]]) -> Iterator[bytes]:
    """Yield the numbers of each tensor; outputs of a linear layer keep unit variance."""
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        norm = "LayerNorm.weight" in name
        scale = shape[-1] ** -0.5 if len(shape) == 2 and "embeddings" not in name else 0.1
        for rows in range(0, shape[0], 65_536):
            size = (min(65_536, shape[0] - rows), *shape[1:])
            part = generator.standard_normal(size, dtype=np.float32) * np.float32(scale)
            yield (part + np.float32(norm)).tobytes()


def _tokenizer(vocabulary: int) -> Tokenizer:
    """Return a Unigram as XLM-R has, of common and rare characters and of made-up words."""
    characters = [chr(code) for code in (*range(33, 127), *range(0x4E00, 0x9FA5))]
    marks = [*"▁，。、；：？！“”（）《》—…·"]
    pieces = dict.fromkeys((*marks, *characters))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    arguments, options = parser.parse_known_args()
    if arguments.folder == Path("serve"):
        _serve(Path(options[0]))
        return
    checkpoint, artifact = arguments.folder / "checkpoint", arguments.folder / "onnx"
    if not (checkpoint / "1_Pooling").exists():
        write_checkpoint(checkpoint, Shape(layers=arguments.layers))
    exporting = ["export", str(checkpoint), f"--out={artifact}", "--min-agreement=-1,-1"]
    _run("export", [*exporting, "--force", *options])
    _run("serve", ["benchmarks.large_model", "serve", str(artifact)])


def _run(step: str, command: list[str]) -> None:
    """Run a module in a process of its own, and print what it took."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    line = {
        "case": f"large model, {step}",
        "peak_mb": round(usage.ru_maxrss / 1024),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }
    print(json.dumps(line), flush=True)


def _serve(artifact: Path) -> None:
    """Open an artifact as the server does, with a thread for every core, and compute its longest text."""
    model = Model(artifact, wide_threads=cpu_budget())
    ids = np.random.default_rng(0).integers(5, 1000, model.manifest.text.max_tokens)
    assert np.isfinite((model.wide or model.encoder).encode([ids])).all()


if __name__ == "__main__":
    main()
