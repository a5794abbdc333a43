"""Changes one line of the product at a time and reports the changes that no test notices.

    python -m tests.support.mutants --count 100 --seed 1 server/store server/inference/lanes.py

`slips` says what is changed. Of all changes `--count` are drawn by `--seed`. Each is written into a copy of the
project, where tests run until one fails: first those of the module's own file, then others that run the changed
line; of both the quickest first. What survives is printed: a test is missing there, or the change is no change
(equivalent).

Which test runs which line is recorded before, which takes minutes; `--lines FILE` keeps it for the next time.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.slips import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
# Where an error loses data, mixes up answers or stops the server.
RISKY = (
    "server/store",
    "server/collections",
    "server/inference/tokenizer.py",
    "server/inference/tokenization/fast_wordpiece.py",
    "server/inference/lanes.py",
    "server/inference/batching.py",
    "server/system/atomic_file.py",
    "server/auth/keys.py",
    "export/artifact.py",
)
COPIED = ("server", "export", "benchmarks", "deploy", "tests", "models", "pyproject.toml", "docs")
# The tests of a room, and those of another that say much about its modules.
TESTS = {
    "server/store": ("tests/store", "tests/collections"),
    "server/collections": ("tests/collections", "tests/store", "tests/api/test_collections.py"),
    "server/inference": ("tests/inference", "tests/collections"),
    "server/system": ("tests/system", "tests/store/test_maintenance.py"),
    "server/auth": ("tests/auth",),
    "export": (
        "tests/export/test_artifact.py",
        "tests/export/test_artifact_killed.py",
        "tests/export/test_up_to_date.py",
    ),
}
# Tests that run a changed line are run up to this time in all; those of the module without a limit.
MOST_SECONDS = 20.0
# A change may make a loop endless. So many times as long as its tests took, and this beside.
PATIENCE, STARTING_S = 5, 60.0
# In the environment of every process that a trial starts.
MARK = "MUTANT_TRIAL"


@dataclass(frozen=True, slots=True)
class LineRecord:
    """Which tests run which lines, and how long each takes; tests that fail anyway are not among them.

    lines: by file and line, the places of tests in `seconds`.
    """

    seconds: Mapping[str, float]
    lines: Mapping[str, Mapping[str, Sequence[int]]]

    @classmethod
    def read(cls, path: Path) -> "LineRecord":
        """Return what `line_record` has written."""
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(found["seconds"], found["lines"])

    def chosen(self, mutant: Mutant, source: str) -> list[list[str]]:
        """Return the tests for a change: those of the module's own files, then others that run its line."""
        of_file = self.lines.get(str(mutant.path), {})
        places = {place for line in mutant.lines(source) for place in of_file.get(str(line), ())}
        if not places:
            # Run when the module is imported, or by another process.
            places = {place for places in of_file.values() for place in places}
        names = list(self.seconds)
        running = {names[place] for place in places}
        near = near_tests(mutant.path)
        own = [test for test in self.seconds if test.partition("::")[0] in near]
        # Those that do not run the line may: in a process that they start.
        own.sort(key=lambda test: (test not in running, self.seconds[test]))
        others, left = [], MOST_SECONDS
        for test in sorted(running.difference(own), key=self.seconds.__getitem__):
            left -= self.seconds[test]
            if left < 0:
                break
            others.append(test)
        # Apart: few changes come to the others, and it takes seconds to read their files.
        return [tests for tests in (own, others) if tests]

    def patience_s(self, tests: Sequence[str]) -> float:
        """Return how long these tests may take before their change counts as noticed."""
        return STARTING_S + PATIENCE * sum(self.seconds[test] for test in tests)


def near_tests(path: Path) -> list[str]:
    """Return the test files that mirror a module."""
    # "tests/store" mirrors "server/store", "tests/export" "export".
    parts = path.parts[path.parts[0] == "server" : -1]
    folder = ROOT / "tests" / Path(*parts)
    return [
        str(each.relative_to(ROOT))
        for mirrored in (folder, *folder.parents)
        if mirrored.is_relative_to(ROOT / "tests")
        for each in sorted(mirrored.glob(f"test_{path.stem}*.py"))
    ]


def room_tests(paths: Sequence[str]) -> list[str]:
    """Return the test files and folders that say something about these files and folders."""
    found: dict[str, None] = {}
    for path in paths:
        for room, tests in TESTS.items():
            if f"{path}/".startswith(f"{room}/") or f"{room}/".startswith(f"{path}/"):
                found.update(dict.fromkeys(tests))
    return list(found)


