"""Reads a model's tokenizer as transformers would build it, from tokenizer.json or vocab.txt."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer, processors
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from export.errors import CorruptFile, ExportError, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.source.file import MOST_TABLE
from export.source.folder import ModelFolder
from export.source.json_file import Json, boolean, decode, shown
from export.source.modules import Modules
from export.source.tokenizer_class import (
    CONFIG,
    SPECIAL,
    adds_end,
    apply_settings,
    class_of,
    content_of,
)
from server.errors import BadArtifact
from server.inference.tokenization.tokenizer_bounds import check_bounds

# Mistral's too. What they put around a text is said by tokenizer_config.json alone.
LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")


def read_tokenizer(folder: ModelFolder, modules: Modules) -> str:
    """Return the tokenizer's JSON as transformers would use it, without truncation and padding.

    subtle: in transformers tokenizer_config.json, and its own defaults for what that leaves out,
    override the normaliser stored in tokenizer.json. So that file alone may lower-case differently
    from the original model.
    """
    described, vocabulary = map(modules.file, ("tokenizer.json", "vocab.txt"))
    config = folder.optional_json(modules.file(CONFIG))
    if folder.has(described):
        tokenizer = read_description(folder.path(described), folder.content(described, MOST_TABLE))
    elif folder.has(vocabulary):
        tokenizer = _read_vocabulary(
            folder.path(vocabulary), folder.content(vocabulary, MOST_TABLE), config
        )
    else:
        raise NoSuchModel(
            "{folder} has neither tokenizer.json nor vocab.txt",
            folder=folder.path(modules.transformer),
        )
    _check_truncation(tokenizer, config)
    added = folder.optional_json(modules.file("added_tokens.json"))
    _check_added(
        tokenizer, config.get("added_tokens_decoder", dict(zip(added, added, strict=True)))
    )
    apply_settings(
        tokenizer,
        class_of(config, folder.optional_json(modules.file("config.json"))),
        config,
        folder.optional_json(modules.file("special_tokens_map.json")),
    )
    if config.get("tokenizer_class") in LLAMA:
        _override_template(tokenizer, config, begins="add_bos_token" not in config)
    elif adds_end(config):
        _override_template(tokenizer, config, begins=False)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return str(tokenizer.to_str())


def read_description(path: Path, content: bytes) -> Tokenizer:
    """Return the tokenizer that a tokenizer.json describes; raises an ExportError."""
    with _library(path):
        description = decode(content)
        # First, because the library compiles every pattern.
        try:
            check_bounds(description)
        except BadArtifact as error:
            raise UnsupportedModel(
                "{path} cannot be used: {error}", path=path, error=error
            ) from None
        return Tokenizer.from_str(content.decode("utf-8-sig"))


def _read_vocabulary(path: Path, content: bytes, config: Json) -> Tokenizer:
    """Return BERT's WordPiece over vocab.txt; `apply_settings` sets its options."""
    name = str(config.get("tokenizer_class", "BertTokenizer"))[:80]
    if name not in ("BertTokenizer", "BertTokenizerFast"):
        raise UnsupportedModel(
            "{parent} has no tokenizer.json, and vocab.txt alone does not describe a {name}",
            parent=path.parent,
            name=name,
        )
    for key in SPECIAL:
        token, usual = content_of(config.get(key)), f"[{key.removesuffix('_token').upper()}]"
        if token not in (None, usual) and key not in ("bos_token", "eos_token"):
            raise UnsupportedModel(
                "{config}: {key} is {shown}, and a vocabulary alone is read with {usual}; save the tokenizer "
                "as tokenizer.json",
                config=CONFIG,
                key=key,
                shown=shown(token),
                usual=usual,
            )
    with _library(path, "{path} is not a vocabulary: {error}"):
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        if not lines[-1]:
            lines.pop()
        built = BertWordPieceTokenizer({token: index for index, token in enumerate(lines)})
        return Tokenizer.from_str(built.to_str())


def _override_template(tokenizer: Tokenizer, config: Json, *, begins: bool) -> None:
    """Put around every text what transformers does for a Llama, whatever tokenizer.json says.

    begins: whether bos_token stands before a text where the settings do not say it.
    """
    # Null means no.
    begins = boolean(CONFIG, config, "add_bos_token", default=begins)
    ends = boolean(CONFIG, config, "add_eos_token", default=False)
    before = [_special(tokenizer, config, "bos_token", "<s>")] if begins else []
    after = [_special(tokenizer, config, "eos_token", "</s>")] if ends else []
    around = [
        [f"{token}:{text}" for token, _ in side] for side in (before, after) for text in (0, 1)
    ]
    with _library(Path(CONFIG)):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*around[0], "$A:0", *around[2]],
            pair=[*around[0], "$A:0", *around[2], *around[1], "$B:1", *around[3]],
            special_tokens=[*before, *after],
        )


