"""Runs tests in one of two ways that the search for slips needs.

    python -m tests.support.line_record record LINES.json tests/store tests/collections
    python -m tests.support.line_record run CHOSEN.json

`record` writes which tests run which lines of the product, and how long each takes. `run` runs only the chosen
tests, in the order of the file, until one fails, and prints its name.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]
QUIET = ["-q", "-p", "no:cacheprovider", "--no-header"]


class Recorder:
    """A plugin that notes the lines and the time of each test that passes."""

    def __init__(self, watched: coverage.Coverage) -> None:
        self._watched = watched
        self._failed: set[str] = set()
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        # subtle: the whole protocol, so that a line of a fixture counts for the test that needs it first.
        self._watched.switch_context(item.nodeid)
        started = time.perf_counter()
        yield
        self._seconds[item.nodeid] = time.perf_counter() - started

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    @property
    def seconds(self) -> dict[str, float]:
        """The time of each test; without those that fail already."""
        return {name: took for name, took in self._seconds.items() if name not in self._failed}


class Chosen:
    """A plugin that runs the tests of a list, in its order, and prints the first that fails."""

    def __init__(self, names: list[str]) -> None:
        self._place = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place),
            key=lambda item: self._place[item.nodeid],
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print(f"\nnoticed by {report.nodeid}")


def record(out: Path, tests: list[str]) -> None:
    """Run the tests; write {"seconds": {test: s}, "lines": {file: {line: [place in seconds]}}}."""
    watched = coverage.Coverage(data_file=None, source=["server", "export"], config_file=False)
    recorder = Recorder(watched)
    watched.start()
    pytest.main([*QUIET, *tests], plugins=[recorder])
    watched.stop()
    seconds, data = recorder.seconds, watched.get_data()
    places = {name: place for place, name in enumerate(seconds)}
    lines: dict[str, dict[int, list[int]]] = {}
    for file in sorted(data.measured_files()):
        name = str(Path(file).resolve().relative_to(Path.cwd().resolve()))
        lines[name] = {
            line: [places[name] for name in found if name in places]
            for line, found in data.contexts_by_lineno(file).items()
        }
    out.write_text(json.dumps({"seconds": seconds, "lines": lines}), encoding="utf-8")


def run(chosen: Path) -> int:
    """Run the chosen tests until one fails; return pytest's exit code."""
    names = json.loads(chosen.read_text(encoding="utf-8"))
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    return int(pytest.main([*QUIET, "-x", "--tb=no", *files], plugins=[Chosen(names)]))


def main() -> int:
    way, file, *tests = sys.argv[1:]
    if way == "run":
        return run(Path(file))
    record(Path(file), tests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
