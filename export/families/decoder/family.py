"""Decoders as families: the checkpoints that each claims, and how they become a network."""

from collections.abc import Callable

from export.families.decoder.network import DecoderNetwork
from export.families.decoder.shape import (
    DecoderShape,
    read_llama,
    read_mistral,
    read_qwen2,
    read_qwen3,
    tensor_name,
)
from export.families.family import Family
from export.source.json_file import Json


def _decoder(name: str, read_shape: Callable[[Json], DecoderShape]) -> Family[DecoderShape]:
    return Family(
        name=name,
        claims=lambda config: config.get("model_type") == name,
        read_shape=read_shape,
        tensor_name=tensor_name,
        network=DecoderNetwork,
        poolings=("lasttoken", "mean"),
    )


QWEN3 = _decoder("qwen3", read_qwen3)
QWEN2 = _decoder("qwen2", read_qwen2)
MISTRAL = _decoder("mistral", read_mistral)
LLAMA = _decoder("llama", read_llama)
