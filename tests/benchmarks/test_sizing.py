"""Sizes of machines follow from stored lines by a formula without surprises."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import sizing
from benchmarks.sizing import Load, Measured, NotMeasured, plan

DOCS = Path(__file__).parents[2] / "docs"

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
    assert ten.memory_gb - one.memory_gb == pytest.approx(9e6 * 1130 * 1.5 / 1e9)
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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_shows_what_the_command_prints_and_a_table_of_its_answers(
    language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / f"{language}/how-to/size-machines.md").read_text(encoding="utf-8")
    command, shown = re.findall(r"benchmarks\.sizing (.*)\n```\n```\n(.*?)```", page, re.DOTALL)[0]
    assert sizing.main(command.split()) == 0
    assert capsys.readouterr().out == shown
    lines = list(sizing.read(sorted(sizing.RESULTS.glob("*.jsonl"))))
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| ([\d,]+) \| (\S+) \|(.*)\|$", page, re.MULTILINE)
    assert len(rows) == 7
    for documents, queries, new, model, rest in rows:
        load = Load(int(documents.replace(",", "")), int(queries), int(new.replace(",", "")))
        made = plan(load, sizing.measured(lines, model))
        hours = "0.1" if made.first_index_h < 0.05 else f"{made.first_index_h:.1f}"
        wanted = [f"{made.cores:.1f}", f"{made.memory_gb:.1f}", f"{made.disk_gb:.1f}", hours]
        assert re.findall(r"\d+\.\d", rest) == wanted, (documents, model)


def test_texts_a_second_of_the_models_follow_from_the_same_lines() -> None:
    lines = list(sizing.read(sorted(sizing.RESULTS.glob("*.jsonl"))))
    for language in ("en", "zh"):
        page = (DOCS / f"{language}/how-to/choose-a-model.md").read_text(encoding="utf-8")
        rows = re.findall(
            r"^\| (\S+) \| (\d+) \| (\d+) \| ([\d,]+) \| (\d+) \|$", page, re.MULTILINE
        )
        assert len(rows) == 7
        for model, dimension, file_mb, tokens, texts in rows:
            found = sizing.measured(lines, model)
            line = [each for each in lines if each.get("model") == model][-1]
            assert int(dimension) == found.dimension and int(file_mb) == round(found.file_mb)
            assert int(tokens.replace(",", "")) == line["tokens_cpu_s_1x128"]
            assert int(texts) == round(found.tokens_core_s / sizing.LAW_TOKENS)
