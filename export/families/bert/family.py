"""BERT and its relatives as families: the checkpoints that each claims, and how they become a network."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from export.families.activations import EXACT_GELU
from export.families.bert.head import BERT_HEAD, DISTILBERT_HEAD, ROBERTA_HEAD, Head
from export.families.bert.network import BertNetwork
from export.families.bert.shape import (
    BertShape,
    read_bert,
    read_distilbert,
    read_ernie,
    read_mpnet,
    read_roberta,
)
from export.families.family import Family, MaskedHead, Scorer
from export.source.json_file import Json

WORDS = "embeddings.word_embeddings.weight"
# DistilBERT's names of a layer's parts, and BERT's.
DISTILBERT_PARTS = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
# MPNet's names of a layer's parts, and BERT's.
MPNET_PARTS = {
    "attention.attn.q": "attention.self.query",
    "attention.attn.k": "attention.self.key",
    "attention.attn.v": "attention.self.value",
    "attention.attn.o": "attention.output.dense",
    "attention.LayerNorm": "attention.output.LayerNorm",
}
# A tensor of a layer of either: the layer's number, the part and the kind.
OF_LAYER = re.compile(r"(?:transformer|encoder)\.layer\.(\d+)\.(.+)\.(weight|bias)")


def without_prefix(*prefixes: str) -> Callable[[str], str]:
    """Return what makes a stored name one of a bare network, and TensorFlow's names of norms PyTorch's."""

    def tensor_name(stored: str) -> str:
        for prefix in prefixes:
            stored = stored.removeprefix(prefix)
        name = stored.replace("LayerNorm.gamma", "LayerNorm.weight")
        return name.replace("LayerNorm.beta", "LayerNorm.bias")

    return tensor_name


def with_parts(prefix: str, parts: Mapping[str, str]) -> Callable[[str], str]:
    """Return what makes a stored name BERT's; parts: of a layer, the stored name and BERT's."""
    bare = without_prefix(prefix)

    def tensor_name(stored: str) -> str:
        name = bare(stored)
        found = OF_LAYER.fullmatch(name)
        if found is None or found[2] not in parts:
            return name
        return f"encoder.layer.{found[1]}.{parts[found[2]]}.{found[3]}"

    return tensor_name


def _is_one_of(*model_types: str) -> Callable[[Json], bool]:
    return lambda config: config.get("model_type") in model_types


def scorer_with(head: Head) -> Callable[[BertShape, bool], Scorer[BertShape]]:
    """Return what gives a shape this head; see `Family.scorer`."""

    def scorer(shape: BertShape, types: bool) -> Scorer[BertShape]:
        offset = shape.vocabulary if types and shape.token_types > 1 else 0
        return Scorer(replace(shape, head=head, second_text_offset=offset), offset)

    return scorer


def masked_head(shape: BertShape) -> MaskedHead:
    """Return the head of BertForMaskedLM."""
    return MaskedHead(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
        words=WORDS,
        activation=shape.activation,
        epsilon=shape.layer_norm_epsilon,
    )


def roberta_masked_head(shape: BertShape) -> MaskedHead:
    """Return the head of RobertaForMaskedLM, whose activation is always Gelu."""
    return MaskedHead(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        bias=("lm_head.bias", "lm_head.decoder.bias"),
        words=WORDS,
        activation=EXACT_GELU,
        epsilon=shape.layer_norm_epsilon,
    )


def distilbert_masked_head(shape: BertShape) -> MaskedHead:
    """Return the head of DistilBertForMaskedLM."""
    return MaskedHead(
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        bias=("vocab_projector.bias",),
        words=WORDS,
        activation=shape.activation,
        epsilon=1e-12,
    )


BERT: Family[BertShape] = Family(
    name="bert",
    claims=_is_one_of("bert"),
    read_shape=read_bert,
    tensor_name=without_prefix("bert."),
    network=BertNetwork,
    scorer=scorer_with(BERT_HEAD),
    masked_head=masked_head,
)
ROBERTA: Family[BertShape] = Family(
    name="roberta",
    claims=_is_one_of("roberta", "xlm-roberta", "camembert"),
    read_shape=read_roberta,
    tensor_name=without_prefix("roberta."),
    network=BertNetwork,
    scorer=scorer_with(ROBERTA_HEAD),
    masked_head=roberta_masked_head,
)
ERNIE: Family[BertShape] = Family(
    name="ernie",
    claims=_is_one_of("ernie"),
    read_shape=read_ernie,
    tensor_name=without_prefix("ernie."),
    network=BertNetwork,
    scorer=scorer_with(BERT_HEAD),
    masked_head=masked_head,
)
DISTILBERT: Family[BertShape] = Family(
    name="distilbert",
    claims=_is_one_of("distilbert"),
    read_shape=read_distilbert,
    tensor_name=with_parts("distilbert.", DISTILBERT_PARTS),
    network=BertNetwork,
    scorer=scorer_with(DISTILBERT_HEAD),
    masked_head=distilbert_masked_head,
)
MPNET: Family[BertShape] = Family(
    name="mpnet",
    claims=_is_one_of("mpnet"),
    read_shape=read_mpnet,
    tensor_name=with_parts("mpnet.", MPNET_PARTS),
    network=BertNetwork,
    scorer=scorer_with(ROBERTA_HEAD),
)
