"""Everything that writes to a data folder, once or more each, on small collections.

    python -m tests.support.power_workload FOLDER MARKS STATES STEPS SEED

FOLDER/data is the data folder; a keys file, an audit and a backup lie beside it. "begin" and "end" of each step are
written to MARKS, and STATES has what must be stored after each number of steps, JSON.
"""

import asyncio
import json
import os
import random
import sys
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from server.auth.audit import Audit
from server.auth.keys import add_key, new_key, remove_key
from server.store.collection import Collection
from server.store.filters.tree import parse
from server.store.folder import DataFolder
from server.store.records import GIVEN, Document, Info
from server.store.upkeep.maintenance import backup
from server.store.upkeep.restoring import fill, restore
from server.store.words.vocabulary import VOCABULARY, Given, note_of
from server.telemetry.metrics import Metrics
from server.types import Vectors

D = 16
NAMES = ("laws", "notes", "news")
GIVEN_MODEL = f"{GIVEN}theirs"
# By collection: its model, its note of words, and the version of each document by its id. And aliases, keys
# and the last backup.
State = dict[str, Any]


def document_of(id: str, version: int, model: str) -> Document:
    """Return a document of a hundred to some thousand characters, the same for the same version.

    Where the vectors are given, some have no text.
    """
    choose = random.Random(f"{id} {version}")
    words = choose.choices(
        ("墨池", "笔", "search", "云雨", "server", "ink"), k=choose.choice((20, 200, 900))
    )
    metadata = {"version": version, "group": version % 3}
    if model == GIVEN_MODEL and version % 2:
        return Document(id, "", None, metadata)
    return Document(id, f"{id} version {version} {' '.join(words)}", None, metadata)


def vector_of(id: str, version: int, model: str) -> Vectors:
    seed = zlib.crc32(f"{id} {version} {model}".encode())
    return np.random.default_rng(seed).standard_normal(D, dtype=np.float32)


def vectors_of(documents: dict[str, int], model: str) -> Vectors:
    rows = [vector_of(id, version, model) for id, version in documents.items()]
    return np.array(rows, dtype=np.float32).reshape(len(rows), D)


