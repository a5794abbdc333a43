"""A data folder after a kill, a power cut or a failing disk at every step that moves a collection.

One run of an operation leaves a copy of the folder at each step, which is what a kill there leaves. Each copy is
opened as a restarted server would open it.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from server.store.collection import DATABASE_FILE
from server.store.documents import Documents
from server.store.folder import DataFolder
from server.store.records import Info
from server.store.upkeep.maintenance import backup
from server.store.upkeep.restoring import restore
from tests.store.test_folder import add, check_holds, entries, filled
from tests.support.folder_steps import CHANGES, FailingDisk, Steps, killed_at_each_step

OLD, NEW = Info("main", "model-a", 8), Info("main", "model-b", 8)
# What a collection of this name holds: the fingerprint of its model, and the ids of its documents.
State = tuple[str, tuple[str, ...]] | None
BEFORE: State = ("model-a", ("a", "b"))


def create(folder: DataFolder) -> None:
    folder.create(OLD)


def remove(folder: DataFolder) -> None:
    folder.remove("main")


def reindex(folder: DataFolder) -> None:
    """Continue the interrupted reindexing to its end."""
    successor = folder.successor(NEW)
    if not successor.count:
        add(successor, *folder.collections["main"].documents.ids())
    folder.replace(successor)


def reindex_afresh(folder: DataFolder) -> None:
    """Reindex for other vectors than the interrupted reindexing did."""
    successor = folder.successor(Info("main", "model-c", 8))
    add(successor, "a", "b")
    folder.replace(successor)


def put(folder: DataFolder) -> None:
    """Replace the collection by one that was restored."""
    with folder.staging() as staged:
        Documents(staged / DATABASE_FILE, Info("main", "model-d", 8)).close()
        folder.build_index(staged)
        folder.put(staged, "main", replace=True)


# Each operation, on a folder with a collection and an interrupted reindex of it, and what it leads to.
OPERATIONS: dict[str, tuple[Callable[[DataFolder], None], State]] = {
    "remove": (remove, None),
    "reindex": (reindex, ("model-b", ("a", "b"))),
    "reindex afresh": (reindex_afresh, ("model-c", ("a", "b"))),
    "put": (put, ("model-d", ())),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


def opened(data: Path, operation: Callable[[DataFolder], None]) -> None:
    """Open the folder for one operation."""
    with closing(DataFolder(data)) as folder:
        operation(folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a collection of two documents and its interrupted successor."""
    with closing(filled(tmp_path / "data", "a", "b")) as folder:
        add(half := folder.successor(NEW), "a", "b")
        half.close()
    return tmp_path / "data"


def state_of(data: Path) -> State:
    """Return what a start finds; checks that it is whole, and that nothing else is left."""
    with closing(DataFolder(data)) as folder:
        assert not folder.damaged
        left = [name for name in entries(data) if name.startswith(".")]
        collection = folder.collections.get("main")
        if collection is None:
            assert not left
            return None
        assert len(left) <= 1 and all(name.startswith(".next-") for name in left)
        ids = tuple(sorted(collection.documents.ids()))
        check_holds(collection, *ids)
        return collection.info.fingerprint, ids


def check_usable(data: Path) -> None:
    """Check that the collection can be made, reindexed, written and removed, without a trace."""
    with closing(DataFolder(data)) as folder:
        if "main" not in folder.collections:
            folder.create(OLD)
        add(folder.collections["main"], "a")
        reindex(folder)
        add(folder.collections["main"], "later")
        folder.remove("main")
        assert entries(data) == []
    assert state_of(data) is None


# --- kills ------------------------------------------------------------------------------------------


def check_turn(copies: list[Path], before: State, after: State) -> None:
    """Check that a start finds the old state, and from some step on the new one."""
    states = [state_of(copy) for copy in copies]
    turn = states.index(after)
    assert turn >= 1 and len(states) >= 5
    assert states == [before] * turn + [after] * (len(states) - turn)
    for copy in copies[1::4]:
        check_usable(copy)


@each_operation
def test_kill_at_any_step_leaves_the_old_state_or_the_new_one(
    data: Path, tmp_path: Path, name: str
) -> None:
    operation, after = OPERATIONS[name]
    copies = killed_at_each_step(data, tmp_path / "copies", lambda: opened(data, operation))
    check_turn(copies, BEFORE, after)


def test_kill_while_a_collection_is_created_leaves_none_or_an_empty_one(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    copies = killed_at_each_step(data, tmp_path / "copies", lambda: opened(data, create))
    check_turn(copies, None, ("model-a", ()))


def test_kill_while_a_backup_is_restored_leaves_the_old_state_or_the_new_one(
    data: Path, tmp_path: Path
) -> None:
    filled(tmp_path / "other", "z").close()
    backup(tmp_path / "other", "main", tmp_path / "backup")
    copies = killed_at_each_step(
        data, tmp_path / "copies", lambda: restored(data, tmp_path / "backup")
    )
    check_turn(copies, BEFORE, ("model-a", ("z",)))


def restored(data: Path, file: Path) -> None:
    restore(data, file, None, force=True)


def test_kill_while_a_start_puts_a_collection_back_leaves_it_there(
    data: Path, tmp_path: Path
) -> None:
    homes = data / "collections"
    (homes / "main").rename(homes / ".replaced-main")
    (homes / f".removed-{'0' * 32}").mkdir()
    copies = killed_at_each_step(data, tmp_path / "copies", lambda: DataFolder(data).close())
    assert len(copies) >= 3 and {state_of(copy) for copy in copies} == {BEFORE}


# --- power cuts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["create", *OPERATIONS])
def test_each_new_name_is_on_the_disk_before_the_next_step(data: Path, name: str) -> None:
    operation = create if name == "create" else OPERATIONS[name][0]
    if name == "create":
        opened(data, remove)
    with closing(DataFolder(data)) as folder, Steps() as steps:
        operation(folder)
    homes = data / "collections"
    moved = [
        number
        for number, step in enumerate(steps.seen)
        if step[0] == "rename" and step[1].parent == homes
    ]
    assert moved
    for number in moved:
        assert steps.seen[number + 1] == ("fsync", homes)
    if name != "remove":
        # What gets the name of a collection is on the disk before.
        taken = steps.seen.index(("rename", homes / "main"))
        synced = [path.name for kind, path in steps.seen[:taken] if kind == "fsync"]
        assert "documents.sqlite3" in synced


def test_place_of_all_collections_is_on_the_disk_when_a_folder_is_open(tmp_path: Path) -> None:
    data = tmp_path / "a" / "data"
    with Steps() as steps, closing(DataFolder(data)):
        pass
    for folder in (data / "collections", data, data.parent):
        made = steps.seen.index(("mkdir", folder))
        assert ("fsync", folder.parent) in steps.seen[made:]


# --- failing disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ["remove", "reindex"])
def test_disk_that_fails_at_any_step_leaves_the_collection_whole_and_open(
    data: Path, tmp_path: Path, name: str, lasting: bool
) -> None:
    operation, after = OPERATIONS[name]
    disk = FailingDisk(data, tmp_path, lasting=lasting, kinds=CHANGES)
    for copy, folder, refused in disk.runs(operation):
        if refused and not lasting:
            # Writes and searches go on in the same process.
            add(folder.collections["main"], "c")
            check_holds(folder.collections["main"], "a", "b", "c")
            folder.close()
            assert state_of(copy) == ("model-a", ("a", "b", "c"))
        else:
            folder.close()
            assert state_of(copy) in ([BEFORE, after] if refused else [after])
        shutil.rmtree(copy)
    assert disk.step > 3
