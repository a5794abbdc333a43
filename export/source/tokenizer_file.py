"""Reads a folder's tokenizer as transformers would build it, from tokenizer.json or vocab.txt."""

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from export.errors import CorruptFile, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.source.json_file import Json, optional_json


def read_tokenizer(folder: Path) -> str:
    """Return the tokenizer's JSON as transformers would use it, without truncation and padding.

    subtle: in transformers tokenizer_config.json, and its own defaults for what that leaves out,
    override the normaliser stored in tokenizer.json. So that file alone may lower-case differently
    from the original model.
    """
    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    config = optional_json(folder / "tokenizer_config.json")
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
        raise NoSuchModel("{folder} has neither tokenizer.json nor vocab.txt", folder=folder)
    if "Bert" in str(config.get("tokenizer_class", "Bert")):
        _override_normalizer(tokenizer, config)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return str(tokenizer.to_str())


def _read_vocabulary(path: Path, config: Json) -> Tokenizer:
    """Return BERT's WordPiece over vocab.txt; `_override_normalizer` sets its options."""
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


def _override_normalizer(tokenizer: Tokenizer, config: Json) -> None:
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    normalizer.lowercase = bool(config.get("do_lower_case", True))
    normalizer.handle_chinese_chars = bool(config.get("tokenize_chinese_chars", True))
    strip_accents = config.get("strip_accents")
    normalizer.strip_accents = None if strip_accents is None else bool(strip_accents)
    tokenizer.normalizer = normalizer


def check_vocabulary(tokenizer_json: str, size: int) -> None:
    """Refuse a tokenizer that gives ids which the network's `size` word embeddings lack."""
    vocabulary = Tokenizer.from_str(tokenizer_json).get_vocab()
    if not vocabulary:
        raise CorruptFile("the tokenizer has no vocabulary")
    token, index = max(vocabulary.items(), key=lambda item: item[1])
    if index >= size:
        raise ShapeMismatch(
            "the tokenizer gives {token!r} the id {index}, but vocab_size is {vocabulary}",
            token=token,
            index=index,
            vocabulary=size,
        )
