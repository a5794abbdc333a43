"""Quality in the comparison is how well a task is done, with the cosine beside it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import reference
from benchmarks.comparison.task_quality import STS_POINTS, Quality, cosines, equal, measure
from benchmarks.quality import read_pairs


def quality(spearman: float | None) -> Quality:
    return Quality(1.0, 1.0, 200, spearman)


def test_equal_is_at_most_the_allowed_points_below_ours() -> None:
    ours = quality(76.74)
    assert equal(quality(round(76.74 - STS_POINTS, 2)), ours)
    assert not equal(quality(round(76.74 - STS_POINTS - 0.01, 2)), ours)
    assert equal(quality(90.0), ours)
    assert not equal(quality(None), ours) and not equal(ours, quality(None))


def test_the_first_sentences_stand_before_the_second_ones(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("a\tb\t1.5\nc\td\t5\n", encoding="utf-8")
    texts, scores = read_pairs(file)
    assert texts == ["a", "c", "b", "d"] and scores.tolist() == [1.5, 5.0]


def test_the_english_file_is_read_as_it_is_published(tmp_path: Path) -> None:
    file = tmp_path / "sts-test.csv"
    line = 'main-captions\tMSRvid\t2012test\t0024\t2.500\tA "girl" sings.\tA girl\u2028hums.'
    file.write_text(f"{line}\n{line}\tsource\tsource\n", encoding="utf-8")
    texts, scores = read_pairs(file)
    assert texts == ['A "girl" sings.'] * 2 + ["A girl\u2028hums."] * 2
    assert scores.tolist() == [2.5, 2.5]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("a\tb\t1.5\nsentence1\tsentence2\tscore\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="line 2 is not a sentence"):
        read_pairs(file)


def test_a_contender_is_measured_on_the_task_and_beside_the_reference(tmp_path: Path) -> None:
    texts, expected = reference.load()
    known = dict(zip(texts, expected.tolist(), strict=True))
    turned = {
        f"{name}{degrees}": [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]
        for name, degrees in (("a", 0), ("b", 10), ("c", 40), ("d", 80))
    }
    file = tmp_path / "pairs.tsv"
    # A wider angle has a lower score, but for one pair of the three.
    file.write_text("a0\tb10\t5\na0\tc40\t1\na0\td80\t3\n", encoding="utf-8")
    found = measure(lambda text: (known | turned)[text], file)
    assert found.line() == {
        "sts_spearman": 50.0,
        "cosine_mean": 1.0,
        "cosine_min": 1.0,
        "cosine_texts": len(texts),
    }
    assert measure(known.__getitem__, None).spearman is None


def test_cosines_do_not_depend_on_length() -> None:
    vectors = np.array([[2, 0], [1, 1]], np.float32)
    found = cosines(vectors, np.array([[1, 0], [1, 0]], np.float32))
    assert np.allclose(found, [(1 + 0.5**0.5) / 2, 0.5**0.5], atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        cosines(vectors[:1], vectors)
