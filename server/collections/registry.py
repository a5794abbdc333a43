"""All collections of the data folder on the event loop: created, found, reindexed, removed."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.collections.administration.backup import backup_of
from server.collections.administration.restore import Restoring
from server.collections.chunk_embedding import default_chunks
from server.collections.empty_collection import EmptyCollection
from server.collections.external.collection import ExternalCollection
from server.collections.external.collections import ExternalCollections
from server.collections.external.connection import Connection
from server.collections.external.kinds import Local, Readable, Writable, local
from server.collections.live_collection import LiveCollection, uninterrupted
from server.collections.overview.kept_maps import KeptMaps
from server.collections.query_cache import QueryCache
from server.collections.read_threads import ReadThreads
from server.collections.reindexing import Reindexing
from server.collections.transferring.transfers import Transfers
from server.config import Config
from server.errors import AlreadyExists, CollectionNotFound, InvalidRequest, ServerError
from server.inference.comparison import SAME_VECTORS
from server.inference.engine import Engine
from server.inference.registry import ModelRegistry
from server.store.collection import Collection
from server.store.collection_name import check_name
from server.store.folder import DataFolder
from server.store.records import ChunkRules, CollectionStats, Info
from server.telemetry.metrics import Metrics

DEFAULT = "default"

OTHER_MACHINE = (
    "collection %s holds int8 vectors of another kind of CPU, with cosine %.4f to those of this one; it"
    " is searched and written all the same; `reindex` computes them here, see docs/en/explanation/cpu.md"
)

log = logging.getLogger(__name__)


class CollectionRegistry:
    """The collections by name, on the event loop. It owns the folder: close it after the last call."""

    def __init__(
        self,
        folder: DataFolder,
        models: ModelRegistry,
        config: Config,
        metrics: Metrics,
        databases: Sequence[Connection] = (),
    ) -> None:
        """Take an open folder. databases: those that may keep collections elsewhere."""
        self._folder = folder
        self.models = models
        self.metrics = metrics
        self._queries = QueryCache(config.query_cache_bytes, metrics)
        self.maps = KeptMaps()
        self.reads = ReadThreads(config.query_s, config.max_reply_bytes, metrics)
        self.external = ExternalCollections(
            folder.path, databases, config, models, self._queries, self.reads, metrics
        )
        self.transfers = Transfers(folder.path, self)
        self._live = {name: self._opened(found) for name, found in folder.collections.items()}
        self._leaving: set[str] = set()
        self._coming: dict[str, asyncio.Task[LiveCollection]] = {}
        # Names that a change of names is about to give, and collections that must stay until it ends.
        self._claimed: set[str] = set()
        self._busy: set[str] = set()
        # By its new name, a collection that is being renamed: the folder may know only that one already.
        self._moving: dict[str, LiveCollection] = {}
        self.reindexing: dict[str, Reindexing] = {}
        # Why the last reindexing of a collection failed.
        self.unfinished: dict[str, str] = {}
        for live in self._live.values():
            _warn_of_other_machine(live)
            live.compact_when_due()

    @property
    def instance(self) -> str:
        """Name of this server's use of the data folder; the folder's lock has it too."""
        return self._folder.instance

    def stats(self) -> list[tuple[str, CollectionStats]]:
        """Return name and stats of every collection; from any thread."""
        # subtle: the copy of the dictionary is made in one step.
        return [(name, live.stats()) for name, live in list(self._live.items())]

    async def probe(self, name: str, seed: int) -> bool:
        """Measure a collection's recall; False where it compares all vectors, or is removed."""
        live = self._live.get(name)
        return live is not None and await live.probe(seed)

    def check_disk(self) -> None:
        """Raise NotReady where the next writes would not fit on the disk."""
        self._folder.check_disk()

    @property
    def names(self) -> list[str]:
        return sorted([*self._live, *self.external.names])

    @property
    def damaged(self) -> list[str]:
        """Names of collections that cannot be opened."""
        return sorted([*self._folder.damaged, *self.external.damaged])

    @property
    def aliases(self) -> Mapping[str, str]:
        """The name of a collection by its alias."""
        return self._folder.aliases

    def own_name(self, name: str) -> str:
        """Return the name of the collection that a name or an alias leads to, which need not exist."""
        return name if self._is_own(name) else self.aliases.get(name, name)

    def _is_own(self, name: str) -> bool:
        return any(name in place for place in (self._live, self._moving, self.external))

    def knows(self, name: str) -> bool:
        """Return whether a name is an alias or can be read, so that a refusal of it lists no other names."""
        is_first = name == DEFAULT and name not in self._leaving
        return is_first or self._is_own(name) or name in self.aliases

    def get(self, name: str) -> Local:
        """Return a collection of this server as `readable` does; raises InvalidRequest for one elsewhere."""
        return local(self.readable(name))

    def readable(self, name: str) -> Readable:
        """Return the collection of this name or alias, for reading; raises CollectionNotFound.

        The default one is there, empty and without files, before its first write.
        """
        own = self.own_name(name)
        found = self.external.get(own) or self._live.get(own) or self._moving.get(own)
        if found is not None:
            return found
        self._folder.check(own)
        if own != name:
            raise CollectionNotFound(
                f"alias {name!r} leads to collection {own!r}, which is not there; set the alias again:"
                f" PUT /aliases/{name}"
            )
        if name == DEFAULT and name not in self._leaving:
            engine = self.models.default
            index = self._folder.empty_index(engine.manifest.dimension).stats()
            return EmptyCollection(name, engine, self._queries, index)
        raise not_there(name, self.names)

    def listed(self, name: str) -> Readable:
        """Return a collection of `names`, for a list."""
        return self.readable(name)

    async def accepting(self, name: str) -> Writable:
        """Return the collection of this name, for documents; see `writable`."""
        return self.external.get(self.own_name(name)) or await self.writable(name)

    async def writable(self, name: str) -> LiveCollection:
        """Return the collection of this name, for writing; the default one is created where it is missing."""
        name = self.own_name(name)
        coming = self._coming.get(name)
        if coming is not None:
            await asyncio.wait([coming])
        found = self.get(name)
        if isinstance(found, LiveCollection):
            return found
        if name in self._coming:
            return await self.writable(name)
        return await self.create(name, default_chunks(found.engine), found.engine)

    async def create(self, name: str, chunks: ChunkRules | None, engine: Engine) -> LiveCollection:
        """Create an empty collection for a model's vectors; raises what `create_from` raises."""
        manifest = engine.manifest
        return await self.create_from(Info(name, manifest.fingerprint, manifest.dimension, chunks))

    async def create_from(self, info: Info) -> LiveCollection:
        """Create an empty collection; raises AlreadyExists, or InvalidRequest for its name.

        A caller that is cancelled leaves it to be created.
        """
        name = info.name
        self._check_free(name)
        task = self._coming[name] = asyncio.ensure_future(self._create(info))
        # Marked as retrieved, also where the caller has left.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(task)

    def _check_free(self, name: str) -> None:
        """Raise AlreadyExists where a name is taken, or about to be."""
        # subtle: a thread that replaces or removes a collection takes it from the folder first.
        busy = {*self._leaving, *self._coming, *self._claimed}
        if name in self._live or name in busy or name in self.external:
            raise AlreadyExists(f"collection {name!r} exists already", param="name")
        self._folder.check_free(name)

    async def create_external(self, info: Info, database: str) -> ExternalCollection:
        """Create a collection in a vector database; see `ExternalCollections.create`."""
        self._check_free(info.name)
        with self._held(info.name, info.name):
            return await self.external.create(info, database)

    async def _create(self, info: Info) -> LiveCollection:
        try:
            made = await asyncio.to_thread(self._folder.create, info)
            live = self._live[info.name] = self._opened(made)
            return live
        finally:
            del self._coming[info.name]

    async def remove(self, name: str) -> None:
        """Delete a collection and everything in it; raises CollectionNotFound."""
        self._check_own(name, "remove it")
        if aliases := sorted(each for each, to in self.aliases.items() if to == name):
            raise AlreadyExists(
                f"collection {name!r} has the aliases {', '.join(map(repr, aliases[:10]))}; let them lead"
                " elsewhere, or delete them, before you remove it"
            )
        if self.external.get(name) is not None:
            with self._held(name, name):
                return await self.external.remove(name)
        # Taken out first: no call may find it, remove it again or begin to reindex it meanwhile.
        live = self._live.pop(name, None)
        if live is None:
            self._folder.check(name)
            raise CollectionNotFound(f"there is no collection {name!r}")
        self._leaving.add(name)
        try:
            await live.settled()
            async with live.writing, live.gate.closed():
                # Calls that still wait for it are refused.
                live.gone = True
                await uninterrupted(lambda: self._folder.remove(name))
        finally:
            self._leaving.discard(name)
            if self._folder.collections.get(name) is live.collection:
                # The disk refused, or the caller was cancelled before it began.
                live.stay()
                self._live[name] = live

    def _check_own(self, name: str, act: str) -> None:
        """Raise AlreadyExists where a collection cannot be removed or renamed by this name now."""
        if name in self.aliases:
            raise AlreadyExists(
                f"{name!r} is an alias of collection {self.aliases[name]!r}; {act} by its own name, or"
                f" delete the alias: DELETE /aliases/{name}"
            )
        self.check_idle(name, act)

    def check_idle(self, name: str, act: str) -> None:
        """Raise AlreadyExists while something else is done with a whole collection; act: what must wait."""
        if self.transfers.uses(name):
            raise AlreadyExists(f"collection {name!r} is being transferred; {act} afterwards")
        if name in self.reindexing or name in self._busy:
            what = "reindexed" if name in self.reindexing else "renamed, replaced or given an alias"
            raise AlreadyExists(f"collection {name!r} is being {what}; {act} afterwards")

    def forget_queries(self) -> None:
        """Called when models have been replaced."""
        self._queries.forget_retired()

    # --- names ----------------------------------------------------------------------------------------

    async def set_alias(self, alias: str, collection: str) -> None:
        """Let an alias lead to a collection, from one moment on and durably; it may exist.

        Raises AlreadyExists where a collection has the alias as its name, CollectionNotFound.
        """
        if alias not in self.aliases:
            self._check_free(alias)
        if collection in self.aliases:
            raise InvalidRequest(
                f"{collection!r} is an alias itself; name the collection that it leads to:"
                f" {self.aliases[collection]!r}",
                param="collection",
            )
        if collection not in self._live and self.external.get(collection) is None:
            self.get(collection)
            raise CollectionNotFound(f"there is no collection {collection!r} yet; create it first")
        with self._held(alias, collection):
            await uninterrupted(lambda: self._folder.set_alias(alias, collection))

    async def forget_alias(self, alias: str) -> None:
        """Delete an alias; raises CollectionNotFound."""
        if alias not in self.aliases:
            raise CollectionNotFound(f"there is no alias {alias!r}")
        with self._held(alias, self.aliases[alias]):
            await uninterrupted(lambda: self._folder.forget_alias(alias))

    async def rename(self, name: str, new: str, *, keep_alias: bool) -> LiveCollection:
        """Give a collection another name; requests for it wait meanwhile, and its aliases follow it.

        An alias of it may become its name. keep_alias: whether the old name becomes an alias.
        Raises CollectionNotFound, AlreadyExists.
        """
        self._check_own(name, "rename it")
        live = self._live.get(name)
        if live is None:
            self.get(name)
            raise CollectionNotFound(f"there is no collection {name!r} to rename")
        if self.aliases.get(new) != name:
            self._check_free(new)
        with self._held(new, name):
            await live.settled()
            try:
                async with live.writing, live.gate.closed():
                    self._moving[new] = live
                    await uninterrupted(
                        lambda: self._folder.rename(name, new, keep_alias=keep_alias)
                    )
            finally:
                self._moving.pop(new, None)
                self._follow(live, name, new)
        return live

    def _follow(self, live: LiveCollection, name: str, new: str) -> None:
        """Serve a collection under the name that it has on the disk after a renaming."""
        folder = self._folder.collections
        found = folder.get(new) or folder.get(name)
        del self._live[name]
        if found is None:
            # It could not be opened again; the folder says why.
            live.gone = True
            return
        live.collection = found
        self._live[found.name] = live
        if found.name != name and name in self.unfinished:
            self.unfinished[new] = self.unfinished.pop(name)
        live.stay()

    @contextmanager
    def _held(self, name: str, collection: str) -> Iterator[None]:
        """Keep a name free for the block, and a collection as it is; raise AlreadyExists at once."""
        if name in self._claimed or collection in self._busy:
            raise AlreadyExists(f"collection {collection!r} is being changed; try again")
        self._claimed.add(name)
        self._busy.add(collection)
        try:
            yield
        finally:
            self._claimed.discard(name)
            self._busy.discard(collection)

    # --- backups --------------------------------------------------------------------------------------

    def backup(self, name: str) -> AsyncGenerator[bytes, None]:
        """Return the pieces of a collection's backup; raises CollectionNotFound."""
        live = self.get(name)
        if not isinstance(live, LiveCollection):
            raise CollectionNotFound(
                f"collection {name!r} holds nothing yet, so there is no backup"
            )
        return backup_of(live, self._folder)

    async def restore(
        self, name: str, pieces: AsyncIterator[bytes], *, replace: bool
    ) -> LiveCollection:
        """Make a collection from the pieces of a backup.

        replace: whether it takes the place of one of this name, whole or not at all. Otherwise that raises
        AlreadyExists before the first piece is taken.
        """
        self._check_own(name, "restore it")
        if replace and (name in self._live or name in self._folder.damaged):
            check_name(name)
        else:
            self._check_free(name)
        with self._held(name, name):
            async with Restoring(self._folder, name) as restoring:
                await restoring.receive(pieces)
                staged = await restoring.check()
                return await self._put(staged, name)

    async def _put(self, staged: Path, name: str) -> LiveCollection:
        """Put a collection that is ready in its place; requests for an old one wait meanwhile."""
        live, replaces = self._live.get(name), name in self._folder.damaged
        if live is None:
            made = await uninterrupted(lambda: self._folder.put(staged, name, replace=replaces))
            self._live[name] = self._opened(made)
            return self._live[name]
        await live.settled()
        try:
            async with live.writing, live.gate.closed():
                await uninterrupted(lambda: self._folder.put(staged, name, replace=True))
                live.restored += 1
        finally:
            self._follow(live, name, name)
        return live

    # --- reindexing -----------------------------------------------------------------------------------

    def transfers_of(self, name: str, *others: str) -> Transfers:
        """Return the transfers; see `PermittedCollections`."""
        return self.transfers

    async def reindex(self, name: str, chunks: ChunkRules | None, engine: Engine) -> Reindexing:
        """Embed a collection's stored texts with this engine's model, in the background.

        The collection answers as before until the last document is done; then the new vectors
        replace the old ones. What is written meanwhile is copied too. Interrupted reindexing
        continues where it stopped. Raises AlreadyExists where it is running.
        """
        live = self._live.get(name)
        if live is None:
            raise CollectionNotFound(f"there is no collection {name!r} to reindex")
        total = await live.count()
        self.check_idle(name, "reindex it")
        if self._live.get(name) is not live:
            raise CollectionNotFound(f"there is no collection {name!r} any more")
        self.unfinished.pop(name, None)
        running = Reindexing(live, total, self._folder, chunks, engine)
        self.reindexing[name] = running
        running.task.add_done_callback(lambda task: self._reindexed(live, task))
        return running

    def _reindexed(self, live: LiveCollection, task: "asyncio.Task[None]") -> None:
        name = live.name
        del self.reindexing[name]
        if live.gone:
            # It could not be opened again; the folder says why.
            del self._live[name]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.unfinished[name] = (
                error.public if isinstance(error, ServerError) else type(error).__name__
            )
            log.error("collection %s was not reindexed", name, exc_info=error)

    # --- the end --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let writes and compaction end, write snapshots, and release the folder."""
        await self.transfers.close()
        for running in list(self.reindexing.values()):
            running.task.cancel()
            await asyncio.wait([running.task])
        if self._coming:
            await asyncio.wait(list(self._coming.values()))
        await self.external.close()
        await self.reads.close()
        for live in list(self._live.values()):
            await live.settled()
        await asyncio.to_thread(self._folder.close)

    def _opened(self, collection: Collection) -> LiveCollection:
        return LiveCollection(collection, self.models, self._queries, self.reads, self.metrics)


def not_there(name: str, names: Sequence[str]) -> CollectionNotFound:
    """Return the error for a name that no collection has. names: of those that may be used."""
    known = ", ".join(map(repr, names)) or "none"
    return CollectionNotFound(f"there is no collection {name!r}; this server has {known}")


def _warn_of_other_machine(live: LiveCollection) -> None:
    """Log that vectors of another kind of CPU are searched; see `cpu_provenance`."""
    agreement = live.agreement()
    if agreement is not None and agreement < SAME_VECTORS:
        log.warning(OTHER_MACHINE, live.name, agreement)
