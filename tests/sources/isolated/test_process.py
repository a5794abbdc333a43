"""The process that reads: used again, replaced, and without rights."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lxml", reason="needs the office extra")

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.isolated import process as reader_process
from server.sources.isolated import sandbox
from server.sources.isolated.frames import message_of, sentence_of
from server.sources.isolated.limits import MB, Limits
from server.sources.isolated.process import ReaderProcess
from server.sources.isolated.read import read_apart
from server.sources.problems import Problems
from server.sources.source import Options, Source
from server.store.records import Document
from tests.support import office_files as make

ROOT = Path(__file__).parents[3]
TWO_PAGES = make.pdf([["one"], ["two"]])


def source_of(name: str, *, keep_going: bool = False) -> Source:
    problems = Problems(keep_going, found.append) if keep_going else Problems()
    return Source(name, (Path(name),), Path(), 0, Options(), problems=problems)


found: list[BadSettings] = []


def read(started: list[ReaderProcess], data: bytes = TWO_PAGES) -> list[str]:
    reading = read_apart(data, "a.pdf", "pdf", source_of("a.pdf"), Limits(), started=started.append)
    return [document.text for document, _ in reading]


def test_one_process_reads_many_files_and_a_new_one_follows_one_that_ended() -> None:
    started: list[ReaderProcess] = []
    assert read(started) == read(started) == ["one", "two"]
    assert started[0] is started[1]
    started[1].kill()
    time.sleep(0.01)
    assert read(started) == ["one", "two"]
    assert started[-1] is not started[0]


def test_file_that_is_not_wanted_to_its_end_ends_its_process() -> None:
    started: list[ReaderProcess] = []
    reading = read_apart(
        TWO_PAGES, "a.pdf", "pdf", source_of("a.pdf"), Limits(), started=started.append
    )
    next(reading)
    reading.close()
    assert started[0] not in reader_process._idle
    assert started[0]._process.returncode is not None


def test_wrong_rows_are_listed_and_the_others_are_read() -> None:
    found.clear()
    rows: list[list[object]] = [["text", "n"], ["a", 1], [None, 2], ["c", 3]]
    data = make.xlsx({"S": rows})
    reading = read_apart(data, "a.xlsx", "xlsx", source_of("a.xlsx", keep_going=True), Limits())
    assert [document.text for document, _ in reading] == ["a", "c"]
    assert [error.english for error in found] == ['a.xlsx, sheet S, row 3: "text" is empty']
    with pytest.raises(BadSettings, match="row 3"):
        list(read_apart(data, "a.xlsx", "xlsx", source_of("a.xlsx"), Limits()))


def test_document_arrives_as_it_was_read() -> None:
    line = '{"text": "a", "n": 123456789012345678901234567890, "x": [1.5, null, {"y": "是"}]}'
    source = source_of("a.jsonl")
    ((document, n_read),) = read_apart(line.encode(), "a.jsonl", "jsonl", source, Limits())
    assert isinstance(document, Document) and n_read == len(line.encode())
    assert document.metadata["x"] == [1.5, None, {"y": "是"}]


def test_file_without_any_text_is_noted() -> None:
    source = source_of("a.docx")
    assert list(read_apart(make.docx(""), "a.docx", "docx", source, Limits())) == []
    assert [note.english for note in source.notes.messages()] == [
        "files without any text, left out: a.docx"
    ]


def test_sentences_arrive_in_both_languages() -> None:
    inner = Message("{first} and {number:,} more", first="a", number=2_000)
    message = Message("{name}: {why}", name=("x", "y"), why=inner)
    assert message_of(sentence_of(message)) == message


ATTEMPTS = """
import os, resource, socket, subprocess, signal, sys, threading
sys.path[:] = {paths!r}
from server.sources.isolated import sandbox
import ctypes
sandbox.enter(1 << 30)
def refused(call):
    try:
        call()
    except (PermissionError, MemoryError):
        return True
    except Exception as error:
        print(call, error)
    return False
here = {here!r}
for call in (
    lambda: socket.socket(),
    lambda: socket.socketpair(),
    lambda: os.fork(),
    lambda: subprocess.run(["true"]),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: open(here + "/new", "w"),
    lambda: open(here + "/old", "a"),
    lambda: os.remove(here + "/old"),
    lambda: os.rename(here + "/old", here + "/new"),
    lambda: os.mkdir(here + "/folder"),
    lambda: os.truncate(here + "/old", 0),
    lambda: os.chmod(here + "/old", 0o777),
    lambda: os.symlink("/", here + "/link"),
    lambda: open(here + "/old"),
    lambda: open("/proc/self/environ"),
    lambda: os.listdir(here),
    lambda: os.stat(here + "/old"),
    lambda: os.kill(os.getppid(), signal.SIGTERM),
    lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1),
    lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
    lambda: os.memfd_create("x"),
    lambda: bytearray(2 << 30),
):
    print(refused(call))
print(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), os.geteuid() != 0)
"""


def test_process_can_neither_connect_nor_open_a_file_nor_start_or_signal_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "old").write_text("x")
    tmp_path.chmod(0o777)
    code = ATTEMPTS.format(paths=[str(ROOT), *sys.path], here=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True"] * 25
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "x"


def test_process_gets_no_variable_that_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKWELL_API_KEY", "ink_secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    reader = ReaderProcess(Limits())
    try:
        assert b"secret" not in Path(f"/proc/{reader._process.pid}/environ").read_bytes()
    finally:
        reader.close()


def test_line_in_a_font_that_the_file_does_not_contain_is_read_without_fonts_of_the_machine() -> (
    None
):
    assert read([], make.pdf([["丙"], ["丁 a"]])) == ["丙", "丁 a"]


def test_filter_refuses_calls_of_another_architecture() -> None:
    program = sandbox.filter_program(*sandbox.MACHINES["x86_64"])
    assert len(program) % 8 == 0 and len(program) // 8 < 4096


def test_memory_of_a_file_is_bounded() -> None:
    """A line of 40 million letters is more than a process of 200 MB takes in all its forms."""
    limits = Limits(memory_bytes=300 * MB)
    data = b"<p>" + b"x" * (40 * MB)
    with pytest.raises(BadSettings, match="memory"):
        list(read_apart(data, "a.html", "html", source_of("a.html"), limits))
