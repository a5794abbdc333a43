"""Sizes of machines follow from stored lines by a formula without surprises."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import sizing
from benchmarks.sizing import Load, Measured, NotMeasured, plan

MEASURED = Measured(
    model="m",
    machine="two",
    tokens_core_s=10_000,
    dimension=512,
    file_mb=25,
    search_core_s=0.001,
    search_core_s_a_million=0.004,
    disk_bytes_a_law=4400,
)
LOAD = Load(documents=1_000_000, queries_s=20, new_a_day=0)


def test_cores_are_the_work_of_a_second_over_the_share_that_may_be_busy() -> None:
    # 20 x 18 tokens at 10,000 a second, and 20 searches of 1 + 4 ms; half of the time.
    assert plan(LOAD, MEASURED).cores == pytest.approx((0.036 + 0.1) / 0.5)
    daily = replace(LOAD, new_a_day=86_400)
    assert plan(daily, MEASURED).cores - plan(LOAD, MEASURED).cores == pytest.approx(0.0124 / 0.5)


def test_memory_and_disk_grow_with_the_documents() -> None:
    one, ten = plan(LOAD, MEASURED), plan(replace(LOAD, documents=10_000_000), MEASURED)
    assert ten.memory_gb - one.memory_gb == pytest.approx(9e6 * 1114 * 1.5 / 1e9)
    assert ten.disk_gb == pytest.approx(10 * one.disk_gb)
    assert one.first_index_h == pytest.approx(1e6 * 124 / (10_000 * 8) / 3600)


def test_machines_are_whole_and_at_least_one() -> None:
    assert plan(replace(LOAD, queries_s=0), MEASURED).machines == 1
    assert plan(replace(LOAD, queries_s=1000, cores=4), MEASURED).machines == 4


def test_stored_lines_have_all_that_the_computation_needs() -> None:
    lines = list(sizing.read(sorted(sizing.RESULTS.glob("*.jsonl"))))
    shipped, base = sizing.measured(lines), sizing.measured(lines, "bge-base-zh-v1.5")
    assert 5_000 < shipped.tokens_core_s < 50_000 and shipped.dimension == 512
    assert base.tokens_core_s < shipped.tokens_core_s / 3 and base.dimension == 768
    with pytest.raises(NotMeasured, match="families.*unknown"):
        sizing.measured(lines, "unknown")
    with pytest.raises(NotMeasured):
        sizing.measured([])


def test_command_prints_the_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert sizing.main(["--documents", "1000000"]) == 0
    said = capsys.readouterr().out
    for part in ("tokens/s a core", "cores at the peak", "machines", "memory", "disk", "hours"):
        assert part in said
    assert sizing.main(["--documents", "5", "--model", "unknown"]) == 1
    assert "unknown" in capsys.readouterr().err
