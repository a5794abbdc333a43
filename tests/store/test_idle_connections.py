"""Idle connections: the newest of an owner is taken, and the oldest of all is closed."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.errors import Overloaded, TooManyCollections
from server.store import database as database_module
from server.store.database import Connection, Database
from server.store.folder import DataFolder
from server.store.records import Info
from server.system import open_files
from server.system.idle_connections import IdleConnections


class Idle:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_an_owner_gets_its_own_and_too_many_are_closed() -> None:
    idle: IdleConnections[Idle] = IdleConnections(most=3)
    first, second, third, fourth = (Idle() for _ in range(4))
    idle.keep(1, first)
    idle.keep(2, second)
    idle.keep(1, third)
    assert idle.take(3) is None
    assert idle.take(1) is third
    idle.keep(1, third)
    idle.keep(2, fourth)
    assert first.closed and not (second.closed or third.closed or fourth.closed)
    idle.close(2)
    assert second.closed and fourth.closed and idle.take(2) is None
    assert idle.take(1) is third and not third.closed


def test_many_databases_keep_few_connections_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "READERS", IdleConnections(most=2))
    opened = [
        Database(tmp_path / str(n), 1, lambda writer: None, lambda *_: None) for n in range(8)
    ]
    before = open_files.left()
    for each in (*opened, *opened):
        assert each.rows("PRAGMA user_version") == [(1,)]
    # A reader has the file and the log open. SQLite closes the first only with the last connection to it.
    assert before - open_files.left() <= 8 + 2
    for each in opened:
        each.close()


@pytest.fixture
def few_files() -> Iterator[Callable[[int], None]]:
    """Leave this process only so many more files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(open_files.DESCRIPTORS)))
    taken: list[int] = []

    def leave(number: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.sep, os.O_RDONLY))
        for _ in range(min(number, len(taken))):
            os.close(taken.pop())

    yield leave
    for each in taken:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_collection_beyond_the_open_files_is_refused_before_it_exists(
    tmp_path: Path, few_files: Callable[[int], None]
) -> None:
    folder, limits = DataFolder(tmp_path), resource.getrlimit(resource.RLIMIT_NOFILE)
    few_files(6)
    with pytest.raises(TooManyCollections, match=r"0 collections open.*LimitNOFILE"):
        folder.create(Info("a", "model", 8))
    assert list((tmp_path / "collections").iterdir()) == []
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    folder.create(Info("a", "model", 8))
    folder.close()


def test_a_database_that_finds_no_open_file_says_so_and_not_permissions(
    tmp_path: Path, few_files: Callable[[int], None]
) -> None:
    opened = Database(tmp_path / "file", 1, lambda writer: None, lambda *_: None)
    few_files(0)
    with pytest.raises(Overloaded, match=r"files open.*LimitNOFILE"):
        opened.rows("PRAGMA user_version")
    few_files(6)
    assert opened.rows("PRAGMA user_version") == [(1,)]
    opened.close()


def test_the_log_is_shortened_unless_a_reader_needs_it(tmp_path: Path) -> None:
    def create(writer: Connection) -> None:
        writer.execute("CREATE TABLE t (a)")

    opened = Database(
        tmp_path / "file",
        1,
        create,
        lambda *_: None,
    )
    log = tmp_path / "file-wal"
    with opened.transaction() as writer:
        writer.executemany("INSERT INTO t VALUES (?)", [("x" * 10_000,)] * 300)
    assert log.stat().st_size > 3_000_000
    rows = opened.each("SELECT a FROM t")
    next(rows)
    with opened.transaction() as writer:
        writer.execute("INSERT INTO t VALUES (1)")
    opened.shorten_log()
    assert log.stat().st_size > 3_000_000, "a reader looks at an older state"
    rows.close()
    opened.shorten_log()
    assert log.stat().st_size == 0
    assert opened.rows("SELECT count(*) FROM t") == [(301,)]
    with opened.transaction() as writer:
        writer.execute("INSERT INTO t VALUES (2)")
    opened.close()
