"""Rebuilds the tokenizer of a GGUF file, where the file says enough of it.

It does for a WordPiece without upper-case letters: BERT's, which lower-cases texts and takes accents off them, as
llama.cpp does. Of all others the file leaves out how texts are normalised or split, and the original tokenizer
must be given.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.gguf.header import Header
from server.messages.message import Message

PREFIX = "tokenizer.ggml"
# Of a word's first piece, where BERT marks the others.
WORD, CONTINUED = "▁", "##"
# Kinds of tokens: a piece of texts; those that texts are not split into, which are unknown and control.
NORMAL, SPECIAL = 1, (2, 3)
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


def stored_tokens(header: Header, rows: int) -> int:
    """Return the number of tokens, which are as many as the rows of the embeddings; raises CorruptFile."""
    tokens = header.settings.get(f"{PREFIX}.tokens")
    if isinstance(tokens, list) and len(tokens) != rows:
        raise CorruptFile(
            "GGUF: {key} has {found} tokens, and the embeddings have {rows} rows",
            key=f"{PREFIX}.tokens",
            found=len(tokens),
            rows=rows,
        )
    return rows


def check_same_tokens(header: Header, tokenizer_json: str) -> None:
    """Refuse a tokenizer with another piece of texts at the place of one in the file; raises ShapeMismatch."""
    tokens, kinds = (header.settings.get(f"{PREFIX}.{key}") for key in ("tokens", "token_type"))
    if not isinstance(tokens, list):
        return
    vocabulary = Tokenizer.from_str(tokenizer_json).get_vocab()
    found = {place: token for token, place in vocabulary.items()}
    for place, stored in enumerate(tokens):
        if place in found and _kind(kinds, place) == NORMAL:
            if stored not in _forms(found[place]):
                raise ShapeMismatch(
                    "the tokenizer is not that of the GGUF file: token {place} is {token!r} in it, and "
                    "{stored!r} in the file; give the tokenizer of the model that the file was made from",
                    place=place,
                    token=found[place][:40],
                    stored=str(stored)[:40],
                )


def _forms(token: str) -> tuple[str, ...]:
    """Return the forms in which llama.cpp may store a token: its own, and that of BERT's."""
    return token, WORD + token, token.removeprefix(CONTINUED)


def _kind(kinds: Any, place: int) -> Any:
    return kinds[place] if isinstance(kinds, list) and place < len(kinds) else NORMAL


def _words(settings: Any) -> Iterator[str]:
    """Yield BERT's form of each token."""
    tokens = settings.get(f"{PREFIX}.tokens")
    kinds = settings.get(f"{PREFIX}.token_type", [])
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise CorruptFile("GGUF: {key} is no list of texts", key=f"{PREFIX}.tokens")
    for place, token in enumerate(tokens):
        if token.startswith(WORD):
            yield token[1:]
        elif _kind(kinds, place) in SPECIAL or (token.startswith("[") and token.endswith("]")):
            yield token
        else:
            yield CONTINUED + token


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
