"""The collections as one request's key may use them: others cannot be reached, listed or named.

Every handler works on collections through this view. So a collection that a path, a body or an alias names
is checked in one place. A key has rights to collections by their own names: an alias gives none.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager

from server.collections.external.collection import ExternalCollection
from server.collections.external.kinds import Local, Readable, Writable
from server.collections.live_collection import LiveCollection
from server.collections.overview.kept_maps import KeptMaps
from server.collections.read_threads import ReadThreads
from server.collections.registry import CollectionRegistry, not_there
from server.collections.reindexing import Reindexing
from server.collections.transferring.transfers import Transfers
from server.errors import CollectionNotFound, Forbidden
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.records import ChunkRules, Info

MayUse = Callable[[str], bool]


class PermittedCollections:
    """The view of one request.

    may_use: whether a collection of this name may be used. whose: the key, for refusals. reached: gets the
    names of the collections that the request uses, for the audit.
    """

    def __init__(
        self, registry: CollectionRegistry, may_use: MayUse, whose: str, reached: dict[str, None]
    ) -> None:
        self._registry = registry
        self._may_use = may_use
        self._whose = whose
        self._reached = reached

    # --- what needs no right ------------------------------------------------------------------------

    @property
    def models(self) -> ModelRegistry:
        return self._registry.models

    @property
    def instance(self) -> str:
        return self._registry.instance

    def check_disk(self) -> None:
        self._registry.check_disk()

    @property
    def reads(self) -> ReadThreads:
        return self._registry.reads

    @property
    def maps(self) -> KeptMaps:
        """Return the kept maps: each is found by the revision of its collection."""
        return self._registry.maps

    # --- lists --------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return list(filter(self._may_use, self._registry.names))

    @property
    def damaged(self) -> list[str]:
        return list(filter(self._may_use, self._registry.damaged))

    @property
    def aliases(self) -> Mapping[str, str]:
        """Return the aliases of collections that may be used."""
        return {each: to for each, to in self._registry.aliases.items() if self._may_use(to)}

    @property
    def reindexing(self) -> Mapping[str, Reindexing]:
        return {
            name: each for name, each in self._registry.reindexing.items() if self._may_use(name)
        }

    @property
    def unfinished(self) -> Mapping[str, str]:
        return {
            name: each for name, each in self._registry.unfinished.items() if self._may_use(name)
        }

    def listed(self, name: str) -> Readable:
        """Return a collection of `names` for a list, which the audit does not name."""
        self._check(name)
        return self._registry.listed(name)

    # --- one collection -----------------------------------------------------------------------------

    def get(self, name: str) -> Local:
        self._use(name)
        with self._naming_permitted(name):
            return self._registry.get(name)

    def readable(self, name: str) -> Readable:
        self._use(name)
        with self._naming_permitted(name):
            return self._registry.readable(name)

    async def accepting(self, name: str) -> Writable:
        self._use(name)
        with self._naming_permitted(name):
            return await self._registry.accepting(name)

    async def writable(self, name: str) -> LiveCollection:
        self._use(name)
        with self._naming_permitted(name):
            return await self._registry.writable(name)

    async def create_from(self, info: Info) -> LiveCollection:
        self._use(info.name)
        return await self._registry.create_from(info)

    async def create_external(self, info: Info, database: str) -> ExternalCollection:
        self._use(info.name)
        return await self._registry.create_external(info, database)

    async def remove(self, name: str) -> None:
        self._use(name)
        await self._registry.remove(name)

    async def reindex(self, name: str, chunks: ChunkRules | None, engine: Engine) -> Reindexing:
        self._use(name)
        return await self._registry.reindex(name, chunks, engine)

    def transfers_of(self, name: str, *others: str) -> Transfers:
        """Return the transfers of a collection; others: a target and an alias, which must be permitted too."""
        self._use(name)
        for other in others:
            self._check(other)
            self._use(other)
        return self._registry.transfers

    def backup(self, name: str) -> AsyncGenerator[bytes, None]:
        self._use(name)
        with self._naming_permitted(name):
            return self._registry.backup(name)

    async def restore(
        self, name: str, pieces: AsyncIterator[bytes], *, replace: bool
    ) -> LiveCollection:
        self._use(name)
        return await self._registry.restore(name, pieces, replace=replace)

    # --- names --------------------------------------------------------------------------------------

    async def set_alias(self, alias: str, collection: str) -> None:
        """Set an alias; its name, the collection and the one that it leads to now must be permitted."""
        self._check(alias)
        self._check(self._registry.own_name(alias), alias)
        self._use(collection)
        with self._naming_permitted(collection):
            await self._registry.set_alias(alias, collection)

    async def forget_alias(self, alias: str) -> None:
        self._check(alias)
        self._use(alias)
        await self._registry.forget_alias(alias)

    async def rename(self, name: str, new: str, *, keep_alias: bool) -> LiveCollection:
        self._check(new)
        # An alias may have the new name: of another collection, which a refusal would name.
        self._check(self._registry.own_name(new), new)
        self._use(name)
        return await self._registry.rename(name, new, keep_alias=keep_alias)

    # --- checks -------------------------------------------------------------------------------------

    def _use(self, name: str) -> None:
        """Check the collection that a name or an alias leads to, and note it for the audit."""
        own = self._registry.own_name(name)
        self._check(own, name)
        self._reached[own] = None

    @contextmanager
    def _naming_permitted(self, name: str) -> Iterator[None]:
        """Let the refusal of a name that is not there list only collections that may be used."""
        try:
            yield
        except CollectionNotFound:
            if self._registry.knows(name):
                raise
            raise not_there(name, self.names) from None

    def _check(self, own: str, name: str | None = None) -> None:
        # subtle: the same refusal whether the collection is there or not.
        if not self._may_use(own):
            self._registry.metrics.denied.labels("collection").inc()
            raise Forbidden(
                f"key {self._whose!r} may not use collection {own if name is None else name!r}; ask the"
                " server's administrator for a key that may"
            )


Collections = CollectionRegistry | PermittedCollections
