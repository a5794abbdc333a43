"""Which of the project's texts a vocabulary can read: decided by what its tokens leave of them."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from export.source.folder import ModelFolder
from export.source.modules import Modules
from export.source.tokenizer_file import read_tokenizer
from export.texts.files import CHINESE, ENGLISH, MULTILINGUAL, TextSet, read_texts
from export.texts.vocabulary import choose_texts, unreadable_share
from server.inference.manifest import TextRules
from server.inference.tokenizer import Tokenizer
from tests.support.toys import SPECIAL

RULES = TextRules(lower_case=False, max_tokens=512)


def word_pieces(*sets: TextSet) -> str:
    """Return a tokenizer.json whose vocabulary has every word of some of the project's texts."""
    texts = [text for each in sets for text in read_texts(each.verification, at_least=1)]
    split = pre_tokenizers.BertPreTokenizer()
    words = {word: None for text in texts for word, _ in split.pre_tokenize_str(text)}
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    made = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = split
    return str(made.to_str())


def byte_pieces(texts: list[str]) -> str:
    """Return a tokenizer.json of bytes that has learnt the words of some texts and knows no unknown one."""
    made = Library(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return str(made.to_str())


@pytest.mark.parametrize("known", [ENGLISH, CHINESE, MULTILINGUAL], ids=lambda known: known.name)
def test_set_is_the_widest_that_the_words_of_a_vocabulary_can_read(known: TextSet) -> None:
    tokenizer_json = word_pieces(known)
    assert choose_texts(Tokenizer(tokenizer_json, RULES), tokenizer_json) == known


def test_characters_in_single_bytes_are_not_read() -> None:
    tokenizer_json = byte_pieces(read_texts(ENGLISH.calibration, at_least=1))
    tokenizer = Tokenizer(tokenizer_json, RULES)
    assert choose_texts(tokenizer, tokenizer_json) == ENGLISH
    assert unreadable_share(tokenizer, ["用人单位应当建立制度"], None) == 1


def test_words_in_single_letters_are_not_read() -> None:
    letters = "арендтокизл"
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), "a", "день"]
    made = Library(models.WordPiece(dict(zip(pieces, range(99), strict=False)), unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = Tokenizer(made.to_str(), RULES)
    unknown = SPECIAL.index("[UNK]")
    assert unreadable_share(tokenizer, ["аренда"], unknown) == 1
    assert unreadable_share(tokenizer, ["день", "a a a"], unknown) == 0


def test_vocabulary_that_reads_none_of_the_sets_takes_the_english_one(toy_checkpoint: Path) -> None:
    tokenizer_json = read_tokenizer(ModelFolder(toy_checkpoint), Modules())
    assert choose_texts(Tokenizer(tokenizer_json, RULES), tokenizer_json) == ENGLISH


def test_shipped_model_keeps_the_texts_that_its_artifact_was_made_with(
    shipped_checkpoint: Path, shipped_artifact: Path
) -> None:
    tokenizer_json = read_tokenizer(ModelFolder(shipped_checkpoint), Modules())
    rules = TextRules(lower_case=True, max_tokens=512)
    assert choose_texts(Tokenizer(tokenizer_json, rules), tokenizer_json) == CHINESE
    assert json.loads(tokenizer_json)["model"]["type"] == "WordPiece"
