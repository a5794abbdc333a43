"""milvus-lite in this process: private to this user, one process a folder, and whole after a kill."""

import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("milvus_lite")

from server.databases.address import Address
from server.databases.milvus.database import MilvusDatabase
from server.errors import DatabaseAway, DatabaseRefused
from tests.support.databases import INFO, entry, same

ROOT = Path(__file__).parents[3]
# Puts documents one by one, and writes after each how many are acknowledged.
WRITES = """
    import sys
    from itertools import count
    from server.databases.address import Address
    from server.databases.milvus.database import MilvusDatabase
    from tests.support.databases import INFO, entry

    database = MilvusDatabase(Address("milvus", sys.argv[1]))
    database.create(INFO)
    for at in count():
        database.put(INFO, [entry(at * 2, f"id {at % 20}", f"text {at} " * 500, ends=(9, 4_000))])
        print(at, flush=True)
"""


def local(folder: Path) -> MilvusDatabase:
    return MilvusDatabase(Address("milvus", str(folder)))


def python(code: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listening_ports() -> set[str]:
    """Return the addresses on which sockets of this process listen by TCP."""
    links = set()
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one of the listing itself
            links.add(os.readlink(f"/proc/self/fd/{each}"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    lines += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in links}


def test_only_this_user_can_reach_it(tmp_path: Path) -> None:
    before = listening_ports()
    database = local(tmp_path / "new" / "a.db")
    database.ping()
    assert stat.S_IMODE((tmp_path / "new" / "a.db").stat().st_mode) == 0o700
    assert listening_ports() == before
    database.close()


def test_a_folder_is_held_by_one_database(tmp_path: Path) -> None:
    first = local(tmp_path / "a.db")
    first.create(INFO)
    second = local(tmp_path / "a.db")
    with pytest.raises(DatabaseAway, match=r"a\.db"):
        second.names()
    first.close()
    assert second.names() == [INFO.name]
    second.close()


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    database = local(tmp_path / ("x" * 100))
    with pytest.raises(DatabaseRefused, match="more than 93 bytes"):
        database.ping()


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "a.db"
    last = -1
    for _ in range(2):
        child = python(WRITES, str(folder))
        assert child.stdout
        for line in child.stdout:
            last = int(line)
            if last == 30:
                break
        child.kill()
        child.communicate(timeout=30)
        database = local(folder)
        found = {each.document.id: each for each in database.entries(INFO, -1, 1_000)}
        assert len(found) == 20
        for at in range(last - 19, last + 1):
            given = entry(at * 2, f"id {at % 20}", f"text {at} " * 500, ends=(9, 4_000))
            # The one after the last may be there, too.
            stored = found[given.document.id]
            assert same(stored, given) or stored.number == (at + 20) * 2 == (last + 1) * 2
        database.close()


def test_it_starts_no_processes_and_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from server.databases.address import Address
        from server.databases.milvus.database import MilvusDatabase
        from server.errors import DatabaseRefused
        from tests.support.databases import INFO, entry

        database = MilvusDatabase(Address("milvus", sys.argv[1]))
        database.create(INFO)
        try:
            database.put(INFO, [entry(1, "a", "text", {"n": list(range(20_000))})])
        except DatabaseRefused:
            pass
        try:
            database._call("query", "absent", filter="(")
        except DatabaseRefused:
            pass
        children = [task.read_text() for task in Path("/proc/self/task").glob("*/children")]
        assert not "".join(children).strip(), children
        if len(sys.argv) > 2:
            database.close()
    """
    for arguments in (["close"], []):
        child = python(code, str(tmp_path / "a.db"), *arguments)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out, err) == (0, "", "")


def test_the_import_reads_no_file_and_no_variables(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LEAKED=1")
    code = """
        import os, sys
        import dotenv.main

        dotenv.main.find_dotenv = lambda *_, **__: sys.argv[1]
        import server.databases.milvus.client

        print(os.environ.get("LEAKED"))
    """
    junk = {"MILVUS_URI": "junk", "MILVUS_CONN_TIMEOUT": "junk"}
    out, err = python(code, str(tmp_path / ".env"), **junk).communicate(timeout=60)
    assert (out, err) == ("None\n", "")


def test_calls_may_come_from_many_threads(tmp_path: Path) -> None:
    database = local(tmp_path / "a.db")
    database.create(INFO)
    kept = [entry(at, f"kept {at}", f"text {at}") for at in range(20)]
    database.put(INFO, kept)

    def write(worker: int) -> None:
        for at in range(12):
            number = 1_000 * (worker + 1) + 10 * at
            database.put(INFO, [entry(number, f"{worker}", "text", ends=(2, 4))])
            if at % 4 == 3:
                database.delete(INFO, [f"{worker}"])

    def read(worker: int) -> None:
        for at in range(25):
            found = database.nearest(INFO, kept[(worker + at) % 20].rows[0].vector, 1, None)
            assert found[0].label == (worker + at) % 20
            assert database.documents(INFO, ["kept 3"])["kept 3"].text == "text 3"
            assert len(database.by_words(INFO, ["text"], 200, None)) >= 20

    with ThreadPoolExecutor(8) as pool:
        done = [*pool.map(write, range(4), timeout=60), *pool.map(read, range(4), timeout=60)]
    assert done == [None] * 8
    assert database.count(INFO, None) == 20
    database.close()
    assert os.listdir(tmp_path / "a.db")
