"""The comparison reads its arguments, takes turns and computes ratios as it says."""

import argparse

import numpy as np
import pytest

from benchmarks.comparison.compare import (
    CONTENDERS,
    FORMATS,
    OURS,
    Contender,
    best,
    contender,
    cosines,
    names,
    order,
    summary,
)
from benchmarks.comparison.environments import CONTENDERS as FILES
from benchmarks.comparison.environments import packages, reason


def test_a_contender_is_read_from_its_name_url_and_format() -> None:
    found = contender("tei=http://127.0.0.1:8080/,tei")
    assert (found.name, found.address) == ("tei", "http://127.0.0.1:8080/embed")
    assert contender("o=http://h,ollama,bge").model == "bge"


@pytest.mark.parametrize("text", ["x", "=http://h,tei", "x=http://h,grpc", f"{OURS}=http://h,tei"])
def test_a_contender_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        contender(text)


def test_only_known_contenders_are_named() -> None:
    assert names("onnx,tutorial") == ["onnx", "tutorial"]
    with pytest.raises(argparse.ArgumentTypeError, match="nobody"):
        names("onnx,nobody")


@pytest.mark.parametrize(
    ("format", "body", "reply"),
    [
        ("native", {"texts": ["天"]}, {"vectors": [[1.0]]}),
        ("tei", {"inputs": ["天"]}, [[1.0]]),
        ("openai", {"model": "m", "input": ["天"]}, {"data": [{"embedding": [1.0]}]}),
        ("ollama", {"model": "m", "input": ["天"]}, {"embeddings": [[1.0]]}),
    ],
)
def test_every_format_asks_and_reads(format: str, body: object, reply: object) -> None:
    one = Contender("x", "http://h", FORMATS[format], "m")
    assert one.body("天") == body
    assert one.format.vector(reply) == [1.0]


def test_another_is_first_each_turn() -> None:
    three = [Contender(name, "", FORMATS["tei"]) for name in "abc"]
    found = ["".join(each.name for each in order(three, turn)) for turn in range(4)]
    assert found == ["abc", "bca", "cab", "abc"]


def test_the_ratio_is_the_median_of_the_turns_ratios() -> None:
    turns = [
        {
            OURS: {"per_s": ours, "p50_ms": 1.0, "p99_ms": 2.0, "cores": 2.0},
            "x": {"per_s": 10.0, "p50_ms": 3.0, "p99_ms": 4.0},
        }
        for ours in (20.0, 90.0, 30.0)
    ]
    own, other = summary(turns)
    assert own["ours_to_it"] == 1 and own["cores"] == 2
    assert other == {"contender": "x", "per_s": 10, "p50_ms": 3, "p99_ms": 4, "ours_to_it": 3}


@pytest.mark.parametrize(
    ("cosine", "found"),
    [
        # The fastest is less near to float32 than ours: both it and the best of the nearer are told.
        (0.99, [("as near or nearer", "slow", 9.0), ("any", "fast", 2.0)]),
        # What rounds to ours in the third decimal counts as equal.
        (0.9976, [("as near or nearer", "fast", 2.0), ("any", "fast", 2.0)]),
    ],
)
def test_the_best_is_told_at_equal_quality_and_at_any(
    cosine: float, found: list[tuple[str, str, float]]
) -> None:
    lines = [
        {"contender": OURS, "per_s": 18.0, "ours_to_it": 1.0},
        {"contender": "slow", "per_s": 2.0, "ours_to_it": 9.0},
        {"contender": "fast", "per_s": 9.0, "ours_to_it": 2.0},
    ]
    told = list(best(lines, {OURS: 0.998, "slow": 1.0, "fast": cosine}))
    assert [(line["quality"], line["contender"], line["ours_to_it"]) for line in told] == found
    assert told[0]["cosine_mean"] == (1.0 if cosine == 0.99 else cosine)


def test_nobody_is_best_where_nobody_else_ran_or_is_as_near() -> None:
    own = {"contender": OURS, "ours_to_it": 1.0}
    assert list(best([own], {OURS: 0.998})) == []
    other = {"contender": "x", "ours_to_it": 2.0}
    told = list(best([own, other], {OURS: 0.998, "x": 0.9}))
    assert [line["quality"] for line in told] == ["any"]


def test_cosines_do_not_depend_on_length() -> None:
    vectors = np.array([[2, 0], [1, 1]], np.float32)
    found = cosines(vectors, np.array([[1, 0], [1, 0]], np.float32))
    assert np.allclose(found, [1, 0.5**0.5])
    with pytest.raises(ValueError, match="shape"):
        cosines(vectors[:1], vectors)


def test_every_contender_has_pinned_packages() -> None:
    for name in {recipe.environment for recipe in CONTENDERS.values()}:
        text = (FILES / f"requirements-{name}.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines and all("==" in line for line in lines)
    assert packages("# x\ninfinity_emb[server]==0.1\nTorch==2\n") == ["infinity-emb", "torch"]


def test_the_reason_is_the_last_line_that_says_something() -> None:
    assert reason("a\n  ERROR: no such version \n\n") == "ERROR: no such version"
    assert reason("") == "nothing was said"
