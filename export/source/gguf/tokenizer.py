"""Rebuilds the tokenizer of a GGUF file, where the file says enough of it.

It does for a WordPiece without upper-case letters: BERT's, which lower-cases texts and takes accents off them, as
llama.cpp does. Of all others the file leaves out how texts are normalised or split, and the original tokenizer
must be given.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from export.errors import CorruptFile, UnsupportedModel
from export.source.gguf.header import Header
from server.messages.message import Message

PREFIX = "tokenizer.ggml"
# Of a word's first piece, where BERT marks the others.
WORD, CONTINUED = "▁", "##"
# Kinds of tokens that texts are not split into: unknown, control.
SPECIAL = (2, 3)
NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def rebuilt_tokenizer(header: Header) -> str:
    """Return tokenizer.json; raises UnsupportedModel where the original tokenizer is needed."""
    settings = header.settings
    model = settings.get(f"{PREFIX}.model")
    if model != "bert":
        raise _needed(Message("a tokenizer of the kind {kind}", kind=str(model)[:20]))
    vocabulary: dict[str, int] = {}
    for place, token in enumerate(_words(settings)):
        if token in vocabulary:
            raise CorruptFile("GGUF: the token {token!r} stands twice", token=token[:40])
        vocabulary[token] = place
    if any(map(_is_cased, vocabulary)):
        raise _needed(Message("upper-case letters or accents in its vocabulary"))
    if not {"[UNK]", "[CLS]", "[SEP]"} <= vocabulary.keys():
        raise _needed(Message("special tokens of other names than [UNK], [CLS] and [SEP]"))
    built = BertWordPieceTokenizer(vocabulary, lowercase=True)
    built.add_special_tokens([name for name in NAMES if name in vocabulary])
    return str(built.to_str())


def _words(settings: Any) -> Iterator[str]:
    """Yield BERT's form of each token."""
    tokens = settings.get(f"{PREFIX}.tokens")
    kinds = settings.get(f"{PREFIX}.token_type", [])
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise CorruptFile("GGUF: {key} is no list of texts", key=f"{PREFIX}.tokens")
    for place, token in enumerate(tokens):
        kind = kinds[place] if isinstance(kinds, list) and place < len(kinds) else 1
        if kind in SPECIAL or (token.startswith("[") and token.endswith("]")):
            yield token
        else:
            yield token[1:] if token.startswith(WORD) else CONTINUED + token


def _is_cased(token: str) -> bool:
    if token.startswith("[") and token.endswith("]"):
        return False
    apart = unicodedata.normalize("NFD", token)
    return token != token.lower() or any(unicodedata.category(each) == "Mn" for each in apart)


def _needed(what: Message) -> UnsupportedModel:
    return UnsupportedModel(
        "the GGUF file has {what}, and leaves out how texts are normalised or split for it; give the original "
        "tokenizer.json, or the folder that it is in, with --tokenizer",
        what=what,
    )