def drawn(paths: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Return `count` changes of all in these files and folders, drawn by the seed."""
    found: list[Mutant] = []
    for given in paths:
        place = ROOT / given
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            path = file.relative_to(ROOT)
            found += mutants_of(path, file.read_text(encoding="utf-8"))
    return random.Random(seed).sample(found, min(count, len(found)))


class Trial:
    """A copy of the project in which changes are tried, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copy(source, target)

    def record(self, out: Path, tests: Sequence[str]) -> None:
        """Write which of these tests run which lines."""
        self._run(["record", str(out), *tests], None)

    def notice(self, mutant: Mutant, lines: LineRecord) -> str | None:
        """Return what noticed the change: a test's name, or "time"; None if it survives."""
        file = self._folder / mutant.path
        source = file.read_text(encoding="utf-8")
        file.write_text(mutant.apply(source), encoding="utf-8")
        try:
            noticed = (
                self._failing(tests, lines.patience_s(tests))
                for tests in lines.chosen(mutant, source)
            )
            return next(filter(None, noticed), None)
        except subprocess.TimeoutExpired:
            return "time"
        finally:
            file.write_text(source, encoding="utf-8")

    def _failing(self, tests: Sequence[str], timeout_s: float) -> str | None:
        """Return the first of these tests that fails; None if all pass."""
        order = self._folder / "chosen.json"
        order.write_text(json.dumps(tests), encoding="utf-8")
        code, said = self._run(["run", str(order)], timeout_s)
        if code == 0:
            return None
        _, _, name = said.partition("noticed by ")
        return name.splitlines()[0] if name else f"exit {code}"

    def _run(self, arguments: Sequence[str], timeout_s: float | None) -> tuple[int, str]:
        mark = f"{os.getpid()}-{self._folder}"
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            # In a group of its own: a change may leave servers behind.
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.line_record", *arguments],
                cwd=self._folder,
                stdout=said,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", MARK: mark},
                start_new_session=True,
            )
            try:
                code = process.wait(timeout_s)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()
                end_marked(mark)
            said.seek(0)
            return code, said.read()


def end_marked(mark: str) -> None:
    """End every process whose mark in the environment begins so, also one in a group of its own."""
    sought = f"\0{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        # Others' processes cannot be read, and any may end meanwhile.
        with suppress(OSError):
            if sought in b"\0" + (folder / "environ").read_bytes():
                os.kill(int(folder.name), 9)


def _stop(*_: object) -> None:
    """End the trials under way, and then this process, which deletes their copies."""
    end_marked(f"{os.getpid()}-")
    sys.exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("paths", nargs="*", default=RISKY)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--lines", type=Path, help="where to keep which tests run which lines")
    given = parser.parse_args()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    chosen = drawn(given.paths, given.count, given.seed)
    local = threading.local()
    started, survivors, by_file = time.monotonic(), 0, dict[Path, list[int]]()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        lines = _lines(given.lines or Path(folder) / "lines.json", given.paths, Path(folder))

        def notice(mutant: Mutant) -> str | None:
            if not hasattr(local, "trial"):
                local.trial = Trial(Path(tempfile.mkdtemp(dir=folder)))
            trial: Trial = local.trial
            return trial.notice(mutant, lines)

        for mutant, noticed in zip(chosen, pool.map(notice, chosen), strict=True):
            survivors += noticed is None
            counted = by_file.setdefault(mutant.path, [0, 0])
            counted[0] += 1
            counted[1] += noticed is not None
            print(f"{noticed or 'SURVIVED'}: {_shown(mutant)}", flush=True)
    for path, (all_of_it, found) in sorted(by_file.items()):
        print(f"{path}: {all_of_it} changes, {found} noticed")
    seconds = time.monotonic() - started
    print(
        f"{len(chosen)} changes, {len(chosen) - survivors} noticed, {survivors} not, {seconds:.0f} s"
    )
    return 0


def _lines(path: Path, paths: Sequence[str], folder: Path) -> LineRecord:
    """Return which tests run which lines, from the file unless something has changed since."""
    sources = (
        file for name in ("server", "export", "tests") for file in (ROOT / name).rglob("*.py")
    )
    newest = max(file.stat().st_mtime for file in sources)
    if not path.exists() or path.stat().st_mtime < newest:
        Trial(Path(tempfile.mkdtemp(dir=folder))).record(path.resolve(), room_tests(paths))
    return LineRecord.read(path)


def _shown(mutant: Mutant) -> str:
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    line = source.count("\n", 0, mutant.begin)
    before = source.splitlines()[line].strip()
    after = mutant.apply(source).splitlines()[line].strip()
    return f"{mutant.path}:{line + 1}\n  - {before}\n  + {after}"


if __name__ == "__main__":
    sys.exit(main())
