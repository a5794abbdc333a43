"""The time that requests took is read from the server's own page of metrics."""

import pytest

from benchmarks import stages
from benchmarks.serve import Turn, line


def test_the_mean_of_a_stage_is_over_the_requests_between_two_readings() -> None:
    before = {"tokenize": (1.0, 100.0), "queue": (2.0, 100.0), "infer": (3.0, 100.0)}
    after = {"tokenize": (1.1, 110.0), "queue": (2.4, 110.0), "infer": (3.9, 110.0)}
    spent = stages.between(before, after)
    assert stages.means_ms(spent) == pytest.approx({"tokenize": 10, "queue": 40, "infer": 90})
    more = {"tokenize": (0.3, 10.0), "queue": (0.0, 10.0), "infer": (0.1, 30.0)}
    found = stages.means_ms(spent, more)
    assert found == pytest.approx({"tokenize": 20, "queue": 20, "infer": 25})


def test_no_requests_have_no_time() -> None:
    assert set(stages.means_ms(dict.fromkeys(stages.STAGES, (0.0, 0.0))).values()) == {0.0}


def test_the_servers_stages_and_the_rest_make_up_the_mean() -> None:
    found = {"per_s": 50.0, "p50_ms": 20.0, "p95_ms": 30.0, "p99_ms": 40.0, "mean_ms": 22.0}
    spent = {"tokenize": (0.01, 10.0), "queue": (0.05, 10.0), "infer": (0.1, 10.0)}
    turn = Turn(100.0, {**found, "generator_cpu": 0.1}, spent, None)
    shown = line([turn, turn, turn])
    assert shown["stage_ms"] == {"tokenize": 1, "queue": 5, "infer": 10, "other": 6}
    assert shown["ratio"] == 0.5 and "encoder_ms" not in shown
    alone = line([Turn(100.0, turn.found, spent, 15.0)])
    assert (alone["encoder_ms"], alone["overhead_ms"]) == (15, 5)