class Workload:
    """The folder, and what must be in it."""

    def __init__(self, top: Path, marks: Path, seed: int) -> None:
        self._top, self._data = top, top / "data"
        self._choose = random.Random(seed)
        self._marks = os.open(marks, os.O_WRONLY | os.O_CREAT)
        self._versions = 0
        self.state: State = {"collections": {}, "aliases": {}, "keys": [], "backup": None}
        self.states = [deepcopy(self.state)]
        self._folder = self._opened()

    def _opened(self) -> DataFolder:
        folder = DataFolder(self._data)
        for collection in folder.collections.values():
            _checkpoint_often(collection)
        return folder

    def run(self, steps: int) -> None:
        kinds: dict[Callable[[], None], int] = {
            self._create: 6,
            self._add: 12,
            self._delete: 5,
            self._delete_where: 2,
            self._save: 3,
            self._compact: 3,
            self._copy_some: 3,
            self._replace: 4,
            self._remove: 2,
            self._put: 2,
            self._rename: 4,
            self._alias: 3,
            self._set_words: 2,
            self._reopen: 3,
            self._back_up: 2,
            self._restore: 3,
            self._key: 3,
            self._audit: 2,
        }
        for _ in range(steps):
            (kind,) = self._choose.choices(list(kinds), list(kinds.values()))
            os.write(self._marks, b"begin")
            kind()
            os.write(self._marks, b"end")
            self.states.append(deepcopy(self.state))
        self._folder.close()

    # --- steps ----------------------------------------------------------------------------------------

    def _some(self) -> str | None:
        names = sorted(self._folder.collections)
        return self._choose.choice(names) if names else None

    def _create(self) -> None:
        name = self._choose.choice(NAMES)
        if self._is_free(name):
            model = self._choose.choice(("model-0", "model-0", GIVEN_MODEL))
            _checkpoint_often(self._folder.create(Info(name, model, D)))
            self.state["collections"][name] = {"model": model, "words": None, "documents": {}}

    def _is_free(self, name: str) -> bool:
        return name not in self._folder.collections and name not in self._folder.aliases

    def _add(self) -> None:
        if (name := self._some()) is None:
            return self._create()
        stored = self.state["collections"][name]
        self._versions += 1
        ids = self._choose.sample(
            [f"d{number}" for number in range(40)], self._choose.randint(1, 20)
        )
        changed = {id: self._versions for id in ids}
        self._store(self._folder.collections[name], changed, stored["model"])
        stored["documents"] |= changed

    def _store(self, collection: Collection, documents: dict[str, int], model: str) -> None:
        made = [document_of(id, version, model) for id, version in documents.items()]
        collection.add(made, vectors_of(documents, model))

    def _delete(self) -> None:
        if (name := self._some()) is None:
            return
        documents = self.state["collections"][name]["documents"]
        ids = self._choose.sample(
            sorted(documents), min(len(documents), self._choose.randint(1, 8))
        )
        self._folder.collections[name].delete(ids)
        for id in ids:
            del documents[id]

    def _delete_where(self) -> None:
        if (name := self._some()) is None:
            return
        stored, group = self.state["collections"][name], self._choose.randrange(3)
        self._folder.collections[name].delete_where(parse({"group": group}))
        kept = {id: each for id, each in stored["documents"].items() if each % 3 != group}
        stored["documents"] = kept

    def _save(self) -> None:
        if (name := self._some()) is not None:
            self._folder.collections[name].save()

    def _compact(self) -> None:
        if (name := self._some()) is not None:
            collection = self._folder.collections[name]
            collection.adopt(collection.index.compacted())
            collection.save()

    def _copy_some(self) -> None:
        """Begin to reindex, as a stop interrupts it."""
        if (name := self._some()) is None or self._is_given(name):
            return
        stored = self.state["collections"][name]
        half = dict(list(stored["documents"].items())[::2])
        successor = self._successor(name)
        self._store(successor, half, successor.info.fingerprint)
        successor.abandon()

    def _successor(self, name: str) -> Collection:
        number = int(self.state["collections"][name]["model"].partition("-")[2])
        successor = self._folder.successor(Info(name, f"model-{number + 1}", D))
        _checkpoint_often(successor)
        return successor

    def _replace(self) -> None:
        """Reindex to the end."""
        if (name := self._some()) is None or self._is_given(name):
            return
        stored = self.state["collections"][name]
        successor = self._successor(name)
        successor.delete(successor.documents.ids())
        self._store(successor, stored["documents"], successor.info.fingerprint)
        _checkpoint_often(self._folder.replace(successor))
        stored |= {"model": successor.info.fingerprint, "words": None}

    def _is_given(self, name: str) -> bool:
        return bool(self.state["collections"][name]["model"] == GIVEN_MODEL)

    def _put(self) -> None:
        """Restore the backup as a server does while it runs."""
        name = self._choose.choice(NAMES)
        if self.state["backup"] is None or name in self._folder.aliases:
            return
        with self._folder.staging() as staged:
            fill(staged, self._top / "backup", name, lambda: None)
            self._folder.build_index(staged)
            replace = name in self._folder.collections
            _checkpoint_often(self._folder.put(staged, name, replace=replace))
        self.state["collections"][name] = deepcopy(self.state["backup"])

    def _rename(self) -> None:
        name, new = self._some(), self._choose.choice(NAMES)
        aliases = self.state["aliases"]
        if name is None or not (self._is_free(new) or aliases.get(new) == name):
            return
        keep = self._choose.random() < 0.5
        self._folder.rename(name, new, keep_alias=keep)
        _checkpoint_often(self._folder.collections[new])
        collections = self.state["collections"]
        collections[new] = collections.pop(name)
        aliases |= {alias: new for alias, to in aliases.items() if to == name}
        if keep:
            aliases[name] = new
        aliases.pop(new, None)

    def _alias(self) -> None:
        """Set an alias, or delete one."""
        alias, name = self._choose.choice((*NAMES, "live")), self._some()
        aliases = self.state["aliases"]
        if alias in aliases and self._choose.random() < 0.6:
            self._folder.forget_alias(alias)
            del aliases[alias]
        elif name is not None and (alias in aliases or self._is_free(alias)):
            self._folder.set_alias(alias, name)
            aliases[alias] = name

    def _set_words(self) -> None:
        if (name := self._some()) is not None:
            self._versions += 1
            note = note_of(Given(stop_words=[f"word{self._versions}"]))
            self._folder.collections[name].note(VOCABULARY, note)
            self.state["collections"][name]["words"] = note

    def _remove(self) -> None:
        if (name := self._some()) is not None and name not in self.state["aliases"].values():
            self._folder.remove(name)
            del self.state["collections"][name]

    def _reopen(self) -> None:
        self._folder.close()
        self._folder = self._opened()

    def _back_up(self) -> None:
        if (name := self._some()) is not None:
            backup(self._data, name, self._top / "backup")
            self.state["backup"] = deepcopy(self.state["collections"][name])

    def _restore(self) -> None:
        if self.state["backup"] is None:
            return self._back_up()
        name = self._choose.choice(NAMES)
        if name in self._folder.aliases:
            return
        self._folder.close()
        restore(self._data, self._top / "backup", name, force=True)
        self._folder = self._opened()
        self.state["collections"][name] = deepcopy(self.state["backup"])

    def _key(self) -> None:
        keys, path = self.state["keys"], self._top / "keys"
        if len(keys) > 3:
            name = self._choose.choice(keys)
            remove_key(path, name)
            keys.remove(name)
        else:
            self._versions += 1
            _, key = new_key(f"key{self._versions}", "embed,search")
            add_key(path, key)
            keys.append(key.name)

    def _audit(self) -> None:
        # Longer than a sector, as with the bodies of requests.
        line = b'{"request":"%s"}' % (b"x" * self._choose.randint(1, 2000))
        asyncio.run(audited(self._top / "audit", line))


async def audited(path: Path, line: bytes) -> None:
    """Write one line to an audit."""
    audit = Audit(path, Metrics())
    audit.write(line)
    await audit.close()


def _checkpoint_often(collection: Collection) -> None:
    """Let SQLite move its log into the file every few pages instead of every thousand."""
    collection.documents.database.writer.execute("PRAGMA wal_autocheckpoint = 25")


def main(top: str, marks: str, states: str, steps: str, seed: str) -> None:
    work = Workload(Path(top), Path(marks), int(seed))
    work.run(int(steps))
    Path(states).write_text(json.dumps(work.states), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
