"""How fast are office files read and indexed, and how much memory does it take?

    python -m benchmarks.office [--only pdf,xlsx,docx] [--read-only]

A PDF of 300 pages, a workbook of 50,000 rows and 1,000 Word files, made here with the lengths of such
files. Each is read by the process that reads files (its rate and peak memory), and then indexed into an
empty folder by `python -m server index` (the seconds of the whole command, and the peak memory of its
largest process). One JSON line for each.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import machine
from benchmarks.arguments import names_among, parser
from server.sources.isolated.process import close_all
from server.sources.readers import find_sources, read_documents
from server.sources.source import Options
from server.system.output import until_reader_leaves
from tests.support import office_files as make

PAGES, LINES = 300, 30
ROWS = 50_000
FILES, SECTIONS, PARAGRAPHS = 1_000, 5, 4


def main() -> None:
    arguments = _arguments()
    for case in arguments.only:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            unit, number = CASES[case](folder)
            line = {"case": f"office-{case}", unit: number, **_read(folder, number)}
            if not arguments.read_only:
                line |= _indexed(arguments.model, folder, Path(scratch), number)
            machine.show(line, arguments)


def _pdf(folder: Path) -> tuple[str, int]:
    """Write a PDF; return what is counted, and how many there are."""
    text = _Texts(1)
    pages = [[text(38) for _ in range(LINES)] for _ in range(PAGES)]
    (folder / "report.pdf").write_bytes(make.pdf(pages, "年度报告"))
    return "pages", PAGES


def _xlsx(folder: Path) -> tuple[str, int]:
    text = _Texts(2)
    rows: list[list[object]] = [["编号", "内容", "年份", "日期", "有效"]]
    rows += [
        [n, text(60), 2000 + n % 25, f"date:{40_000 + n % 5_000}", n % 2 == 0] for n in range(ROWS)
    ]
    (folder / "faq.xlsx").write_bytes(make.xlsx({"问答": rows}))
    return "rows", ROWS


def _docx(folder: Path) -> tuple[str, int]:
    text = _Texts(3)
    for n in range(FILES):
        body = "".join(
            make.paragraph(text(12), "Heading1")
            + "".join(make.paragraph(text(80)) for _ in range(PARAGRAPHS))
            for _ in range(SECTIONS)
        )
        (folder / f"{n:04}.docx").write_bytes(make.docx(body, title=text(10)))
    return "files", FILES


CASES: Mapping[str, Callable[[Path], tuple[str, int]]] = {
    "pdf": _pdf,
    "xlsx": _xlsx,
    "docx": _docx,
}


class _Texts:
    """Random Chinese characters, the same in each run."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, length: int) -> str:
        return "".join(chr(self._random.randint(0x4E00, 0x77FF)) for _ in range(length))


def _read(folder: Path, number: int) -> dict[str, object]:
    """Read the files in a new process that reads; return rates and its peak memory."""
    close_all()
    child = os.fork()
    if child == 0:
        # subtle: the peak of processes that were waited for only grows, so each case has its own.
        _print_reading(folder, number)
        os._exit(0)
    os.waitpid(child, 0)
    found = (folder.parent / "reading").read_text().split()
    return {
        "documents": int(found[0]),
        "read_s": float(found[1]),
        "read_per_s": float(found[2]),
        "reader_peak_mb": int(found[3]),
    }


def _print_reading(folder: Path, number: int) -> None:
    began = time.perf_counter()
    documents = sum(1 for _ in read_documents(*find_sources([str(folder)], Options())))
    seconds = time.perf_counter() - began
    close_all()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    line = f"{documents} {seconds:.2f} {number / seconds:.1f} {peak}"
    (folder.parent / "reading").write_text(line)


def _indexed(model: Path, folder: Path, scratch: Path, number: int) -> dict[str, object]:
    """Index the files; return seconds, rate and the peak memory of the command's largest process."""
    command = [sys.executable, "-m", "server", "index", str(folder), "--model", str(model)]
    command += ["--data", str(scratch / "data"), "--log-level", "warning"]
    began = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - began
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        sys.exit(f"{command} failed")
    return {
        "index_s": round(seconds, 1),
        "index_per_s": round(number / seconds, 1),
        "index_peak_mb": used.ru_maxrss // 1024,
    }


def _arguments() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument(
        "--only", type=names_among(CASES), default=list(CASES), help=f"of {', '.join(CASES)}"
    )
    found.add_argument("--read-only", action="store_true", help="do not index")
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
