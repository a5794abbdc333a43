"""The search for slips that no test notices: what it changes, and that it tells a noticed one from others."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.fakes import PATIENCE_S
from tests.support.mutants import (
    MARK,
    LineRecord,
    Trial,
    drawn,
    end_marked,
    near_tests,
    room_tests,
)
from tests.support.slips import Mutant, mutants_of

SOURCE = """
class Stock:
    def take(self, n: int) -> bool:
        with self.lock:
            self.left -= n
        self.note("中文", n + 1)
        if n > 99:
            log.warning("%d is more than %d", n, 99)
            raise ValueError(f"{n + 7} of {len(self.left) - 1}")
        return not (n < 0 or n >= 10)

    def empty(self) -> bool:
        return False

    def name(self) -> str | None:
        return None
"""


def test_slips_of_each_kind_are_found_where_they_stand() -> None:
    changed = {mutant.apply(SOURCE) for mutant in mutants_of(Path("stock.py"), SOURCE)}
    for before, after in [
        ("with self.lock:", "if True:"),
        ("self.left -= n", "pass"),
        ('self.note("中文", n + 1)', "pass"),
        ("n + 1", "n  -  1"),
        ("n + 1", "n + 2"),
        ("n < 0", "n  <=  0"),
        ("n >= 10", "n  >  10"),
        ("n < 0 or n >= 10", "n < 0  and  n >= 10"),
        ("return not (n < 0 or n >= 10)", "return None"),
        ('raise ValueError(f"{n + 7} of {len(self.left) - 1}")', "pass"),
        ("return False", "return True"),
    ]:
        assert SOURCE.replace(before, after) in changed, before


def test_what_is_only_said_is_not_changed() -> None:
    changed = [mutant.apply(SOURCE) for mutant in mutants_of(Path("stock.py"), SOURCE)]
    lines = [set(each.splitlines()) ^ set(SOURCE.splitlines()) for each in changed]
    assert not any("log.warning" in line for some in lines for line in some)
    assert not any("raise ValueError" in line and len(some) > 2 for some in lines for line in some)
    assert SOURCE.replace("return False", "return None") not in changed
    assert SOURCE not in changed


def test_tests_of_a_change_are_those_of_its_module_and_others_that_run_its_line() -> None:
    path = Path("server/store/upkeep/restoring.py")
    source = SOURCE.lstrip()
    begin = source.index("-=")
    mutant = Mutant(path, begin, begin + 2, "+=")
    assert mutant.lines(source) == range(4, 5)
    other, slow, far = "tests/a.py::other", "tests/a.py::slow", "tests/a.py::far"
    own = "tests/store/test_restoring.py::own"
    seconds = {slow: 2.0, own: 9.0, other: 1.0, far: 0.1}
    lines = LineRecord(seconds, {str(path): {"4": [0, 2], "5": [3]}})
    assert lines.chosen(mutant, source) == [[own], [other, slow]]
    head = Mutant(path, 0, 0, "")
    assert lines.chosen(head, source) == [[own], [far, other, slow]]


def test_head_of_a_block_is_a_statement_of_its_own() -> None:
    begin = SOURCE.index("n > 99")
    line = SOURCE.count("\n", 0, begin) + 1
    assert Mutant(Path("stock.py"), begin, begin + 6, "True").lines(SOURCE) == range(line, line + 1)


def test_tests_stand_where_their_module_is_mirrored() -> None:
    assert near_tests(Path("export/artifact.py"))[0] == "tests/export/test_artifact.py"
    assert near_tests(Path("server/store/upkeep/restoring.py")) == ["tests/store/test_restoring.py"]
    assert "tests/inference" in room_tests(["server/inference/lanes.py"])
    assert {"tests/store", "tests/auth"} <= set(room_tests(["server"]))


def test_no_process_of_a_trial_is_left() -> None:
    asleep = ["sleep", "60"]
    with (
        subprocess.Popen(asleep, env={MARK: "1-a"}, start_new_session=True) as marked,
        subprocess.Popen(asleep, env={MARK: "11-a"}) as other,
    ):
        end_marked("1-")
        assert marked.wait(PATIENCE_S) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_same_seed_draws_the_same_slips() -> None:
    # A short file: it is parsed once for each slip that is possible in it.
    paths = ["server/store/fusion.py"]
    slips = drawn(paths, 5, 1)
    assert slips == drawn(paths, 5, 1) != drawn(paths, 5, 2)
    assert len(slips) == 5


@pytest.mark.slow
def test_noticed_slip_is_told_from_one_that_no_test_notices(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "copy")
    path = Path("server/system/atomic_file.py")
    source = (tmp_path / "copy" / path).read_text(encoding="utf-8")
    trial.record(tmp_path / "lines.json", near_tests(path))
    lines = LineRecord.read(tmp_path / "lines.json")
    assert trial.notice(Mutant(path, 0, 0, "# a comment\n"), lines) is None
    assert trial.notice(Mutant(path, 0, 0, "raise SystemExit(1)\n"), lines) is not None
    begin = source.index("        file.flush()")
    flush = Mutant(path, begin, begin + len("        file.flush()"), "        pass")
    assert "all_of_the_content" in (trial.notice(flush, lines) or "")
    assert (tmp_path / "copy" / path).read_text(encoding="utf-8") == source
