"""Renaming and aliases on the disk: after a kill or a failing disk at any step there is the old state or the new."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from server.errors import AlreadyExists, InvalidRequest, StoreDamaged
from server.store.folder import DataFolder
from server.store.naming import names_file
from server.store.naming.names_file import FILE, MAX_ALIASES, Names, Renaming
from server.store.records import Info
from server.store.upkeep.maintenance import backup, check, collections
from server.store.upkeep.restoring import restore
from tests.store.test_folder import add, check_holds, entries, filled
from tests.support.folder_steps import FailingDisk, killed_at_each_step

# The name of the only collection, and the aliases.
State = tuple[str, dict[str, str]]
BEFORE: State = ("main", {"live": "main"})
Operation = Callable[[DataFolder], None]
OPERATIONS: dict[str, tuple[Operation, State]] = {
    "rename": (
        lambda folder: folder.rename("main", "laws", keep_alias=False),
        ("laws", {"live": "laws"}),
    ),
    "rename and keep": (
        lambda folder: folder.rename("main", "laws", keep_alias=True),
        ("laws", {"live": "laws", "main": "laws"}),
    ),
    "rename to an alias": (
        lambda folder: folder.rename("main", "live", keep_alias=True),
        ("live", {"main": "live"}),
    ),
    "set an alias": (
        lambda folder: folder.set_alias("other", "main"),
        ("main", {"live": "main", "other": "main"}),
    ),
    "forget an alias": (lambda folder: folder.forget_alias("live"), ("main", {})),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a collection, an alias and an interrupted reindex."""
    with closing(filled(tmp_path / "data", "a", "b")) as folder:
        folder.set_alias("live", "main")
        add(half := folder.successor(Info("main", "model-b", 8)), "a")
        half.close()
    return tmp_path / "data"


def state_of(data: Path) -> State:
    """Return what a start finds; checks that it is whole."""
    with closing(DataFolder(data)) as folder:
        assert not folder.damaged
        assert names_file.read(data).renaming is None
        ((name, collection),) = folder.collections.items()
        assert collection.name == name
        check_holds(collection, "a", "b")
        # Nothing stands in the way of either name.
        folder.remove(name)
        for each in ("main", "laws", "live"):
            if each not in folder.aliases:
                folder.create(Info(each, "model-a", 8))
        return name, dict(folder.aliases)


def opened(data: Path, operation: Operation) -> None:
    with closing(DataFolder(data)) as folder:
        operation(folder)


@each_operation
def test_kill_at_any_step_leaves_the_old_names_or_the_new_ones(
    data: Path, tmp_path: Path, name: str
) -> None:
    operation, after = OPERATIONS[name]
    copies = killed_at_each_step(data, tmp_path / "copies", lambda: opened(data, operation))
    # A start after a kill may be killed in turn.
    middle = copies[len(copies) // 2]
    again = killed_at_each_step(middle, tmp_path / "again", lambda: DataFolder(middle).close())
    states = [state_of(copy) for copy in copies if copy != middle]
    turn = states.index(after)
    assert turn >= 1 and states == [BEFORE] * turn + [after] * (len(states) - turn)
    assert {str(state_of(copy)) for copy in again} <= {str(BEFORE), str(after)}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ["rename to an alias", "set an alias"])
def test_disk_that_fails_at_any_step_leaves_the_collection_whole_and_open(
    data: Path, tmp_path: Path, name: str, lasting: bool
) -> None:
    operation, after = OPERATIONS[name]
    disk = FailingDisk(data, tmp_path, lasting=lasting, kinds=("rename", "replace", "fsync"))
    for copy, folder, refused in disk.runs(operation):
        if not folder.damaged:
            ((own, collection),) = folder.collections.items()
            check_holds(collection, "a", "b")
            assert (own, dict(folder.aliases)) in ((BEFORE, after) if refused else (after,))
        else:
            assert lasting
        folder.close()
        assert state_of(copy) in ((BEFORE, after) if refused else (after,))


