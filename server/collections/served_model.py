"""The served model whose vectors a collection holds."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from server.errors import OtherModel, Overloaded
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.records import Info

T = TypeVar("T")
# How often a query is embedded again because the vectors of its collection were replaced.
ATTEMPTS = 3


class VectorsReplaced(Exception):
    """Raised where a collection holds vectors of another model by now than those that a query was made for."""


async def with_vectors_of_one_model(
    info: Callable[[], Info], ask: Callable[[str], Awaitable[T]]
) -> T:
    """Return what `ask` returns for the fingerprint of a collection's vectors.

    A reindex or a restore may replace them after the query was embedded, and another model's vectors of the
    same size would be compared without an error. Then it is asked again.
    """
    for _ in range(ATTEMPTS):
        try:
            return await ask(info().fingerprint)
        except VectorsReplaced:
            continue
    raise Overloaded(
        f"the vectors of collection {info().name!r} were replaced {ATTEMPTS} times meanwhile; try again",
        retry_after_s=1,
    )


def engine_of(models: ModelRegistry, info: Info) -> Engine:
    """Return the engine of the model whose vectors a collection holds; raises OtherModel without one."""
    found = models.with_vectors(info.fingerprint)
    if found is not None:
        return found
    if info.embedder is not None:
        raise OtherModel(
            f"collection {info.name!r} holds vectors of the embedder {info.embedder!r}, which is no model"
            ' of this server: give each document its "vector", search with a "vector" or with mode'
            ' "lexical", or run `reindex` to embed its texts with a served model'
        )
    first = models.first.engine.manifest
    if first.task != "dense":
        raise OtherModel(
            f"collection {info.name!r} holds vectors of model {info.fingerprint}, and no embedding model"
            " is served; serve that model too: --model FOLDER"
        )
    raise OtherModel(
        f"collection {info.name!r} holds vectors of model {info.fingerprint}, and this server has"
        f" {first.fingerprint}; run `reindex` to embed its documents with this model, or serve the model"
        " they were embedded with as well"
    )
