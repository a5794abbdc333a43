"""Toy rerankers that answer a prompt, as Qwen3-Reranker does, and what its own code computes with them in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from tests.support.checkpoints import change_json
from tests.support.decoder_toys import END, byte_level, write_decoder
from tests.support.reference_decoder import ReferenceDecoder
from tests.support.toys import WORDS as TOY_WORDS
from tests.support.toys import write_json, write_typed_modules

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
MARKS = (END, "<|im_start|>", "<|im_end|>", "<think>", "</think>")
MAX_TOKENS = 320
# Names of the folder's own, by which it is known.
KNOWN = "Qwen/Qwen3-Reranker-0.6B"
NAMES = {"causal": "Qwen3ForCausalLM", "score": "Qwen3ForSequenceClassification"}


def write_reranker(
    folder: Path, kind: str = "causal", *, known: bool = True, tied: bool = True, **changes: Any
) -> Path:
    """Write a random one; returns `folder`.

    kind: causal, score (the same scores, converted), or listed (with modules, as CrossEncoder saves it). known:
    its config.json names Qwen3-Reranker.
    """
    tokenizer = reranker_tokenizer()
    if kind == "score":
        end = tokenizer.token_to_id(END)
        changes |= {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "pad_token_id": end}
    if known:
        changes["_name_or_path"] = KNOWN
    write_decoder(
        folder,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=MAX_TOKENS,
        architectures=[NAMES.get(kind, NAMES["causal"])],
        tie_word_embeddings=tied,
        prefix="model.",
        **changes,
    )
    for name in ("1_Pooling/config.json", "sentence_bert_config.json", "modules.json"):
        (folder / name).unlink()
    (folder / "config_sentence_transformers.json").unlink()
    (folder / "1_Pooling").rmdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    change_json(folder / "tokenizer_config.json", padding_side="left")
    _write_head(folder, tokenizer, kind, tied)
    if kind == "listed":
        _write_modules(folder, tokenizer)
    return folder


def _write_head(folder: Path, tokenizer: Tokenizer, kind: str, tied: bool) -> None:
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    if not tied:
        random = np.random.default_rng(7).standard_normal(table.shape)
        table = (random * table.shape[1] ** -0.5).astype(np.float32)
    if kind == "score":
        yes, no = map(tokenizer.token_to_id, ("yes", "no"))
        tensors["score.weight"] = (table[yes] - table[no])[None].copy()
    elif not tied:
        tensors["lm_head.weight"] = table
    save_file(tensors, folder / "model.safetensors")


def _write_modules(folder: Path, tokenizer: Tokenizer) -> None:
    types = {
        "": "base.modules.transformer.Transformer",
        "1_LogitScore": "cross_encoder.modules.logit_score.LogitScore",
    }
    write_typed_modules(folder, types)
    yes, no = map(tokenizer.token_to_id, ("yes", "no"))
    write_json(folder / "1_LogitScore/config.json", {"true_token_id": yes, "false_token_id": no})
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None},
    )


def reranker_tokenizer() -> Tokenizer:
    """Return a small byte-level BPE that knows the words of the prompt, with Qwen's marks and pattern."""
    built = byte_level(models.BPE())
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    words = (BEFORE, AFTER, f"<Instruct>: {INSTRUCTION}\n<Query>: a?\n<Document>: b", "yes no")
    trainer = BpeTrainer(
        vocab_size=520,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    built.train_from_iterator([*words, *TOY_WORDS, "what is it?\n"] * 2, trainer)
    built.add_special_tokens(list(MARKS))
    return built


class ReferenceReranker(ReferenceDecoder):
    """The code in the card of Qwen3-Reranker in numpy: float64, one pair at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(
        self, query: str, document: str, max_tokens: int, instruction: str = INSTRUCTION
    ) -> list[int]:
        """Return the tokens of a pair as process_inputs of the card makes them."""
        before, after = (
            self.tokenizer.encode(part, add_special_tokens=False).ids for part in (BEFORE, AFTER)
        )
        body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        cutting = Tokenizer.from_str(self.tokenizer.to_str())
        cutting.enable_truncation(max_tokens - len(before) - len(after))
        return [*before, *cutting.encode(body).ids, *after]

    def logit(self, ids: list[int]) -> float:
        """Return how much more the model would answer yes than no."""
        table = self.tensors.get("lm_head.weight", self.tensors["embed_tokens.weight"])
        last = self.hidden(np.array(ids))[-1] @ table.T
        yes, no = map(self.tokenizer.token_to_id, ("yes", "no"))
        return float(last[yes] - last[no])
