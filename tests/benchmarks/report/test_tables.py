"""Result lines become tables that lose nothing."""

from benchmarks.report.tables import document

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
    line = {"case": "memory", "idle_mb": 1, "machine": MACHINE}
    other = {"case": "memory", "idle_mb": 2, "machine": {**MACHINE, "commit": "def"}}
    alone = {"case": "start-up", "ready_s": 1, "machine": MACHINE}
    found = list(document([line, other, alone], {}))
    assert "| commit | idle mb |" in found and "| def | 2 |" in found
    assert "| ready s |" in found


def test_lines_of_several_machines_say_which_each_is_of() -> None:
    line = {"case": "memory", "idle_mb": 1, "machine": MACHINE}
    other = {"case": "memory", "idle_mb": 2, "machine": {**MACHINE, "cpu": "y"}}
    found = list(document([line, other], {}))
    assert found[1:3] == ["1. cpu x, cores 2\n", "2. cpu y, cores 2\n"]
    assert "| 1 | 1 |" in found and "| 2 | 2 |" in found
