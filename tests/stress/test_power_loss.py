"""Power cuts: what is stored after the machine stops at any moment, and the disk kept only what it had to.

A workload runs once under strace, which records all that it writes. Then, ROUNDS times, a disk is made as a cut at a
random moment may leave it, and opened as a server opens it. The longer form: `ROUNDS=5000 make test-stress
ARGS=tests/stress/test_power_loss.py`. SEED repeats a run.
"""

import asyncio
import json
import os
import random
import shutil
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.auth.keys import read_keys
from server.store.folder import INDEX, DataFolder
from server.store.naming import names_file
from server.store.records import Info
from server.store.search import Query, search
from server.store.upkeep.integrity import faults_of
from server.store.upkeep.restoring import restore
from server.store.words.vocabulary import VOCABULARY
from tests.support.disk_trace import Change, record
from tests.support.power_workload import (
    D,
    State,
    audited,
    document_of,
    vector_of,
)
from tests.support.processes import ROOT, environment
from tests.support.torn_disk import Disk

pytestmark = [pytest.mark.slow, pytest.mark.stress]
ROUNDS = int(os.environ.get("ROUNDS", "400"))
SEED = int(os.environ.get("SEED", "1"))
STEPS = 150
MODEL_0 = "model-0"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Change], list[State]]:
    """The folder of a workload, its changes in order, and what it holds after each number of steps."""
    home = tmp_path_factory.mktemp("power")
    (top := home / "top").mkdir()
    marks, states = home / "marks", home / "states"
    module = [sys.executable, "-m", "tests.support.power_workload"]
    command = [*module, *map(str, (top, marks, states, STEPS, SEED))]
    environ = environment(PYTHONPATH=str(ROOT))
    changes = record(command, top, marks, home / "log", environ)
    return top, changes, json.loads(states.read_text(encoding="utf-8"))


def test_power_cut_at_any_moment_loses_nothing_acknowledged(
    recorded: tuple[Path, list[Change], list[State]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    top, changes, states = recorded
    disk = Disk(top, changes)
    disk.whole(tmp_path / "whole")
    # What was recorded is what was written: no change has escaped.
    assert contents(tmp_path / "whole") == contents(top)
    choose = random.Random(SEED)
    # Half of the cuts are near the changes of names, where most depends on order.
    names = [
        time
        for time, each in enumerate(changes)
        if each.kind in ("rename", "remove", "create", "mkdir")
    ]
    losses: list[str] = []
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        time = choose.randrange(len(changes))
        if number % 2:
            time = min(choose.choice(names) + choose.randint(-1, 8), len(changes) - 1)
        disk.cut(max(time, 0), home := tmp_path / "cut", choose)
        marks = Counter(each.data for each in changes[: time + 1] if each.kind == "mark")
        before, after = states[marks[b"end"]], states[marks[b"begin"]]
        try:
            check(home, before, after, seen, thorough=number % 4 == 0)
        except Exception as error:
            losses.append(
                f"round {number}, cut after change {time}: {type(error).__name__}: {error}"
            )
            if keep := os.environ.get("KEEP"):
                shutil.copytree(home, Path(keep) / str(number))
        shutil.rmtree(home)
    kinds = dict(Counter(each.kind for each in changes))
    figures = {"rounds": ROUNDS, "steps": len(states) - 1, "changes": kinds, "found": dict(seen)}
    with capsys.disabled():
        sys.stdout.write(
            f"\n{json.dumps({'case': 'power cuts', **figures, 'losses': len(losses)})}\n"
        )
    assert not losses, "\n".join(losses[:10])


def contents(folder: Path) -> dict[str, bytes]:
    # SQLite keeps an index of its log in memory that it shares with itself by name.
    files = [
        path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check(home: Path, before: State, after: State, seen: Counter[str], *, thorough: bool) -> None:
    """Check that a disk holds what was acknowledged, and at most the step that was in progress beside it."""
    found = found_in(home / "data")
    either(found, before, after, "collections", seen)
    either(dict(names_file.read(home / "data").aliases), before, after, "aliases")
    either(
        [key.name for key in read_keys(home / "keys")] if (home / "keys").exists() else [],
        before,
        after,
        "keys",
    )
    check_audit(home / "audit")
    if not thorough:
        return
    for name in found:
        assert not (faults := faults_of(home / "data" / "collections" / name, INDEX)), faults
    if (home / "backup").exists():
        restore(home / "data", home / "backup", "restored", force=True)
        either(found_in(home / "data")["restored"], before, after, "backup")
    check_usable(home / "data")


def either(
    found: object, before: State, after: State, what: str, seen: Counter[str] | None = None
) -> None:
    """Check that this part of the state is the old one or the new one."""
    is_new = found == after[what]
    assert is_new or found == before[what], (
        f"{what}: {_difference(found, before[what], after[what])}"
    )
    if seen is not None and before[what] != after[what]:
        seen["step in progress is there" if is_new else "step in progress is not there"] += 1


def _difference(found: object, before: object, after: object) -> str:
    return f"\n found {found}\n before {before}\n after {after}"


def found_in(data: Path) -> dict[str, Any]:
    """Return models and documents' versions, all checked, of what a start finds in a data folder."""
    with closing(DataFolder(data)) as folder:
        assert not folder.damaged, {name: error.english for name, error in folder.damaged.items()}
        found = {}
        for name, collection in folder.collections.items():
            versions: dict[str, int] = {}
            model, words = collection.info.fingerprint, collection.documents.noted(VOCABULARY)
            for id, document in collection.documents.get(collection.documents.ids()).items():
                version = document.metadata["version"]
                assert isinstance(version, int)
                versions[id] = version
                assert document == document_of(id, version, model)
            for id, version in versions.items():
                # By its own vector: so the index has the vector of this very version.
                query = Query("dense", 1, vector_of(id, version, model))
                ((hit,),) = search(collection, [query])
                assert (hit.id, round(hit.score, 3)) == (id, 1), f"{id} is found as {hit.id}"
            assert len(collection.index.labels) == len(versions)
            found[name] = {"model": model, "words": words, "documents": versions}
        return found


def check_audit(path: Path) -> None:
    """Check that an audit goes on with a line of its own, whatever the last one is."""
    asyncio.run(audited(path, b"next"))
    assert path.read_bytes().split(b"\n")[-2] == b"next"


def check_usable(data: Path) -> None:
    """Check that collections are made, reindexed and removed, and that nothing is left behind."""
    with closing(DataFolder(data)) as folder:
        for alias in list(folder.aliases):
            folder.forget_alias(alias)
        for name in list(folder.collections):
            folder.remove(name)
        folder.create(Info("laws", MODEL_0, D))
        folder.replace(folder.successor(Info("laws", "model-1", D)))
        folder.remove("laws")
    assert not list((data / "collections").iterdir())
