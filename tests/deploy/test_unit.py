"""The systemd unit: read by systemd's own tools, and its filter of system calls applied to the server."""

import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.office_files import docx, paragraph
from tests.support.processes import ROOT, serving
from tests.support.toys import toy_texts

UNIT = ROOT / "deploy" / "inkwell.service"
TEXT = UNIT.read_text(encoding="utf-8")
NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
# Of linux/filter.h, linux/seccomp.h and linux/audit.h; offsets are those of struct seccomp_data.
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
NUMBER, ARCHITECTURE, THIRD_ARGUMENT = 0, 4, 32
X86_64 = 0xC000003E
WRITE, EXECUTE = 2, 4


def analyze(*arguments: str | Path) -> str:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        [tool, "--no-pager", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr + done.stdout
    return done.stdout


def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(TEXT.replace("/opt/inkwell/current/bin/python", sys.executable))
    analyze("verify", "--man=no", unit)


def test_systemd_finds_the_unit_safe() -> None:
    said = analyze("security", "--offline=true", UNIT)
    exposure = re.findall(r"exposure level for inkwell.service: ([\d.]+)", said)
    assert float(exposure[0]) <= 0.9, said


def test_the_unit_says_ready_lives_and_reloads() -> None:
    for line in ("Type=notify", "WatchdogSec=30", 'ExecReload=/bin/sh -c "kill -HUP $$MAINPID"'):
        assert f"\n{line}\n" in TEXT


# --- the filter -----------------------------------------------------------------------------------


def calls_of(group: str) -> set[str]:
    """Return the names of the system calls in a group and in the groups inside it."""
    lines = (line.strip() for line in analyze("syscall-filter", group).splitlines()[1:])
    names = {line for line in lines if line and not line.startswith("#")}
    inner = {name for name in names if name.startswith("@")}
    return (names - inner).union(*map(calls_of, inner))


def allowed() -> set[str]:
    """Return the system calls that the unit's SystemCallFilter lines allow."""
    kept: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", TEXT, re.M):
        named = set[str]().union(*map(calls_of, line.removeprefix("~").split()))
        kept = kept - named if line.startswith("~") else kept | named
    return kept


def program() -> bytes:
    """Return the filter as systemd gives it to the kernel: these calls, and no writable and executable memory."""
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", NUMBERS.read_text(encoding="utf-8")))
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    for name, bits in (("mmap", WRITE | EXECUTE), ("mprotect", EXECUTE)):
        steps += [
            (EQUAL, 0, 5, int(numbers[name])),
            (LOAD, 0, 0, THIRD_ARGUMENT),
            (AND, 0, 0, bits),
            (EQUAL, 0, 1, bits),
            (RETURN, 0, 0, REFUSE),
            (RETURN, 0, 0, ALLOW),
        ]
    for name in sorted(allowed() & numbers.keys()):
        steps += [(EQUAL, 0, 1, int(numbers[name])), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, REFUSE))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


@pytest.fixture
def filtered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the prefix of a command that runs under the filter."""
    tool = shutil.which("bwrap")
    if tool is None or not NUMBERS.is_file():
        pytest.skip("bubblewrap or the kernel's headers are not installed, or this is no x86-64")
    # Without a shell of its own a test can only hand a descriptor on by its number.
    with tempfile.NamedTemporaryFile() as file:
        file.write(program())
        file.flush()
        script = 'exec 9<"$0"; exec "$@"'
        bound = [tool, "--dev-bind", "/", "/", "--die-with-parent", "--seccomp", "9", "--"]
        yield ["sh", "-c", script, file.name, *bound]


def test_the_filter_refuses_what_it_should(filtered: list[str]) -> None:
    tried = """
import ctypes, mmap, os
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    print("memory")
except PermissionError:
    pass
for call in (lambda: os.sched_setaffinity(0, {0}), lambda: os.chroot("/"), lambda: os.setuid(0)):
    try:
        call()
        print("call")
    except PermissionError:
        pass
print("tried")
"""
    done = subprocess.run(
        [*filtered, sys.executable, "-c", tried], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "tried\n", done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_server_does_all_its_work_under_the_filter(
    workers: str, filtered: list[str], shipped_artifact: Path, tmp_path: Path
) -> None:
    """Use the shipped model: its kernels, FAISS, SQLite and huge pages may need more calls."""
    flags = ("--workers", workers)
    with (
        serving(shipped_artifact, tmp_path, *flags, prefix=filtered) as server,
        server.client() as client,
    ):
        texts = toy_texts(300)
        assert client.post("/embed", json={"texts": texts}).status_code == 200
        documents = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
        assert client.post("/documents", json={"documents": documents}).status_code == 200
        # In a process of its own, which limits itself.
        file, kind = docx(paragraph("x")), {"content-type": "application/octet-stream"}
        sent = client.post("/files?name=a.docx", content=file, headers=kind)
        assert sent.status_code == 200, sent.text
        found = client.post("/search", json={"query": texts[7], "top_k": 1, "mode": "hybrid"})
        assert found.json()["hits"][0]["text"] == texts[7]
        log = server.log.read_text()
    assert "ERROR" not in log and "not permitted" not in log, log
