"""BERT as a family: the checkpoints that it claims, and how they become a network."""

from export.families.bert.network import BertNetwork
from export.families.bert.shape import BertShape, read_shape
from export.families.family import Family


def tensor_name(stored: str) -> str:
    """Return the name without "bert.", and without TensorFlow's names for the layer norm."""
    name = stored.removeprefix("bert.")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


BERT: Family[BertShape] = Family(
    name="bert",
    claims=lambda config: config.get("model_type") == "bert",
    read_shape=read_shape,
    tensor_name=tensor_name,
    network=BertNetwork,
)
