"""Following a folder while it changes: with scripted reports and time, and with the real watchfiles."""

import asyncio
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from server.cli.indexing.changes import MOST_PATHS, MOST_WAIT_S, SETTLE_S, Changes
from server.cli.indexing.watch import READ_ALL_S, Watch
from server.cli.target import UNSAID, Page
from server.errors import StartupError
from server.messages.terminal import Terminal
from server.sources.following import following
from server.sources.notes import Notes
from server.sources.problems import Problems
from server.sources.readers import find_sources
from server.sources.source import Options, Source
from server.store.filters.match import matches
from server.store.filters.tree import parse
from server.store.records import Document
from tests.support.commands import Commands
from tests.support.fakes import PATIENCE_S
from tests.support.processes import command, environment, serving

# --- when changes are read ----------------------------------------------------------------------------


def test_changes_wait_until_they_are_quiet(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("甲")
    changes = Changes(tmp_path)
    assert not changes.due(100)
    changes.note([f"{tmp_path}/a.md"], 1)
    assert not changes.due(1 + SETTLE_S / 2)
    changes.note([f"{tmp_path}/in/b.md"], 2)
    assert not changes.due(2 + SETTLE_S / 2)
    assert changes.due(2 + SETTLE_S)
    assert [name for name in ("a.md", "b.md", "in/b.md", "in/c.md") if changes.touches(name)] == [
        "a.md",
        "in/b.md",
    ]
    changes.done()
    assert not changes.due(100) and not changes.touches("a.md")


def test_a_file_that_is_written_all_the_time_is_read_in_the_end(tmp_path: Path) -> None:
    changes = Changes(tmp_path)
    for tick in range(int(MOST_WAIT_S) * 2):
        assert not changes.due(tick / 2)
        changes.note([f"{tmp_path}/a.md"], tick / 2)
    assert changes.due(MOST_WAIT_S)


def test_a_file_that_is_blank_for_a_moment_is_not_read_yet(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("")
    changes = Changes(tmp_path)
    changes.note([f"{tmp_path}/a.md"], 1)
    assert not changes.due(1 + SETTLE_S)
    (tmp_path / "a.md").write_text("甲")
    assert changes.due(1 + SETTLE_S)


@pytest.mark.parametrize(
    "name", [".a.md.swp", "a.md~", ".git/index", "x/.hidden/a.md", "~$a.docx", "a.tmp"]
)
def test_files_that_editors_leave_are_no_changes(tmp_path: Path, name: str) -> None:
    changes = Changes(tmp_path)
    changes.note([f"{tmp_path}/{name}", f"{tmp_path}2/a.md"], 1)
    assert not changes.due(100)


def test_links_and_too_many_changes_are_read_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "..data").symlink_to("x")
    changes = Changes(tmp_path)
    changes.note([f"{tmp_path}/..data"], 1)
    assert changes.whole and changes.touches("any.md")
    changes = Changes(tmp_path)
    changes.note([f"{tmp_path}/{n}.md" for n in range(MOST_PATHS)], 1)
    assert not changes.whole and len(changes.paths) == MOST_PATHS
    changes.note([f"{tmp_path}/one-more.md"], 1)
    assert changes.whole and not changes.paths


# --- what is stored -----------------------------------------------------------------------------------


class Memory:
    """A collection in memory, which can be out of reach."""

    name = "main"

    def __init__(self) -> None:
        self.held: dict[str, Document] = {}
        self.prepared = 0
        self.gone = False
        self.written: list[str] = []

    async def prepare(self, chunks: object) -> None:
        self._check()
        self.prepared += 1

    async def add(self, documents: Sequence[Document]) -> int:
        self._check()
        fresh = {each.id: each for each in documents if self.held.get(each.id) != each}
        self.held |= fresh
        self.written += fresh
        return len(fresh)

    async def delete(self, ids: Sequence[str]) -> int:
        self._check()
        return sum(self.held.pop(id, None) is not None for id in ids)

    async def page(self, after: str, limit: int, filter: Mapping[str, object] | None) -> Page:
        self._check()
        tree = parse(filter or {})
        return Page([each for each in self.held.values() if matches(tree, each.metadata)], "")

    def _check(self) -> None:
        if self.gone:
            raise StartupError("{url} cannot be reached", url="http://127.0.0.1:1")


class Scene:
    """A folder that is followed, and the steps that happen to it, one a tick of half a second."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.target, self.seconds = folder, Memory(), 0.0
        self.names: list[str] = []
        self.err, self.out = io.StringIO(), io.StringIO()
        self.terminal = Terminal("en", self.out, self.err)

    def find(self, name: str, problems: Problems) -> Source:
        found = find_sources([name], Options(), Notes(), problems)
        return following(found, None if self.names else "main")[0]

    def play(self, *steps: Callable[[], Iterable[str]]) -> None:
        """Follow the folder while each step happens; a step returns the paths that are reported."""
        rest = list(steps)

        def reports(folders: Sequence[Path], run: object) -> Generator[Iterable[str], None, None]:
            while rest:
                self.seconds += 0.5
                yield [f"{self.folder}/{name}" for name in rest.pop(0)()]

        with asyncio.Runner() as runner:
            first = [self.find(name, Problems()) for name in self.names or [str(self.folder)]]
            watch = Watch(
                self.target,  # type: ignore[arg-type]
                runner.run,
                UNSAID,
                self.terminal,
                self.find,
                first,
                reports=reports,
                clock=lambda: self.seconds,
            )
            watch.forever()

    def write(self, name: str, text: str) -> Callable[[], list[str]]:
        """Return a step that writes a file."""

        def step() -> list[str]:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text, encoding="utf-8")
            return [name]

        return step

    def remove(self, name: str) -> Callable[[], list[str]]:
        def step() -> list[str]:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return [name]

        return step

    def report(self, *names: str) -> Callable[[], list[str]]:
        return lambda: list(names)


QUIET: list[Callable[[], list[str]]] = [list] * 4


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "keep.md").write_text("留", encoding="utf-8")
    return Scene(folder)


def test_what_changes_is_stored_and_what_vanishes_is_removed(scene: Scene) -> None:
    scene.play(
        *QUIET,
        scene.write("a.md", "甲"),
        scene.write("in/b.csv", "id,text\n1,乙\n2,丙\n"),
        *QUIET,
        scene.write("in/b.csv", "id,text\n2,丙\n3,丁\n"),
        scene.write("a.md.tmp", "x"),
        *QUIET,
        scene.remove("a.md"),
        *QUIET,
    )
    assert set(scene.target.held) == {"keep.md", "in/b.csv#2", "in/b.csv#3"}
    assert scene.target.written == ["keep.md", "a.md", "in/b.csv#1", "in/b.csv#2", "in/b.csv#3"]
    assert scene.out.getvalue().splitlines() == [
        f"{scene.folder}: added 1, removed 0",
        f"{scene.folder}/a.md: added 1, removed 0",
        f"{scene.folder}/in/b.csv: added 2, removed 0",
        f"{scene.folder}/in/b.csv: added 1, removed 1",
        f"{scene.folder}: added 0, removed 1",
    ]


@pytest.mark.parametrize("patterns", [["*.txt"], ["a.tx*", "b.tx*"]])
def test_a_line_of_two_files_stays_until_neither_has_it(scene: Scene, patterns: list[str]) -> None:
    scene.names = [f"{scene.folder}/{pattern}" for pattern in patterns]
    for name in ("a.txt", "b.txt"):
        scene.write(name, f"shared\nof {name}\n")()
    texts: list[set[str]] = []

    def look() -> list[str]:
        texts.append({each.text for each in scene.target.held.values()})
        return []

    first = scene.write("b.txt", "of b.txt\n")
    last = scene.write("a.txt", "of a.txt\n")
    scene.play(*QUIET, first, *QUIET, look, lambda: ["a.txt"], *QUIET, last, *QUIET, look)
    both = {"of a.txt", "of b.txt"}
    assert texts == [both | {"shared"}, both]


def test_a_folder_that_moves_in_or_out_is_read_or_removed(scene: Scene, tmp_path: Path) -> None:
    def moved(start: Path, end: Path) -> Callable[[], list[str]]:
        def step() -> list[str]:
            start.rename(end)
            return ["in"]

        return step

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.md").write_text("乙", encoding="utf-8")
    inside = scene.folder / "in"
    scene.play(moved(tmp_path / "elsewhere", inside), *QUIET)
    assert set(scene.target.held) == {"keep.md", "in/b.md"}
    other = Document("in/b.md2", "别处")
    scene.target.held[other.id] = other
    scene.play(moved(inside, tmp_path / "elsewhere"), *QUIET)
    assert set(scene.target.held) == {"keep.md", other.id}


def test_a_file_that_is_wrong_keeps_its_documents_until_it_is_right(scene: Scene) -> None:
    scene.play(
        scene.write("a.jsonl", '{"id": 1, "text": "甲"}\n{"id": 2, "text": "乙"}\n'),
        *QUIET,
        scene.write("a.jsonl", '{"id": 2, "text": "新"}\n{"id": 3, "te'),
        *QUIET,
    )
    assert set(scene.target.held) == {"keep.md", "a.jsonl#1", "a.jsonl#2"}
    assert (
        "not stored: " in scene.err.getvalue()
        and "a.jsonl, line 2: not JSON" in scene.err.getvalue()
    )
    scene.play(scene.write("a.jsonl", '{"id": 2, "text": "新"}\n'), *QUIET)
    texts = {id: each.text for id, each in scene.target.held.items()}
    assert texts == {"keep.md": "留", "a.jsonl#2": "新"}


def test_a_server_that_is_away_gets_the_changes_later(scene: Scene) -> None:
    def away(gone: bool) -> Callable[[], list[str]]:
        def step() -> list[str]:
            scene.target.gone = gone
            return []

        return step

    scene.play(
        away(True),
        scene.write("a.md", "甲"),
        *QUIET * 10,
        scene.write("b.md", "乙"),
        away(False),
        *QUIET * 16,
    )
    assert set(scene.target.held) == {"keep.md", "a.md", "b.md"}
    said = scene.err.getvalue()
    assert (
        said.count("not stored yet, but tried again at least every 30 s: http://127.0.0.1:1") == 1
    )
    assert said.count("is stored again") == 1 and scene.target.prepared >= 1


def test_a_folder_that_is_gone_removes_nothing_until_it_is_back(
    scene: Scene, tmp_path: Path
) -> None:
    def moved(start: Path, end: Path) -> Callable[[], list[str]]:
        def step() -> list[str]:
            start.rename(end)
            return []

        return step

    scene.play(scene.report("keep.md"), *QUIET)
    away = tmp_path / "away"
    seconds = scene.seconds

    def back() -> list[str]:
        if scene.seconds > seconds + 5 and away.exists():
            (away / "new.md").write_text("新", encoding="utf-8")
            away.rename(scene.folder)
        return []

    step = moved(scene.folder, away)
    scene.play(step, *[back] * 160)
    assert set(scene.target.held) == {"keep.md", "new.md"}
    assert "cannot be read: No such file" in scene.err.getvalue()
    assert "is stored again" in scene.err.getvalue()


def test_everything_is_read_now_and_then(scene: Scene) -> None:
    def late() -> list[str]:
        """An hour passes, in which a change was not reported."""
        (scene.folder / "missed.md").write_text("漏", encoding="utf-8")
        scene.seconds += READ_ALL_S
        return []

    scene.play(*QUIET, late, *QUIET)
    assert set(scene.target.held) == {"keep.md", "missed.md"}


# --- the command --------------------------------------------------------------------------------------


def test_watching_needs_a_folder(run: Commands, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("甲")
    assert "give its folder, with --include a.txt" in run.refused("index", path, "--watch")
    assert "give one of them" in run.refused("index", tmp_path, "--watch", "--dry-run")


def test_the_command_follows_a_folder_until_it_is_interrupted(
    toy_artifact: Path, tmp_path: Path
) -> None:
    """The real thing: a server that restarts, an editor that renames, and Ctrl-C."""
    pytest.importorskip("watchfiles")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("甲", encoding="utf-8")
    with serving(toy_artifact, tmp_path) as server:
        watching = subprocess.Popen(
            command("index", folder, "--watch", "--url", server.url),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            lines = iter(watching.stdout.readline, b"")  # type: ignore[union-attr]
            assert b"added 1" in next(lines)
            assert b"removed 0" in next(lines)
            (folder / ".b.md.swp").write_text("x")
            (folder / "b.md~").write_text("x")
            (folder / "new").write_text("乙", encoding="utf-8")
            os.rename(folder / "new", folder / "b.md")
            # The name of the folder where the file was there before the watch began.
            assert next(lines).endswith(b": added 1, removed 0\n")
            (folder / "a.md").unlink()
            assert b"notes: added 0, removed 1" in next(lines)
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=PATIENCE_S)
        finally:
            watching.kill()
    assert watching.returncode == 130, err.decode()
    assert b"stopped" in err and b"Traceback" not in err and b"INFO" not in err