def _special(tokenizer: Tokenizer, config: Json, key: str, default: str) -> tuple[str, int]:
    """Return a special token that the configuration names, and its id."""
    content = content_of(config.get(key, default))
    found = tokenizer.token_to_id(content) if isinstance(content, str) else None
    if found is None:
        raise UnsupportedModel(
            "{config} adds the token {shown}, which the tokenizer does not have; save the tokenizer "
            "as tokenizer.json",
            config=CONFIG,
            shown=shown(content),
        )
    return str(content), found


def _check_truncation(tokenizer: Tokenizer, config: Json) -> None:
    """Refuse a model that reads the end of a long text: the server reads the beginning."""
    stored = (tokenizer.truncation or {}).get("direction", "right")
    side = config.get("truncation_side") or stored
    if str(side).lower() != "right":
        raise UnsupportedModel(
            "the tokenizer cuts long texts at the {side} (truncation_side); only right is supported",
            side=str(side)[:20],
        )


def _check_added(tokenizer: Tokenizer, added: object) -> None:
    """Refuse tokens that transformers would add to the tokenizer's own.

    added: of tokenizer_config.json, or of added_tokens.json where that file lists none.
    """
    own = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for content in map(content_of, added.values() if isinstance(added, dict) else ()):
        if content not in own:
            raise UnsupportedModel(
                "{config} adds the token {shown}, which the tokenizer does not have; save the tokenizer "
                "as tokenizer.json",
                config=CONFIG,
                shown=shown(content),
            )


def check_tokenizer(tokenizer_json: str, size: int, max_tokens: int) -> None:
    """Refuse a tokenizer that cannot read every text, or gives ids that the network lacks.

    size: rows of the network's word embeddings. max_tokens: of the longest text.
    """
    with _library(Path("tokenizer.json")):
        tokenizer = Tokenizer.from_str(tokenizer_json)
        vocabulary = tokenizer.get_vocab()
        around = tokenizer.encode("")
    if not vocabulary:
        raise CorruptFile("the tokenizer has no vocabulary")
    # Special tokens around a text may have ids that no entry of the vocabulary has.
    given = [*vocabulary.items(), *zip(around.tokens, around.ids, strict=True)]
    token, index = max(given, key=lambda item: item[1])
    if index >= size:
        raise ShapeMismatch(
            "the tokenizer gives {token!r} the id {index}, but vocab_size is {vocabulary}",
            token=token[:80],
            index=index,
            vocabulary=size,
        )
    if len(around) >= max_tokens:
        raise ShapeMismatch(
            "the tokenizer puts {special} special tokens around every text; the model reads "
            "{max_tokens} tokens, so nothing of a text would be left",
            special=len(around),
            max_tokens=max_tokens,
        )
    _check_unknown(tokenizer)
    if any(tokenizer.encode("a 1").type_ids):
        raise UnsupportedModel(
            "the tokenizer gives the tokens of a text another type than 0, which the server does not pass "
            "to the network"
        )


def check_pairs(tokenizer_json: str, max_tokens: int) -> None:
    """Refuse a tokenizer that leaves no room for two texts, or gives their tokens other types than 0 and 1."""
    with _library(Path("tokenizer.json")):
        tokenizer = Tokenizer.from_str(tokenizer_json)
        special = len(tokenizer.encode("", ""))
        types = {*tokenizer.encode("a 1", "b 2").type_ids}
    if special + 2 > max_tokens:
        raise ShapeMismatch(
            "the tokenizer puts {special} special tokens around every pair of texts; the model reads "
            "{max_tokens} tokens, so nothing of the texts would be left",
            special=special,
            max_tokens=max_tokens,
        )
    if not types <= {0, 1}:
        raise UnsupportedModel(
            "the tokenizer gives the tokens of a pair the types {types}; only 0 and 1 are supported",
            types=str(sorted(types)),
        )


def _check_unknown(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that fails at a character it does not know."""
    try:
        # Private use, a script with few tokens, and a word that no vocabulary has.
        for text in ("\ue000", "\U0001044f", "\u16a0\u16ee\ue001x"):
            tokenizer.encode(text)
    except Exception as error:
        raise CorruptFile(
            "the tokenizer cannot read a text with an unknown character: {error}; its vocabulary must "
            "hold its unknown token, such as [UNK]",
            error=error,
        ) from None


@contextmanager
def _library(path: Path, template: str = "{path} is not a tokenizer: {error}") -> Iterator[None]:
    """Report everything that the tokenizers library raises for a file as a file that is damaged."""
    try:
        yield
    except (ExportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # It raises bare Exception, TypeError where [CLS] or [SEP] is missing, and for a bug of its own a
        # panic, which is no Exception.
        raise CorruptFile(template, path=path, error=str(error)[:500]) from None
