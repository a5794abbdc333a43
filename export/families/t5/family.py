"""T5 encoders as a family: the checkpoints that it claims, and how they become a network."""

from export.families.family import Family
from export.families.t5.network import T5Network
from export.families.t5.shape import T5Shape, read_t5, tensor_name

T5: Family[T5Shape] = Family(
    name="t5",
    claims=lambda config: config.get("model_type") == "t5",
    read_shape=read_t5,
    tensor_name=tensor_name,
    network=T5Network,
    poolings=("mean", "max"),
)
