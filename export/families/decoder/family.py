"""Decoders as families: the checkpoints that each claims, and how they become a network."""

from collections.abc import Callable
from dataclasses import replace

from export.families.decoder.head import AnswerRows, ScoreRow
from export.families.decoder.network import DecoderNetwork
from export.families.decoder.shape import (
    WORDS,
    DecoderShape,
    read_llama,
    read_mistral,
    read_qwen2,
    read_qwen3,
    tensor_name,
)
from export.families.family import Answers, Family, Scorer
from export.source.json_file import Json


def _decoder(name: str, read_shape: Callable[[Json], DecoderShape]) -> Family[DecoderShape]:
    return Family(
        name=name,
        claims=lambda config: config.get("model_type") == name,
        read_shape=read_shape,
        tensor_name=tensor_name,
        network=DecoderNetwork,
        poolings=("lasttoken", "mean"),
        scorer=_with_score,
        answering=_with_answers,
    )


def _with_score(shape: DecoderShape, types: bool) -> Scorer[DecoderShape]:
    """Give a shape the head of a ForSequenceClassification; decoders know no types of tokens."""
    del types
    return Scorer(replace(shape, head=ScoreRow()), 0, pooling="lasttoken")


def _with_answers(shape: DecoderShape, answers: Answers) -> Scorer[DecoderShape]:
    """Give a shape the rows of its language model's head that belong to the answers."""
    table = WORDS if answers.tied else "lm_head.weight"
    head = AnswerRows(table, answers.yes, answers.no)
    return Scorer(replace(shape, head=head), 0, pooling="lasttoken")


QWEN3 = _decoder("qwen3", read_qwen3)
QWEN2 = _decoder("qwen2", read_qwen2)
MISTRAL = _decoder("mistral", read_mistral)
LLAMA = _decoder("llama", read_llama)
