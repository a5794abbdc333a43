"""Refuses models whose network is defined by code in their folder, which is never run."""

from collections.abc import Mapping

from export.errors import UnsupportedModel
from export.source.json_file import Json, shown

# Families that compute the network of the same name in transformers.
NATIVE = frozenset(
    {
        *("bert", "roberta", "xlm-roberta", "ernie", "distilbert", "mpnet", "modernbert"),
        *("qwen2", "qwen3", "mistral", "llama", "gemma3_text", "t5"),
    }
)

# Code that computes the network of transformers, but attends in both directions: by the family, its name and
# what config.json may say of `is_causal`. The first is GritLM-7B's, which leaves the key out; the second that
# of gte-Qwen2-*-instruct.
BOTH_WAYS: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "mistral": ("modeling_gritlm7b.MistralModel", (None, False)),
    "qwen2": ("modeling_qwen.Qwen2Model", (False,)),
}


def attends_both_ways(config: Json, family: str | None) -> bool:
    """Return whether the folder's own code is known to do so, and to change nothing else."""
    code, stated = BOTH_WAYS.get(family or "", ("", ()))
    return _code(config, "AutoModel") == code != "" and config.get("is_causal") in stated


def check_code(config: Json, family: str | None, used: str = "AutoModel") -> None:
    """Refuse a network that its folder's own code defines, unless a family is written for it.

    family: its name, None where no family claims the model. One that is named like a network of
    transformers computes that network, which the folder's code replaces. used: the class of transformers
    that loads the model.
    """
    code = _code(config, used)
    if code is None or (family is not None and family not in NATIVE):
        return
    if used == "AutoModel" and attends_both_ways(config, family):
        return
    raise UnsupportedModel(
        "config.json asks for code of the model's own ({code} in auto_map), which is never run and may "
        "compute another network than {model_type}; choose a model without it",
        code=shown(code),
        model_type=str(config.get("model_type"))[:80],
    )


def _code(config: Json, used: str) -> object:
    classes = config.get("auto_map")
    return classes.get(used) if isinstance(classes, dict) else None
