"""Texts to token ids, exactly as sentence-transformers prepares them for the same model."""

import os
from collections.abc import Sequence

# The lanes own the cores; the library's own thread pool would compete with them. Read at import.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import tokenizers

from server.manifest import TextRules
from server.types import Ids, InputType, Tokens


class Tokenizer:
    """Thread-safe: it holds no state besides the vocabulary."""

    def __init__(self, tokenizer_json: str, rules: TextRules) -> None:
        self.rules = rules
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(rules.max_tokens)
        self._instructions: dict[InputType, str] = {
            "query": rules.query_instruction,
            "document": rules.document_instruction,
        }

    def encode(self, texts: Sequence[str], input_type: InputType = "document") -> Tokens:
        """Token ids of each text with the instruction of its kind, cut to the model's maximum.

        The Rust library releases the interpreter lock while it works.
        """
        instruction = self._instructions[input_type]
        prepared = [(instruction + text).strip() for text in texts]
        if self.rules.lower_case:
            prepared = [text.lower() for text in prepared]
        encodings = self._tokenizer.encode_batch_fast(prepared)
        ids: list[Ids] = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        full = self.rules.max_tokens
        # subtle: .overflowing copies every cut-off piece, so only texts of full length are asked.
        truncated = [
            index
            for index, encoding in enumerate(encodings)
            if len(ids[index]) == full and encoding.overflowing
        ]
        return Tokens(ids, truncated)
