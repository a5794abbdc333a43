"""Tells what a model is from its settings and the names of its files, before anything is converted.

A `Kind` names the model for people, says what it would give, and, where that cannot be exported, the cause
and the way out. Folders, downloads and `inspect` collect a `Sighting` first.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from export.errors import UnsupportedModel
from export.kinds import layouts, networks
from export.kinds.kind import Kind
from export.kinds.sighting import ADAPTER, Sighting
from export.source.heads import COLBERT_HEAD, SPARSE_HEAD, head_files
from server.messages.message import Message
from server.types import Task

# The first that knows the model decides.
RULES: tuple[Callable[[Sighting], Kind | None], ...] = (
    layouts.artifact,
    layouts.adapter,
    layouts.gguf,
    networks.word_table,
    networks.static,
    networks.images,
    networks.late_interaction,
    networks.two_ways,
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


def check_kind(sighting: Sighting, task: Task | None = None) -> Kind:
    """Return what a model is; raises UnsupportedModel for what cannot be exported.

    task: what is asked of it, None for what it was made for; the kind that is returned has it.
    """
    kind = kind_of(sighting)
    if task is not None and task in kind.on_request:
        return replace(kind, task=task, refusal=None, notes=())
    if kind.refusal is not None:
        raise UnsupportedModel(kind.refusal)
    if task not in (None, kind.task):
        raise UnsupportedModel(
            "{place} is a model of another task ({kind}); --task may be {tasks} here",
            place=sighting.place,
            kind=kind.name,
            tasks=(kind.task or "", *kind.on_request),
        )
    return kind


def _embedder(seen: Sighting) -> Kind:
    return Kind(
        Message("embedding model, which gives a dense vector for a text"),
        task="dense",
        notes=tuple(_left_out(seen)),
        on_request=("token_vectors", *(("sparse",) if has_head(seen, SPARSE_HEAD) else ())),
    )


def has_head(seen: Sighting, head: str) -> bool:
    """Return whether the folder has the weights of a head of this name."""
    return bool(seen.here.intersection(head_files(head)))


def _left_out(seen: Sighting) -> Iterator[Message]:
    heads = sorted(seen.here & set(head_files(SPARSE_HEAD) + head_files(COLBERT_HEAD)))
    if heads:
        yield Message(
            "{files}: only the dense vectors are exported; export the sparse weights and token vectors as models "
            "of their own, with --task sparse and --task token_vectors",
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
