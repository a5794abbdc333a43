"""Refuses models whose network is defined by code in their folder, which is never run."""

from export.errors import UnsupportedModel
from export.source.json_file import Json, shown

# Families that compute the network of the same name in transformers.
NATIVE = frozenset(
    {
        *("bert", "roberta", "xlm-roberta", "ernie", "distilbert", "mpnet", "modernbert"),
        *("qwen2", "qwen3", "mistral", "llama", "gemma3_text", "t5"),
    }
)


def check_code(config: Json, family: str | None, used: str = "AutoModel") -> None:
    """Refuse a network that its folder's own code defines, unless a family is written for it.

    family: its name, None where no family claims the model. One that is named like a network of
    transformers computes that network, which the folder's code replaces. used: the class of transformers
    that loads the model.
    """
    classes = config.get("auto_map")
    code = classes.get(used) if isinstance(classes, dict) else None
    if code is None or (family is not None and family not in NATIVE):
        return
    raise UnsupportedModel(
        "config.json asks for code of the model's own ({code} in auto_map), which is never run and may "
        "compute another network than {model_type}; choose a model without it",
        code=shown(code),
        model_type=str(config.get("model_type"))[:80],
    )
