"""Lines of the audit reach the file whole and in order, and nothing waits for them."""

import asyncio
import logging
import os
import select
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from server.auth import audit
from server.auth.audit import MAX_WAITING_BYTES, Audit
from server.errors import BadSettings
from server.telemetry.metrics import Metrics

LOST = "inkwell_audit_lost_lines_total"


def lost(metrics: Metrics) -> float:
    found = metrics.registry.get_sample_value(LOST)
    assert found is not None
    return found


def test_lines_are_appended_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_bytes(b"before\n")
    expected = [b"%d" % number for number in range(5000)]

    async def test() -> None:
        log = Audit(path, Metrics())
        for line in expected:
            log.write(line)
            if line.endswith(b"00"):
                await asyncio.sleep(0)
        await log.close()

    asyncio.run(test())
    assert path.read_bytes().splitlines() == [b"before", *expected]


def test_line_is_written_without_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "GATHER_S", 0.0)

    async def test() -> None:
        log = Audit(tmp_path / "audit", Metrics())
        for line in (b"one", b"two"):
            log.write(line)
            while line not in (tmp_path / "audit").read_bytes():
                await asyncio.sleep(0)
        await log.close()

    asyncio.run(asyncio.wait_for(test(), 30))
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o600


def test_file_that_was_moved_away_is_left_alone_after_reopening(tmp_path: Path) -> None:
    path, old = tmp_path / "audit", tmp_path / "audit.1"

    async def test() -> None:
        log = Audit(path, Metrics())
        log.write(b"old")
        await log._write_waiting()
        path.rename(old)
        log.reopen()
        log.write(b"new")
        await log.close()

    asyncio.run(test())
    assert (old.read_bytes(), path.read_bytes()) == (b"old\n", b"new\n")


def test_file_that_cannot_be_reopened_goes_on_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def test() -> None:
        log = Audit(folder / "audit", Metrics())
        folder.rename(tmp_path / "moved")
        log.reopen()
        log.write(b"line")
        await log.close()

    asyncio.run(test())
    assert (tmp_path / "moved" / "audit").read_bytes() == b"line\n"
    assert "cannot be opened" in caplog.text


def test_file_that_cannot_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as refused:
        Audit(tmp_path / "no" / "audit", Metrics())
    assert "audit" in refused.value.english and "审计" in refused.value.chinese


@pytest.mark.parametrize("place", ["none/audit", ".", "text/audit", "dangling", "new", "old", "-"])
def test_check_accepts_exactly_the_paths_that_can_be_opened_and_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text", "old"):
        Path(name).write_text("")
    Path("dangling").symlink_to("none/audit")
    before = sorted(tmp_path.iterdir())

    def refused(attempt: Callable[[], Audit | None]) -> bool:
        try:
            log = attempt()
        except BadSettings:
            return True
        if log is not None:
            asyncio.run(log.close())
        return False

    found = refused(lambda: audit.check(Path(place)))
    assert sorted(tmp_path.iterdir()) == before
    assert (
        found
        == refused(lambda: Audit(Path(place), Metrics()))
        == (place in ("none/audit", ".", "text/audit", "dangling"))
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_check_refuses_a_file_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("")
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        for name in ("audit", "new"):
            with pytest.raises(BadSettings, match="cannot be opened"):
                audit.check(tmp_path / name)
    finally:
        os.seteuid(0)


def test_full_disk_loses_lines_counts_them_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()

    async def test() -> None:
        log = Audit(Path("/dev/full"), metrics)
        for count in (1, 3):
            for _ in range(count):
                log.write(b"line")
            log._start()
            assert log._writing is not None
            await log._writing
        await log.close()

    asyncio.run(test())
    assert lost(metrics) == 4
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_line_of_which_only_a_part_was_written_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, room = os.write, [10, 0, 1000]

    def little(file: int, content: bytes) -> int:
        if not room[0]:
            room.pop(0)
            raise OSError(28, "full")
        size = room.pop(0)
        return write(file, content[:size])

    metrics = Metrics()

    async def test() -> None:
        log = Audit(tmp_path / "audit", metrics)
        for line in (b"first", b"second", b"third"):
            log.write(line)
        monkeypatch.setattr(os, "write", little)
        await log._write_waiting()
        log.write(b"fourth")
        await log._write_waiting()
        monkeypatch.undo()
        await log.close()

    asyncio.run(test())
    assert (tmp_path / "audit").read_bytes().splitlines() == [b"first", b"seco", b"fourth"]
    assert lost(metrics) == 2
    assert "written again" in caplog.text


@pytest.mark.parametrize("left", [b"", b"whole\n", b"whole\nhalf a li", b"whole\n\0\0"])
def test_line_that_a_power_cut_has_torn_does_not_spoil_the_next(
    tmp_path: Path, left: bytes
) -> None:
    path = tmp_path / "audit"
    path.write_bytes(left)

    async def test() -> None:
        log = Audit(path, Metrics())
        log.write(b"next")
        await log.close()

    asyncio.run(test())
    assert path.read_bytes().splitlines() == [*left.splitlines(), b"next"]


def test_no_more_bytes_wait_than_there_is_room_for(tmp_path: Path) -> None:
    metrics, line = Metrics(), b"x" * (MAX_WAITING_BYTES // 10)

    async def test() -> None:
        log = Audit(tmp_path / "audit", metrics)
        for _ in range(17):
            log.write(line)
        await log.close()

    asyncio.run(test())
    assert lost(metrics) == 7
    assert (tmp_path / "audit").read_bytes().splitlines() == [line] * 10


def test_lines_being_written_take_their_room_until_they_are(tmp_path: Path) -> None:
    metrics, half = Metrics(), b"x" * (MAX_WAITING_BYTES // 2)
    pipe = tmp_path / "audit"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    async def test() -> None:
        log = Audit(pipe, metrics)
        for _ in range(2):
            log.write(half)
        # The pipe has no reader, so the thread waits in the middle of the write.
        writing = asyncio.ensure_future(log._write_waiting())
        try:
            while not await asyncio.to_thread(readable, reader):
                await asyncio.sleep(0)
            log.write(b"one too many")
            lost_meanwhile = lost(metrics)
        finally:
            os.set_blocking(reader, True)
            await asyncio.to_thread(drain, reader, 2 * len(half) + 2)
        await writing
        assert lost_meanwhile == 1
        log.write(b"another")
        await log.close()
        assert os.read(reader, 100) == b"another\n"

    asyncio.run(asyncio.wait_for(test(), 30))
    os.close(reader)
    assert lost(metrics) == 1


def readable(file: int) -> bool:
    return bool(select.select([file], [], [], 0.01)[0])


def drain(file: int, size: int) -> None:
    while size:
        size -= len(os.read(file, size))


def test_line_larger_than_the_room_is_written_if_none_waits(tmp_path: Path) -> None:
    metrics, line = Metrics(), b"x" * (MAX_WAITING_BYTES + 1)

    async def test() -> None:
        log = Audit(tmp_path / "audit", metrics)
        for _ in range(2):
            log.write(line)
        await log.close()

    asyncio.run(test())
    assert lost(metrics) == 1
    assert (tmp_path / "audit").read_bytes() == line + b"\n"
