"""The served model whose vectors a collection holds."""

from server.errors import OtherModel
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.records import Info


def check_made_by(info: Info, made_by: str | None) -> None:
    """Raise OtherModel where a collection holds vectors of another model than that of a query's vectors."""
    if made_by is not None and made_by != info.fingerprint:
        raise OtherModel(
            f"collection {info.name!r} was reindexed with another model while the search waited: it holds"
            f" vectors of {info.fingerprint} now, and those of the query are of {made_by}; search again"
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
