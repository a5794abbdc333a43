"""Texts to token ids, exactly as sentence-transformers prepares them for the same model."""

import os
from collections.abc import Sequence
from functools import cached_property

# The lanes own the cores; the library's own thread pool would compete with them. Read at import.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import tokenizers

from server.manifest import TextRules
from server.types import Ids, InputType, Tokens

# Texts of more characters than this per token of the maximum are first tried by their beginning: a
# 10 MB text would otherwise cost seconds to keep 512 tokens of. Ordinary text has one to five.
CHARACTERS_PER_TOKEN = 16
# No more than so many such beginnings are ever read: past a thousand characters a token a text is
# one endless word, which is one unknown token, at 0.4 s a megabyte.
MOST_BEGINNINGS = 64


class Tokenizer:
    """Thread-safe: it holds no state besides the vocabulary."""

    def __init__(self, tokenizer_json: str, rules: TextRules) -> None:
        self.rules = rules
        self._json = tokenizer_json
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(rules.max_tokens)
        self._long = CHARACTERS_PER_TOKEN * rules.max_tokens
        self._instructions: dict[InputType, str] = {
            "query": rules.query_instruction,
            "document": rules.document_instruction,
        }

    def encode(self, texts: Sequence[str], input_type: InputType = "document") -> Tokens:
        """Token ids of each text with the instruction of its kind, cut to the model's maximum.

        The Rust library releases the interpreter lock while it works. Raises UnicodeEncodeError
        for a lone surrogate.
        """
        instruction = self._instructions[input_type]
        prepared = [(instruction + text).strip() for text in texts]
        if self.rules.lower_case:
            prepared = [text.lower() for text in prepared]
        try:
            read = [self._beginning(t) if len(t) > self._long else t for t in prepared]
            encodings = self._tokenizer.encode_batch_fast(read)
        except TypeError:
            # What the library says to a lone surrogate; Python's own error says it plainly.
            "".join(prepared).encode()
            raise
        ids: list[Ids] = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        full = self.rules.max_tokens
        # subtle: .overflowing copies every cut-off piece, so only texts of full length are asked.
        truncated = [
            index
            for index, encoding in enumerate(encodings)
            if len(read[index]) < len(prepared[index])
            or (len(ids[index]) == full and encoding.overflowing)
        ]
        return Tokens(ids, truncated)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a whole, without special tokens and without a limit."""
        prepared = [text.lower() for text in texts] if self.rules.lower_case else list(texts)
        encodings = self._unlimited.encode_batch_fast(prepared, add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    @cached_property
    def _unlimited(self) -> tokenizers.Tokenizer:
        """The same without truncation; only long documents need it, so it is made on demand."""
        unlimited = tokenizers.Tokenizer.from_str(self._json)
        unlimited.no_padding()
        unlimited.no_truncation()
        return unlimited

    def _beginning(self, text: str) -> str:
        """As much of a long text as decides its first tokens.

        A cut may change the tokens of the word it cuts, and no others; once two pieces of the
        maximum's length have overflowed, that word is far behind what is kept.
        """
        size, most = self._long, self._long * MOST_BEGINNINGS
        while size < min(most, len(text)):
            beginning = text[:size]
            if len(self._tokenizer.encode_batch_fast([beginning])[0].overflowing) >= 2:
                return beginning
            size *= 4
        return text[:most]
