"""Result lines become tables that lose nothing."""

from benchmarks.report import report

MACHINE = {"cpu": "x", "cores": 2, "commit": "abc", "load_average": 1.0}


def test_each_case_has_a_table_with_every_number() -> None:
    lines = [
        {"case": "search", "clients": 1, "p50_ms": 0.123456, "machine": MACHINE},
        {"case": "search", "clients": 16, "index": {"kind": "exact"}, "machine": MACHINE},
        {"case": "memory", "idle_mb": 12345, "machine": MACHINE},
    ]
    assert list(report(lines)) == [
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
