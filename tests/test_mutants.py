"""The search for slips that no test notices: what it changes, and that it tells a noticed one from others."""

from pathlib import Path

import pytest

from tests.support.mutants import Mutant, Trial, drawn, mutants_of, selected_tests

SOURCE = """
class Shelf:
    def take(self, n: int) -> bool:
        with self.lock:
            self.left -= n
        self.note("中文", n + 1)
        return not (n < 0 or n >= 10)
"""


def test_slips_of_each_kind_are_found_where_they_stand() -> None:
    changed = {mutant.apply(SOURCE) for mutant in mutants_of(Path("shelf.py"), SOURCE)}
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
    ]:
        assert SOURCE.replace(before, after) in changed, before


def test_same_seed_draws_the_same_slips() -> None:
    paths = ["server/store/filter_tree.py"]
    assert drawn(paths, 5, 1) == drawn(paths, 5, 1) != drawn(paths, 5, 2)
    assert len(drawn(paths, 5, 1)) == 5


@pytest.mark.slow
def test_noticed_slip_is_told_from_one_that_no_test_notices(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    path = Path("server/system/atomic_file.py")
    source = (tmp_path / path).read_text(encoding="utf-8")
    assert selected_tests(path)[0] == "tests/system/test_atomic_file.py"
    assert trial.survives(Mutant(path, 0, 0, "# a comment\n"))
    assert not trial.survives(Mutant(path, 0, 0, "raise SystemExit(1)\n"))
    assert (tmp_path / path).read_text(encoding="utf-8") == source
