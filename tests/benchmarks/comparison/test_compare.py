"""The comparison reads its arguments, takes turns and computes ratios as it says."""

import argparse
from pathlib import Path

import pytest

from benchmarks.arguments import names_among
from benchmarks.comparison.compare import contender, nearest, our_setting, summary
from benchmarks.comparison.environments import CONTENDERS, packages, reason
from benchmarks.comparison.recipes import FORMATS, RECIPES, Contender
from benchmarks.comparison.task_quality import Quality
from benchmarks.comparison.turns import OURS, rotated
from server.config import Config
from server.system.cpu import cpu_budget


def test_a_contender_is_read_from_its_name_url_and_format() -> None:
    found = contender("tei=http://127.0.0.1:8080/,tei")
    assert (found.name, found.address) == ("tei", "http://127.0.0.1:8080/embed")
    assert contender("o=http://h,ollama,bge").model == "bge"


@pytest.mark.parametrize("text", ["x", "=http://h,tei", "x=http://h,grpc", f"{OURS}=http://h,tei"])
def test_a_contender_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        contender(text)


def test_only_known_contenders_are_named() -> None:
    names = names_among(RECIPES)
    assert names("onnx,tutorial") == ["onnx", "tutorial"]
    with pytest.raises(argparse.ArgumentTypeError, match="nobody is not among"):
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
    found = ["".join(each.name for each in rotated(three, turn)) for turn in range(4)]
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


def quality(spearman: float | None, cosine: float = 0.998) -> Quality:
    return Quality(cosine, cosine, 200, spearman)


LINES = [
    {"contender": OURS, "per_s": 18.0, "ours_to_it": 1.0},
    {"contender": "slow", "per_s": 2.0, "ours_to_it": 9.0},
    {"contender": "fast", "per_s": 9.0, "ours_to_it": 2.0},
]


@pytest.mark.parametrize(
    ("fast", "found"),
    [
        # The fastest does the task less well: it and the best of the equal ones are both shown.
        (quality(76.0, 1.0), [("equal on STS-B", "slow", 9.0), ("any", "fast", 2.0)]),
        # The cosine decides nothing.
        (quality(76.5, 0.93), [("equal on STS-B", "fast", 2.0), ("any", "fast", 2.0)]),
    ],
)
def test_the_nearest_is_shown_at_equal_task_quality_and_at_any(
    fast: Quality, found: list[tuple[str, str, float]]
) -> None:
    qualities = {OURS: quality(76.7), "slow": quality(76.9, 1.0), "fast": fast}
    shown = list(nearest(LINES, qualities))
    assert [(line["quality"], line["contender"], line["ours_to_it"]) for line in shown] == found
    expected = qualities[str(shown[0]["contender"])]
    assert shown[0]["cosine_mean"] == expected.cosine_mean
    assert shown[0]["sts_spearman"] == expected.spearman


def test_no_contender_is_nearest_where_no_other_ran_or_is_as_good() -> None:
    assert list(nearest(LINES[:1], {OURS: quality(76.7)})) == []
    shown = list(nearest([LINES[0], LINES[2]], {OURS: quality(76.7), "fast": quality(70.0)}))
    assert [line["quality"] for line in shown] == ["any"]


def test_without_sts_pairs_no_contender_counts_as_equal() -> None:
    shown = list(nearest([LINES[0], LINES[2]], {OURS: quality(None), "fast": quality(None)}))
    assert [line["quality"] for line in shown] == ["any"]
    assert "sts_spearman" not in shown[0]


def test_texts_are_lower_cased_for_a_contender_that_does_not_do_it_itself() -> None:
    plain = Contender("x", "http://h", FORMATS["native"])
    lowering = Contender("x", "http://h", FORMATS["native"], lower_case=True)
    assert plain.body("BGE 模型") == {"texts": ["BGE 模型"]}
    assert lowering.body("@@BGE 模型") == {"texts": ["@@bge 模型"]}


def test_every_setting_says_processes_threads_batch_and_numbers() -> None:
    for name, recipe in RECIPES.items():
        setting = recipe.setting_here(recipe.lower_case)
        assert "{" not in setting
        for word in ("process", "thread", "batches"):
            assert word in setting, name
        assert any(number in setting for number in ("int8", "float32", "bfloat16")), name
        assert ("not tried" in setting) == (not recipe.tried)
        assert ("lower-cased" in setting) == recipe.lower_case


def test_our_own_setting_is_that_of_the_defaults(toy_artifact: Path) -> None:
    setting = our_setting(toy_artifact)
    assert f"{cpu_budget()} lanes" in setting and "int8" in setting
    assert f"batches to {Config().batch_tokens} tokens" in setting


def test_every_contender_has_pinned_packages() -> None:
    for name in {recipe.environment for recipe in RECIPES.values()}:
        text = (CONTENDERS / f"requirements-{name}.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines and all("==" in line for line in lines)
    assert packages("# x\ninfinity_emb[server]==0.1\nTorch==2\n") == ["infinity-emb", "torch"]


def test_the_reason_is_the_last_line_that_says_something() -> None:
    assert reason("a\n  ERROR: no such version \n\n") == "ERROR: no such version"
    assert reason("") == "no output"
