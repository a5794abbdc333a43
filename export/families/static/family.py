"""The family of static embeddings; their folders are read by `source.static_folder`."""

from export.families.family import Family
from export.families.static.network import StaticNetwork
from export.families.static.shape import StaticShape, complete, read_shape, tensor_name
from export.source.json_file import LARGEST_SIZE, Json


def is_model2vec(config: Json) -> bool:
    return config.get("model_type") == "model2vec" or config.get("architectures") == ["StaticModel"]


STATIC: Family[StaticShape] = Family(
    name="static",
    claims=is_model2vec,
    read_shape=lambda config: read_shape(config, LARGEST_SIZE, LARGEST_SIZE),
    tensor_name=tensor_name,
    network=StaticNetwork,
    poolings=("mean",),
    complete=complete,
)
