"""Exports of a collection whose documents are replaced meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.collections.live_collection import LiveCollection
from server.collections.reading.export import Export, exported
from server.inference.model import Model
from server.store.filters.tree import parse
from server.store.records import Document
from tests.support.fakes import PATIENCE_S
from tests.support.registries import opened


def test_filter_of_an_export_is_evaluated_on_the_documents_that_are_exported(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LiveCollection.read
    export = Export(parse({"kind": "kept"}), False, lambda each, _: each.id.encode())

    def documents(**kinds: str) -> list[Document]:
        return [Document(id, "墨池", None, {"kind": kind}) for id, kind in kinds.items()]

    async def test() -> None:
        async with opened(toy_model, tmp_path) as registry:
            live = await registry.writable("default")
            other = await registry.create("other", None, registry.models.default)
            await live.add(documents(a="kept", b="no"))
            await other.add(documents(a="no", b="kept"))
            before = live.collection

            async def replaced_after(self: LiveCollection, call: Callable[[], Any]) -> Any:
                found = await read(self, call)
                live.collection = other.collection
                return found

            monkeypatch.setattr(LiveCollection, "read", replaced_after)
            pieces = [piece async for piece in exported(live, export, registry.reads)]
            live.collection = before
            monkeypatch.undo()
            assert pieces == [b"a"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