def test_identity_and_vectors_stay_and_the_old_name_is_free(data: Path) -> None:
    with closing(DataFolder(data)) as folder:
        identity = folder.collections["main"].documents.identity
        folder.rename("main", "laws", keep_alias=False)
        assert folder.collections["laws"].documents.identity == identity
        assert "main" not in folder.collections and entries(data) == ["laws"]
        folder.create(Info("main", "model-a", 8))
        with pytest.raises(AlreadyExists, match="exists already"):
            folder.rename("laws", "main", keep_alias=False)
        with pytest.raises(AlreadyExists, match="is an alias of collection 'laws'"):
            folder.rename("main", "live", keep_alias=False)
        with pytest.raises(AlreadyExists, match="is an alias"):
            folder.create(Info("live", "model-a", 8))
        with pytest.raises(AlreadyExists, match="exists already"):
            folder.set_alias("main", "laws")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b'{"aliases": {"a": 1}}', b'{"aliases": {"../x": "main"}}']
    + [b'{"renaming": {"old": "main", "new": "..", "keep": true}}', b'{"x": 1}'],
)
def test_file_of_names_that_is_not_ours_is_named_and_not_replaced(
    data: Path, content: bytes
) -> None:
    (data / FILE).write_bytes(content)
    with pytest.raises(StoreDamaged, match="set the aliases again"):
        DataFolder(data)
    assert (data / FILE).read_bytes() == content


def test_alias_that_is_set_while_a_renaming_could_not_be_undone_does_not_hide_it(
    data: Path,
) -> None:
    with closing(DataFolder(data)) as folder:
        folder.create(Info("other", "model-a", 8))
        noted = Names({"live": "main"}, Renaming("main", "laws", False))
        # As a kill after the second step leaves it, for the process that goes on.
        folder._names.write(noted)
        folder.set_alias("also", "other")
        assert names_file.read(data).renaming == noted.renaming
        folder.rename("other", "others", keep_alias=False)
    assert names_file.read(data) == Names({"live": "main", "also": "others"})


def test_number_of_aliases_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.store.folder.MAX_ALIASES", 2)
    with closing(DataFolder(data)) as folder:
        folder.set_alias("second", "main")
        with pytest.raises(Exception, match="at most 2"):
            folder.set_alias("third", "main")
        folder.set_alias("second", "main")
    assert MAX_ALIASES >= 100


def test_number_of_aliases_is_bounded_where_several_are_set_at_the_same_time(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.store.folder.MAX_ALIASES", 2)
    write = names_file.NamesFile.write

    def slow_write(file: names_file.NamesFile, names: Names) -> None:
        time.sleep(0.02)
        write(file, names)

    monkeypatch.setattr(names_file.NamesFile, "write", slow_write)
    with closing(DataFolder(data)) as folder, ThreadPoolExecutor(3) as several:
        setting = [several.submit(folder.set_alias, name, "main") for name in ("b", "c", "d")]
        refused = [each.exception() for each in setting if each.exception() is not None]
        assert [type(each) for each in refused] == [InvalidRequest] * 2
        assert len(folder.aliases) == 2


def test_commands_without_a_server_know_aliases(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert backup(data, "live", tmp_path / "backup") > 0
    assert check(data, "live", lambda message: said.append(str(message)))
    found, damaged = collections(data, {})
    assert [each.name for each in found] == ["main"] and not damaged
    with pytest.raises(Exception, match="alias of collection main"):
        restore(data, tmp_path / "backup", "live", force=True)


def test_names_of_several_collections_are_changed_at_the_same_time(tmp_path: Path) -> None:
    names = ("a", "b", "c")

    def change(folder: DataFolder, name: str) -> None:
        for number in range(4):
            folder.set_alias(f"{name}-{number}", name)
            folder.rename(name, f"{name}-new", keep_alias=True)
            folder.rename(f"{name}-new", name, keep_alias=False)
            folder.set_alias("last", name)
            if number % 2:
                folder.forget_alias(f"{name}-{number}")

    with closing(DataFolder(tmp_path)) as folder:
        for name in names:
            folder.create(Info(name, "model-a", 8))
        with ThreadPoolExecutor(len(names)) as several:
            for _ in several.map(partial(change, folder), names):
                pass
        wanted = {f"{name}-{number}": name for name in names for number in range(0, 4, 2)}
        last = folder.aliases["last"]
        assert folder.aliases == {**wanted, "last": last} and last in names
    assert names_file.read(tmp_path).aliases == {**wanted, "last": last}
