"""Generated texts are as long as real ones, and requests of them never the same."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import workloads

# Tokens at the quantiles 5, 25, 50, 75, 95 and 99 %, and their mean, of real questions, law articles
# and a mix of both, with the shipped model's tokenizer, which cuts at 512.
MEASURED = {
    "queries": ((11, 14, 17, 20, 29, 37), 17.8),
    "laws": ((37, 69, 102, 157, 272, 432), 123.5),
    "mixed": ((12, 16, 24, 170, 512, 512), 122.7),
}


@pytest.mark.parametrize("name", workloads.LENGTHS)
def test_generated_texts_have_the_lengths_of_real_ones(name: str) -> None:
    texts = workloads.generate(name, 20_000)
    assert all("一" <= character <= "鿿" for text in texts[:100] for character in text)
    # Every Chinese character is a token, and two more surround the text.
    tokens = np.minimum([len(text) + 2 for text in texts], 512)
    quantiles, mean = MEASURED[name]
    found = np.quantile(tokens, (0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    assert found == pytest.approx(quantiles, rel=0.05)
    assert tokens.mean() == pytest.approx(mean, rel=0.05)


def test_the_same_seed_generates_the_same_texts() -> None:
    assert workloads.generate("laws", 50) == workloads.generate("laws", 50)
    assert workloads.generate("laws", 50, seed=2) != workloads.generate("laws", 50)


def test_marks_are_three_characters_and_differ() -> None:
    numbers = [*range(3000), *range(1_000_000, 1_003_000)]
    marks = [workloads.mark(number) for number in numbers]
    assert len(set(marks)) == len(marks) and {len(mark) for mark in marks} == {3}
    assert len({len(mark.encode()) for mark in marks}) == 1


def test_real_texts_are_read_from_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "queries.json").write_text(json.dumps(["天", "地", "人"]), encoding="utf-8")
    (tmp_path / "lines.txt").write_text("墨\n池\n", encoding="utf-8")
    assert sorted(workloads.load("queries", 2, tmp_path)) == ["地", "天"]
    assert sorted(workloads.load("laws", 5, tmp_path / "lines.txt")) == ["墨", "池"]


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 2000])
def test_the_order_loses_no_text_and_doubles_none(count: int) -> None:
    texts = workloads.generate("mixed", count)
    assert sorted(workloads.evenly(texts)) == sorted(texts)
    assert workloads.evenly(texts) == workloads.evenly(texts)


def test_wherever_a_run_begins_its_texts_are_as_long() -> None:
    tokens = [min(len(text) + 2, 512) for text in workloads.load("mixed", 2000, None)]
    whole = np.mean(tokens)
    for begin in range(0, 1700, 100):
        assert np.mean(tokens[begin : begin + 300]) == pytest.approx(whole, rel=0.06)
    by_chance = [min(len(text) + 2, 512) for text in workloads.generate("mixed", 2000)]
    worst = max(
        abs(np.mean(by_chance[begin : begin + 300]) - whole) for begin in range(0, 1700, 100)
    )
    assert worst > 0.06 * whole


def test_bodies_are_one_a_line(tmp_path: Path) -> None:
    path = workloads.write_bodies(tmp_path / "x", map(workloads.single, ["天\n地", "人"]))
    bodies = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert bodies == [{"texts": ["@@天\n地"]}, {"texts": ["@@人"]}]
