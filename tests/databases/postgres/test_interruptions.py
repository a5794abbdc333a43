"""What becomes of calls whose server, session or network ends, and of calls that run at the same time."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from server.databases.database import VectorDatabase
from server.databases.postgres.schema import MARK, quoted
from server.errors import DatabaseAway
from server.store.filters.tree import parse
from server.store.records import Info
from tests.support.cut_connections import Proxy, cutting
from tests.support.databases import entry, same
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.postgres import ADMIN, PASSWORD, PostgresServer

Opening = Callable[[str], VectorDatabase]
TEXT = "墨池 keeps documents, and finds them again."


def tallies(server: PostgresServer, info: Info) -> tuple[list[object], list[object]]:
    """Return the counts that writes keep, and the same counted from the rows."""
    schema = quoted(info.name)
    kept = server.sql(f"SELECT documents, chunks, terms FROM {schema}.{MARK}")
    counted = server.sql(
        f"SELECT (SELECT count(*) FROM {schema}.documents), (SELECT count(*) FROM {schema}.chunks),"
        f" (SELECT COALESCE(sum(occurrences), 0)::bigint FROM {schema}.terms)"
    )
    return kept[0], counted[0]


def orphans(server: PostgresServer, info: Info) -> int:
    """Return how many rows belong to no document."""
    schema = quoted(info.name)
    rows = server.sql(
        f"SELECT (SELECT count(*) FROM {schema}.attributes a WHERE NOT EXISTS"
        f" (SELECT FROM {schema}.documents WHERE number = a.document)),"
        f" (SELECT count(*) FROM {schema}.chunks c WHERE NOT EXISTS"
        f" (SELECT FROM {schema}.documents WHERE number = c.document)),"
        f" (SELECT count(*) FROM {schema}.terms t WHERE NOT EXISTS"
        f" (SELECT FROM {schema}.chunks WHERE label = t.label))"
    )
    return sum(rows[0])


@contextmanager
def locked(server: PostgresServer, info: Info) -> Iterator[None]:
    """Meanwhile no write to the collection gets its lock."""
    from pg8000.native import Connection

    holder = Connection(
        ADMIN, host="127.0.0.1", port=server.port, database="postgres", password=PASSWORD
    )
    holder.run("BEGIN")
    holder.run(f"SELECT 1 FROM {quoted(info.name)}.{MARK} FOR UPDATE")
    try:
        yield
    finally:
        holder.close()


def waiting(server: PostgresServer) -> list[int]:
    """Return the processes of sessions that wait for a lock."""
    rows = server.sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'inkwell' AND wait_event_type = 'Lock'"
    )
    return [pid for (pid,) in rows]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_restart_between_calls_is_not_noticed(
    server: PostgresServer, database: VectorDatabase, info: Info, how: signal.Signals
) -> None:
    given = entry(1, "a", TEXT)
    database.put(info, [given])
    server.stop(how)
    server.start()
    assert same(database.entries(info, -1, 10)[0], given)
    server.stop(how)
    server.start()
    database.put(info, [entry(2, "b", TEXT)])
    assert database.count(info, None) == 2


def test_a_server_that_is_down_is_away_until_it_is_back(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    server.stop()
    try:
        for _ in range(3):
            with pytest.raises(
                DatabaseAway, match=f"127.0.0.1:{server.port}/postgres does not answer"
            ):
                database.count(info, None)
    finally:
        server.start()
    assert database.count(info, None) == 0


def test_a_write_whose_session_is_terminated_runs_again(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    database.put(info, [entry(1, "a", TEXT)])
    with ThreadPoolExecutor(1) as threads:
        with locked(server, info):
            put = threads.submit(database.put, info, [entry(2, "a", "newer"), entry(3, "b", TEXT)])
            eventually(lambda: waiting(server))
            (pid,) = waiting(server)
            server.sql(f"SELECT pg_terminate_backend({pid})")
            eventually(lambda: waiting(server) not in ([], [pid]))
        put.result(PATIENCE_S)
    assert [each.number for each in database.entries(info, -1, 10)] == [2, 3]
    kept, counted = tallies(server, info)
    assert kept == counted and orphans(server, info) == 0


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with cutting(server.port) as found:
        yield found


def through(proxy: Proxy, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://{ADMIN}@127.0.0.1:{proxy.port}/postgres?{query}"


@pytest.mark.parametrize("at", [b"COMMIT", b"COPY", b"DELETE", b"BEGIN"], ids=bytes.decode)
def test_a_write_whose_reply_was_lost_leaves_what_one_write_leaves(
    server: PostgresServer, opening: Opening, proxy: Proxy, info: Info, at: bytes
) -> None:
    database = opening(through(proxy))
    older = [entry(1, "a", TEXT, {"v": 1}, ends=(5, len(TEXT))), entry(3, "b", TEXT)]
    newer = [entry(5, "a", "Short.", {"v": 2}), older[1]]
    database.put(info, older)
    proxy.cut_after = at
    database.put(info, newer)
    assert proxy.n_cut == 1
    found = database.entries(info, -1, 10)
    assert [each.number for each in found] == [3, 5]
    assert all(map(same, found, newer[::-1]))
    kept, counted = tallies(server, info)
    assert kept == counted == [2, 2, sum(sum(each.rows[0].words.values()) for each in newer)]
    assert orphans(server, info) == 0


def test_a_new_session_that_is_cut_is_away_and_the_write_may_be_repeated(
    server: PostgresServer, opening: Opening, proxy: Proxy, info: Info
) -> None:
    database = opening(through(proxy))
    database.ping()
    server.stop()
    server.start()
    with pytest.raises(DatabaseAway):
        # The first run finds its session dead, and the second one is cut.
        proxy.cut_after = b"COMMIT"
        database.put(info, [entry(1, "a", TEXT)])
    database.put(info, [entry(1, "a", TEXT)])
    assert tallies(server, info)[0][:2] == [1, 1]


def test_a_lost_reply_to_a_deletion_or_a_new_collection_does_no_harm(
    opening: Opening, proxy: Proxy, info: Info
) -> None:
    database = opening(through(proxy))
    database.put(info, [entry(1, "a", TEXT)])
    proxy.cut_after = b"COMMIT"
    database.delete(info, ["a"])
    assert database.count(info, None) == 0
    proxy.cut_after = b"COMMIT"
    database.drop(info.name)
    proxy.cut_after = b"COMMIT"
    database.create(info)
    assert proxy.n_cut == 3
    assert database.count(info, None) == 0


def test_writers_and_readers_at_once_see_whole_documents(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    """Three writers replace and remove the same ten documents; every version has as many chunks as it says."""
    n_ids, n_rounds, n_writers = 10, 12, 3
    labels = iter(range(10, 10**6, 10))
    numbering = threading.Lock()
    done = threading.Event()

    def write(writer: int) -> None:
        for at in range(n_rounds):
            some = []
            for id in range(n_ids):
                with numbering:
                    label = next(labels)
                n = 1 + (at + id + writer) % 4
                text = f"part {label} " * n
                ends = [len(text) // n * (i + 1) for i in range(n)]
                some.append(entry(label, f"id {id}", text, {"chunks": n}, ends=ends))
            database.put(info, some)
            database.delete(info, [f"id {writer}"])

    def read() -> int:
        n_read = 0
        while not done.is_set() or not n_read:
            for each in database.entries(info, -1, 100):
                assert len(each.rows) == each.document.metadata["chunks"]
                assert [row.label for row in each.rows] == [
                    each.number + i for i in range(len(each.rows))
                ]
            found = database.by_words(info, ["part"], 100, None)
            versions: dict[str, set[str]] = {}
            for row in found:
                versions.setdefault(row.chunk.id, set()).add(str(row.label // 10))
            assert all(len(each) == 1 for each in versions.values())
            n_read += 1
        return n_read

    with ThreadPoolExecutor(n_writers + 2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        writers = [threads.submit(write, writer) for writer in range(n_writers)]
        try:
            for each in writers:
                each.result(PATIENCE_S * 4)
        finally:
            done.set()
        assert all(each.result(PATIENCE_S) for each in readers)
    kept, counted = tallies(server, info)
    assert kept == counted and orphans(server, info) == 0
    assert [each.document.id for each in database.entries(info, -1, 100)] != []


def test_sessions_are_no_more_than_the_address_allows(
    server: PostgresServer, opening: Opening, info: Info
) -> None:
    database = opening(server.url(sessions="2", timeout_s="5"))
    database.ping()
    with ThreadPoolExecutor(6) as threads:
        with locked(server, info):
            puts = [
                threads.submit(database.put, info, [entry(at, f"id {at}", TEXT)])
                for at in range(1, 7)
            ]
            eventually(lambda: len(waiting(server)) == 2)
        for put in puts:
            put.result(PATIENCE_S)
    open = server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'inkwell'")
    assert open[0][0] <= 2 + 8  # those of the fixture's database, too
    assert database.count(info, None) == 6


def test_a_call_that_finds_all_sessions_busy_is_told_so(
    server: PostgresServer, opening: Opening, info: Info
) -> None:
    database = opening(server.url(sessions="1", timeout_s="0.4"))
    database.ping()
    refusals: Sequence[str]
    with ThreadPoolExecutor(2) as threads, locked(server, info):
        puts = [threads.submit(database.put, info, [entry(at, "a", TEXT)]) for at in (1, 2, 3)]
        refusals = sorted(str(put.exception(PATIENCE_S)) for put in puts)
    assert any("lock" in refusal for refusal in refusals), refusals
    database.put(info, [entry(9, "a", TEXT)])
    assert database.count(info, parse({"$id": "a"})) == 1


def test_a_server_that_only_reads_is_away_until_it_writes_again(
    server: PostgresServer, database: VectorDatabase, info: Info
) -> None:
    """As a standby does, before it becomes the primary."""
    server.sql(f"ALTER ROLE {ADMIN} SET default_transaction_read_only = on")
    server.stop()
    server.start()
    try:
        assert database.count(info, None) == 0
        with pytest.raises(DatabaseAway, match="read-only transaction .*25006"):
            database.put(info, [entry(1, "a", TEXT)])
    finally:
        reset = f"ALTER ROLE {ADMIN} RESET default_transaction_read_only"
        server.sql(f"BEGIN READ WRITE; {reset}; COMMIT")
    database.put(info, [entry(1, "a", TEXT)])
    assert database.count(info, None) == 1
