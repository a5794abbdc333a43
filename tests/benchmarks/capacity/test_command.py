"""The command answers in sentences or JSON, and names what it cannot read or keep."""

import json
from pathlib import Path

import pytest

from benchmarks.capacity import validation
from benchmarks.capacity.__main__ import main
from benchmarks.capacity.validation import Machine, compared, modelled
from tests.benchmarks.capacity.test_queueing import SERVICE


def test_sentence_names_machines_memory_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--documents", "1M", "--cost-per-core-hour", "0.04"]) == 0
    said = capsys.readouterr().out
    for part in ("1 million documents", "1 machine of 8 cores", "p99", "Disk", "First indexing"):
        assert part in said
    assert "Cost of the cores: 233.60 a month." in said


def test_json_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--documents", "50M", "--queries", "200/s", "--store", "postgres", "--json"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["load"]["documents"] == 50_000_000 and found["load"]["queries_s"] == 200
    assert found["plan"]["database_bytes"] > 100e9 and found["plan"]["nodes"] >= 1
    assert "pgvector" in found["source"]["database_source"]


def test_database_is_marked_as_documented_and_not_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--documents", "50M", "--store", "milvus"]) == 0
    said = capsys.readouterr().out
    assert "by its documentation, not measured" in said and "https://milvus.io" in said
    assert "without the database's own search" in said


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (["--documents", "1.5"], "'1.5' is not a whole number"),
        (["--documents", "1M", "--p99", "100"], "'100' is not a number with one of these units"),
        (["--documents", "1M", "--queries", "5/week"], "5/week"),
        (["--documents", "1M", "--memory", "1kB"], "'1kB' is outside"),
        (["--documents", "1M", "--filtered", "130%"], "'130%' is outside 0 to 1"),
        (["--documents", "1M", "--store", "other"], "other"),
    ],
)
def test_wrong_values_are_named(
    asked: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(asked)
    assert ended.value.code == 2 and named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["--documents", "1M", "--p99", "1ms"], "cannot be kept"),
        (["--documents", "1B"], "one machine ends at"),
        (["--documents", "1M", "--writes", "100k/s"], "machines of 8 cores would be needed"),
        (["--documents", "1M", "--model", "unknown"], "unknown"),
    ],
)
def test_what_cannot_be_is_answered_with_the_reason(
    asked: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked) == 1
    assert reason in capsys.readouterr().err


def test_results_of_the_reader_count_before_the_stored_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--documents", "1M", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["plan"]["disk_bytes"]
    line = {"case": "disk", "bytes_per_document": 2 * 2968, "text_bytes": 401, "machine": {}}
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps(line), encoding="utf-8")
    assert main(["--documents", "1M", "--json", "--results", str(mine)]) == 0
    after = json.loads(capsys.readouterr().out)["plan"]["disk_bytes"]
    assert after == pytest.approx(2 * before)


@pytest.mark.parametrize(
    ("rates", "named"), [("0.2,x", "'0.2,x'"), ("0.5,1.5", "1.5 is not a part"), ("nan", "nan")]
)
def test_rates_of_the_validation_are_parts_of_the_peak(
    rates: str, named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["validation", "--rates", rates])
    with pytest.raises(SystemExit):
        validation.main()
    assert named in capsys.readouterr().err


def test_validation_compares_percentiles_and_takes_the_peak_as_measured() -> None:
    found = Machine(2, SERVICE, wide=1.7, peak_per_s=600.0, http_s=4e-4, hand_over_s=1e-3)
    light, heavy = modelled("queries", 60, found), modelled("queries", 480, found)
    assert light.mean() < heavy.mean()
    line = compared(light, light * 1.1)
    assert line["error_p50_percent"] == line["error_p99_percent"] == 10.0
    assert line["modelled_p50_ms"] > line["p50_ms"] > 0
