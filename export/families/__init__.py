"""The families of networks that the exporter writes itself; each is a folder or a file here."""

from typing import Any

from export.errors import UnsupportedModel
from export.families.bert.family import BERT, DISTILBERT, ERNIE, MPNET, ROBERTA
from export.families.decoder.family import LLAMA, MISTRAL, QWEN2, QWEN3
from export.families.family import Family
from export.families.gated.gte import GTE
from export.families.gated.jina import JINA
from export.families.gated.modernbert import MODERNBERT
from export.families.gated.nomic import NOMIC
from export.families.static.family import STATIC
from export.families.t5.family import T5
from export.kinds.own_code import check_code
from export.source.json_file import Json

# JINA stands before BERT, whose model_type its config.json states.
FAMILIES: tuple[Family[Any], ...] = (
    *(JINA, BERT, ROBERTA, ERNIE, DISTILBERT, MPNET),
    *(MODERNBERT, NOMIC, GTE),
    *(QWEN3, QWEN2, MISTRAL, LLAMA),
    STATIC,
    T5,
)


def of(config: Json) -> Family[Any]:
    """Return the family that a config.json belongs to; raises UnsupportedModel if there is none."""
    for family in FAMILIES:
        if family.claims(config):
            return family
    check_code(config, None)
    if config.get("model_type") is None:
        raise UnsupportedModel(
            "config.json has no model_type, as files before 2020; if the model is a BERT, add "
            '"model_type": "bert"'
        )
    raise UnsupportedModel(
        'model_type "{model_type}" is not written directly; try --via optimum',
        model_type=str(config.get("model_type"))[:80],
    )
