"""Result lines become tables that lose nothing."""

from pathlib import Path
from typing import Any

from benchmarks.report.lines import is_draft, read, results
from benchmarks.report.tables import document

STORED = Path(__file__).parents[3] / "benchmarks" / "results"

MACHINE = {"cpu": "x", "cores": 2, "commit": "abc", "load_average": 1.0}


def test_each_case_has_a_table_with_every_number() -> None:
    lines = [
        {"case": "search", "clients": 1, "p50_ms": 0.123456, "machine": MACHINE},
        {"case": "search", "clients": 16, "index": {"kind": "exact"}, "machine": MACHINE},
        {"case": "memory", "idle_mb": 12345, "machine": MACHINE},
    ]
    assert list(document(lines, {})) == [
        "# Results\n",
        "cpu x, cores 2\n",
        "## search\n",
        "| clients | p50 ms | index kind |",
        "|---|---|---|",
        "| 1 | 0.1235 |  |",
        "| 16 |  | exact |",
        "",
        "## memory\n",
        "| idle mb |",
        "|---|",
        "| 12,345 |",
        "",
    ]


def test_a_mean_told_apart_stands_in_columns_beside_the_percentiles() -> None:
    line = {
        "case": "latency",
        "load": 0.9,
        "p99.9_ms": 20.06,
        "mean_ms": {"total": 4.5, "late": 0.1},
    }
    assert list(document([{**line, "machine": MACHINE}], {}))[3:5] == [
        "| load | p99.9 ms | mean ms total | mean ms late |",
        "|---|---|---|---|",
    ]


def test_a_yes_is_shown_as_such() -> None:
    line = {"case": "priority", "p99_ratio": 2.11, "met": True, "machine": MACHINE}
    assert "| 2.11 | yes |" in document([line], {})
    assert "| 2.11 | no |" in document([{**line, "met": False}], {})


def test_pictures_stand_before_the_tables() -> None:
    line = {"case": "memory", "idle_mb": 1, "machine": MACHINE}
    found = list(document([line], {"How fast": "x-fast.svg"}))
    assert found.index("![How fast](x-fast.svg)\n") < found.index("## memory\n")


def test_lines_of_several_commits_say_which_each_is_of() -> None:
    line = {"case": "loop", "clients": 1, "per_s": 1, "machine": MACHINE}
    other = {"case": "loop", "clients": 2, "per_s": 2, "machine": {**MACHINE, "commit": "def"}}
    alone = {"case": "start-up", "ready_s": 1, "machine": MACHINE}
    found = list(document([line, other, alone], {}))
    assert "| commit | clients | per s |" in found and "| def | 2 | 2 |" in found
    assert "| ready s |" in found


def test_lines_of_several_machines_say_which_each_is_of() -> None:
    line = {"case": "memory", "idle_mb": 1, "machine": MACHINE}
    other = {"case": "memory", "idle_mb": 2, "machine": {**MACHINE, "cpu": "y"}}
    found = list(document([line, other], {}))
    assert found[1:3] == ["1. cpu x, cores 2\n", "2. cpu y, cores 2\n"]
    assert "| 1 | 1 |" in found and "| 2 | 2 |" in found


def served(per_s: float, clients: int = 1, commit: str = "abc", **more: object) -> dict[str, Any]:
    facts = {**MACHINE, "commit": commit}
    return {"case": "loop", "clients": clients, "per_s": per_s, **more, "machine": facts}


def test_the_latest_of_several_runs_is_shown_with_their_spread() -> None:
    lines = [served(900.0), served(1100.5, commit="def"), served(5.0, clients=2), served(950.0)]
    found = list(document(lines, {}))
    assert "| commit | runs | clients | per s |" not in found
    assert "| runs | clients | per s |" in found
    assert "| 3 | 1 | 950 (900 to 1,100) |" in found and "| 1 | 2 | 5 |" in found
    assert any("2 of 4 lines are superseded" in text for text in found)


def test_a_draft_is_marked_and_counts_only_where_nothing_else_does() -> None:
    drafts = [served(7.0, commit="abc-dirty"), served(8.0, clients=2, commit="abc-dirty")]
    found = list(document([served(6.0), *drafts], {}))
    assert "| abc | 1 | 6 |" in found and "| **abc-dirty (draft)** | 2 | 8 |" in found
    assert any("**1 of 2 results are drafts**" in text for text in found)


def test_texts_and_recipe_stand_above_a_table_or_in_it_where_they_differ() -> None:
    generated = {"texts": "generated", "recipe": "r1"}
    line = served(1.0, inputs=generated)
    found = list(document([line], {}))
    assert "texts: generated, recipe: r1\n" in found and "| clients | per s |" in found
    other = served(2.0, inputs={"texts": "real 12ab", "recipe": "r1"})
    found = list(document([line, other], {}))
    assert "| texts | recipe | clients | per s |" in found
    assert "| real 12ab | r1 | 1 | 2 |" in found


def test_a_newer_recipe_or_setting_supersedes_an_older_one() -> None:
    old = served(1.0, setting="a", inputs={"recipe": "r1"})
    new = served(2.0, setting="b", inputs={"recipe": "r2"})
    (result,) = results([old, new])
    assert result.line == new and result.runs == [old, new]


def test_the_contender_that_came_nearest_is_an_answer() -> None:
    line = {"case": "compare best", "workload": "laws", "quality": "any", "machine": MACHINE}
    (result,) = results([{**line, "contender": "a"}, {**line, "contender": "b"}])
    assert result.line["contender"] == "b"


def test_no_new_result_that_is_stored_is_a_draft() -> None:
    # The ones of that day were stored before drafts were refused.
    files = [file for file in STORED.glob("*.jsonl") if file.stem > "2026-11-25"]
    assert STORED.is_dir()
    assert [line for line in read(files) if is_draft(line)] == []
