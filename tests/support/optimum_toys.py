"""Tiny random networks of many architectures with the files of sentence-transformers, written with transformers."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

N_WORDS, WIDTH, MAX_TOKENS = 500, 48, 40
SHAPE: Mapping[str, object] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "initializer_range": 0.2,
}


@dataclass(frozen=True)
class Case:
    """One checkpoint: an architecture, and how its sentence-transformers files pool."""

    model_type: str
    pooling: str
    normalize: bool = True
    config: Mapping[str, object] = field(default_factory=lambda: SHAPE)

    def __str__(self) -> str:
        return f"{self.model_type}-{self.pooling}"


@contextmanager
def quietly() -> Iterator[None]:
    """Warnings of other packages about their coming changes are not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_checkpoint(case: Case, folder: Path) -> Path:
    """Write a seeded random network with a tokenizer of numbered words and the module files."""
    with quietly():
        import torch
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import models, pre_tokenizers, processors
        from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

        special = ["<s>", "<pad>", "</s>", "<unk>"]
        words = [*special, *(f"w{number}" for number in range(N_WORDS))]
        rust = RustTokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
        rust.pre_tokenizer = pre_tokenizers.Whitespace()
        rust.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        named = dict(
            zip(("cls_token", "pad_token", "sep_token", "unk_token"), special, strict=True)
        )
        PreTrainedTokenizerFast(
            tokenizer_object=rust,
            model_max_length=MAX_TOKENS,
            model_input_names=["input_ids", "attention_mask"],
            **named,
        ).save_pretrained(folder)
        torch.manual_seed(7)
        config = AutoConfig.for_model(
            case.model_type,
            vocab_size=len(words),
            max_position_embeddings=MAX_TOKENS + 2,
            pad_token_id=1,
            **case.config,
        )
        network = AutoModel.from_config(config)
        with torch.no_grad():
            # Untrained biases and norms are all alike and would hide a mix-up.
            for weight in network.parameters():
                weight += 0.05 * torch.randn_like(weight)
        network.save_pretrained(folder)
    write_modules(case, folder)
    return folder


def write_modules(case: Case, folder: Path) -> None:
    kinds = ["Transformer", "Pooling", *(["Normalize"] if case.normalize else [])]
    modules = []
    for number, kind in enumerate(kinds):
        path = f"{number}_{kind}" if number else ""
        (folder / path).mkdir(exist_ok=True)
        module_type = f"sentence_transformers.models.{kind}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": module_type})
    (folder / "modules.json").write_text(json.dumps(modules))
    flags = {
        f"pooling_mode_{name}": name.startswith(case.pooling)
        for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    }
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": WIDTH, **flags})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS}))


def texts(n_texts: int, seed: int) -> list[str]:
    """Return texts of random words, of all lengths and beyond the maximum."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, MAX_TOKENS + 5, n_texts)
    return [" ".join(f"w{word}" for word in random.integers(0, N_WORDS, n)) for n in lengths]
