"""Tells what a model is from its settings and the names of its files, before anything is converted.

A `Kind` names the model for people, says what it would give, and, where that cannot be exported, the cause
and the way out. Folders, downloads and `inspect` collect a `Sighting` first.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from export.errors import UnsupportedModel
from export.kinds import layouts, networks
from export.kinds.kind import Kind
from export.kinds.sighting import ADAPTER, Sighting
from server.messages.message import Message

# The first that knows the model decides.
RULES: tuple[Callable[[Sighting], Kind | None], ...] = (
    layouts.artifact,
    layouts.adapter,
    layouts.gguf,
    networks.word_table,
    networks.static,
    networks.images,
    networks.late_interaction,
    networks.sparse,
    layouts.old_modules,
    layouts.without_config,
    networks.answering,
    networks.head,
    layouts.other_weights,
    layouts.slow_tokenizer,
)


def kind_of(sighting: Sighting) -> Kind:
    """Return what a model is; every model has a kind."""
    found = next((kind for rule in RULES if (kind := rule(sighting)) is not None), None)
    return found or _embedder(sighting)


def check_kind(sighting: Sighting) -> Kind:
    """Return what a model is; raises UnsupportedModel for what cannot be exported."""
    kind = kind_of(sighting)
    if kind.refusal is not None:
        raise UnsupportedModel(kind.refusal)
    return kind


def _embedder(seen: Sighting) -> Kind:
    return Kind(
        Message("embedding model, which gives a dense vector for a text"),
        task="dense",
        notes=tuple(_left_out(seen)),
    )


def _left_out(seen: Sighting) -> Iterator[Message]:
    heads = sorted(seen.here & {"sparse_linear.pt", "colbert_linear.pt"})
    if heads:
        yield Message(
            "{files}: only the dense vectors are exported, not the sparse weights and token vectors",
            files=tuple(heads),
        )
    adapters = sorted(
        name for name in seen.names if PurePosixPath(name).name == ADAPTER and "/" in name
    )
    if adapters:
        yield Message(
            "{files}: an adapter in a folder of its own is not applied; merge it first if the model needs it",
            files=tuple(adapters[:3]),
        )
