"""Gives a network the head that scores pairs of texts, and reads how pairs are put to it.

Three kinds of folders have such a head: a ForSequenceClassification with one label, a language model
whose answer to a prompt is the score, and the latter saved by CrossEncoder, with a module LogitScore.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
from tokenizers import Tokenizer

from export.errors import CorruptFile, UnsupportedModel
from export.families.family import Answers, Family, Scorer, Shape
from export.kinds.networks import CAUSAL, CLASSIFIER
from export.kinds.own_code import check_code
from export.kinds.sighting import Sighting
from export.known.pair_prompts import NO_PROMPT, PAIR_PROMPTS, KnownPrompt
from export.source.folder import ModelFolder
from export.source.json_file import Json, boolean, check_known, shown, whole_number
from export.source.modules import Modules
from export.source.scoring import Scoring, has_token_types, read_activation, read_pair_settings
from export.source.sentence_settings import PROMPTS, SentenceSettings, limited
from export.source.tokenizer_file import check_pairs
from server.inference.manifest import PairPrompt

# The settings of the module LogitScore. Any other may change the score.
ANSWERS = ("true_token_id", "false_token_id")


class PairModel(NamedTuple):
    """What is read of a model that scores pairs."""

    shape: Shape
    settings: SentenceSettings
    scoring: Scoring


def read_pair_model(
    files: ModelFolder,
    seen: Sighting,
    modules: Modules,
    family: Family[Any],
    shape: Shape,
    tokenizer_json: str,
    max_tokens: int | None,
) -> PairModel:
    """Return the shape with its head and what is done to pairs; raises an ExportError.

    max_tokens: what pairs are cut to; None for what the model's own code reads.
    """
    config = seen.config or {}
    # Only language models read prompts, whatever a model is called.
    known = PAIR_PROMPTS.get(seen.pair_prompt or "") if family.answering is not None else None
    if seen.ends_in(CLASSIFIER):
        scorer = _with_score(files, modules, config, family, shape)
    else:
        scorer = _with_answers(files, modules, config, family, shape, known, tokenizer_json)
    settings = read_pair_settings(files, modules, shape.positions, scorer.pooling)
    saved = files.optional_json(PROMPTS)
    if known is not None and max_tokens is None:
        settings = replace(settings, max_tokens=min(known.max_tokens, settings.max_tokens))
    settings = limited(settings, max_tokens)
    prompt = _pair_prompt(files, known, saved, settings)
    if prompt is None:
        check_pairs(tokenizer_json, settings.max_tokens)
        _check_last_token(config, scorer, tokenizer_json)
    scoring = Scoring(read_activation(config, saved), scorer.second_text_offset, prompt)
    return PairModel(scorer.shape, settings, scoring)


def check_prompt_fits(chosen: str | None, family: str, *, fits: bool) -> None:
    """Refuse a prompt that was chosen for a model that reads none. fits: whether it is one that reads prompts."""
    if chosen not in (None, NO_PROMPT) and not fits:
        raise UnsupportedModel(
            "--pair-prompt {name} is for language models that score pairs of texts, and this {family} is none; "
            "leave it out",
            name=chosen,
            family=family,
        )


def _with_score(
    files: ModelFolder, modules: Modules, config: Json, family: Family[Any], shape: Shape
) -> Scorer[Any]:
    check_code(config, family.name, "AutoModelForSequenceClassification")
    if family.scorer is None:
        raise _not_written(family)
    return family.scorer(shape, has_token_types(files, modules, config))


def _with_answers(
    files: ModelFolder,
    modules: Modules,
    config: Json,
    family: Family[Any],
    shape: Shape,
    known: KnownPrompt | None,
    tokenizer_json: str,
) -> Scorer[Any]:
    check_code(config, family.name, f"AutoModel{CAUSAL}")
    if family.answering is None or known is None:
        raise _not_written(family)
    listed = modules.answers_file()
    if listed is not None:
        yes, no = _listed_answers(files, listed, shape.vocabulary)
    else:
        vocabulary = Tokenizer.from_str(tokenizer_json)
        yes, no = (_token(vocabulary, word) for word in (known.yes, known.no))
    tied = boolean("config.json", config, "tie_word_embeddings", default=False)
    return family.answering(shape, Answers(yes, no, tied))


def _not_written(family: Family[Any]) -> UnsupportedModel:
    return UnsupportedModel(
        "cross-encoders of the family {family} are not written", family=family.name
    )


def _token(tokenizer: Tokenizer, word: str) -> int:
    found = tokenizer.token_to_id(word)
    if found is None:
        raise UnsupportedModel(
            "the tokenizer has no token {word!r}, by which the model would answer; leave out --pair-prompt",
            word=word,
        )
    return int(found)


def _listed_answers(files: ModelFolder, name: str, vocabulary: int) -> tuple[int, int | None]:
    """Return the token ids of the answers that the settings of the module LogitScore name."""
    settings = files.json(name)
    check_known(name, (key for key, value in settings.items() if value is not None), ANSWERS)
    yes = whole_number(name, settings, "true_token_id", None)
    no = None
    if settings.get("false_token_id") is not None:
        no = whole_number(name, settings, "false_token_id", None)
    for token in (yes, no):
        if token is not None and not 0 <= token < vocabulary:
            raise CorruptFile(
                "{path} names the token {token} as an answer; the vocabulary has the ids 0 to {most}",
                path=files.path(name),
                token=token,
                most=vocabulary - 1,
            )
    if yes == no:
        raise CorruptFile(
            "{path} names the token {token} as both answers, so that every pair would have the same score",
            path=files.path(name),
            token=yes,
        )
    return yes, no


def _pair_prompt(
    files: ModelFolder, known: KnownPrompt | None, saved: Json, settings: SentenceSettings
) -> PairPrompt | None:
    """Return the prompt; its instruction is the one that the folder puts before every pair, if any."""
    named = settings.prompts.get(settings.default_prompt or "")
    if known is not None:
        return (
            known.prompt if not named else msgspec.structs.replace(known.prompt, instruction=named)
        )
    if named and saved.get("model_type") == "CrossEncoder":
        raise UnsupportedModel(
            "{path} puts the prompt {shown} before every pair, which is not supported; save the model without it",
            path=files.path(PROMPTS),
            shown=shown(named),
        )
    return None


def _check_last_token(config: Json, scorer: Scorer[Any], tokenizer_json: str) -> None:
    """Refuse padding at the end of every pair: transformers scores the token before it."""
    if scorer.pooling != "lasttoken":
        return
    last = Tokenizer.from_str(tokenizer_json).encode("a", "b").ids[-1]
    if last == config.get("pad_token_id"):
        raise UnsupportedModel(
            "the tokenizer ends every pair with the padding token {padding}, whose row transformers never "
            "scores; set another pad_token_id in config.json",
            padding=last,
        )
