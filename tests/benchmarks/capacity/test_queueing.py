"""The queue of batches is Erlang's where batches have one text, and near the server's own policy elsewhere."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.capacity.queueing import (
    Overloaded,
    Seconds,
    Servers,
    balance,
    percentile_ms,
    times,
)
from benchmarks.capacity.service import ServiceTime, Tokens, lengths_of, servers
from benchmarks.capacity.simulation import simulate

# The lines of `encode` of 2026-11-25, one thread.
SERVICE = ServiceTime(batch_s=9.0e-4, token_s=6.31e-5, pair_s=2.77e-8)


def erlang_c(offered: float, lanes: int) -> float:
    """Return the textbook's probability of waiting in M/M/c; offered: in Erlang."""
    last = offered**lanes / math.factorial(lanes) * lanes / (lanes - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(lanes)) + last)


@pytest.mark.parametrize("lanes", [1, 2, 8, 32])
@pytest.mark.parametrize("busy", [0.1, 0.5, 0.9])
def test_queue_without_batches_is_that_of_erlang(lanes: int, busy: float) -> None:
    found = balance(busy * lanes, Servers(lanes, one_s=1.0, lone_s=1.0))
    wait = erlang_c(busy * lanes, lanes)
    assert found.delayed == pytest.approx(wait, rel=1e-6)
    assert found.mean_s == pytest.approx(1 + wait / (lanes - busy * lanes), rel=1e-6)


@pytest.mark.parametrize("lanes", [1, 4])
def test_waits_have_the_mean_and_the_tail_of_erlang(lanes: int) -> None:
    rate = 0.8 * lanes
    found = times(balance(rate, Servers(lanes, 1.0, 1.0)), np.zeros(10))
    wait, per_s = erlang_c(rate, lanes), lanes - rate
    assert found.mean() == pytest.approx(wait / per_s, rel=0.03)
    assert percentile_ms(found, 99) / 1e3 == pytest.approx(math.log(wait / 0.01) / per_s, rel=0.1)


def simulated(lengths: Tokens, lanes: int, rate: float, count: int) -> Seconds:
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(1 / rate, count))
    texts: Sequence[int] = random.choice(lengths, count).tolist()
    return simulate(arrivals, texts, lambda batch, _: SERVICE.of(batch), lanes).latency_s


@pytest.mark.parametrize("lanes", [2, 8])
@pytest.mark.parametrize("load", [0.1, 0.5, 0.8])
def test_model_is_near_the_policy_of_the_server_for_queries(lanes: int, load: float) -> None:
    lengths = lengths_of("queries")
    made, alone_s = servers(SERVICE, lengths, lanes), SERVICE.of_each(lengths)
    rate = load * made.most_per_s
    expected = times(balance(rate, made), alone_s)
    found = simulated(lengths, lanes, rate, 20_000)
    for q in (50, 99):
        assert percentile_ms(expected, q) == pytest.approx(percentile_ms(found, q), rel=0.2), q


@pytest.mark.parametrize("load", [0.2, 0.5, 0.7])
def test_model_is_near_the_policy_for_long_texts(load: float) -> None:
    lengths = lengths_of("laws")
    made, alone_s = servers(SERVICE, lengths, 2), SERVICE.of_each(lengths)
    expected = times(balance(load * made.most_per_s, made), alone_s)
    found = simulated(lengths, 2, load * made.most_per_s, 20_000)
    for q in (50, 99):
        assert percentile_ms(expected, q) == pytest.approx(percentile_ms(found, q), rel=0.25), q


def test_policy_computes_as_many_texts_as_the_model_says_that_it_can() -> None:
    lengths = lengths_of("queries")
    made = servers(SERVICE, lengths, 2)
    # All at once: no lane ever waits for work.
    count = 5000
    texts = np.random.default_rng(3).choice(lengths, count).tolist()
    found = simulate(np.zeros(count), texts, lambda batch, _: SERVICE.of(batch), 2)
    assert count / found.latency_s.max() == pytest.approx(made.most_per_s, rel=0.05)
    assert found.busy == pytest.approx(1, abs=0.01)


def test_every_simulated_text_is_answered_after_its_own_time() -> None:
    lengths = lengths_of("mixed")
    random = np.random.default_rng(5)
    arrivals = np.cumsum(random.exponential(0.01, 3000))
    texts = random.choice(lengths, 3000).tolist()
    found = simulate(arrivals, texts, lambda batch, _: SERVICE.of(batch), 3)
    assert (found.latency_s >= np.array([SERVICE.of([n]) for n in texts]) - 1e-9).all()


def test_lone_text_has_all_cores_in_the_simulation() -> None:
    found = simulate(np.array([0.0, 9.0]), [18, 18], lambda _, alone: 1.0 if alone else 5.0, 2)
    assert found.latency_s.tolist() == [1.0, 1.0]
    beside = simulate(np.array([0.0, 0.5]), [18, 18], lambda _, alone: 1.0 if alone else 5.0, 2)
    assert beside.latency_s.tolist() == [1.0, 5.0]


def test_more_load_and_fewer_lanes_never_make_a_request_faster() -> None:
    lengths = lengths_of("queries")
    for q in (50, 99):
        by_rate = []
        for rate in np.linspace(10, 1500, 12):
            made, alone_s = servers(SERVICE, lengths, 2), SERVICE.of_each(lengths)
            by_rate.append(percentile_ms(times(balance(rate, made), alone_s), q))
        assert by_rate == sorted(by_rate)
        by_lanes = []
        for lanes in (1, 2, 4, 8, 16):
            made, alone_s = servers(SERVICE, lengths, lanes), SERVICE.of_each(lengths)
            by_lanes.append(percentile_ms(times(balance(600, made), alone_s), q))
        assert by_lanes == sorted(by_lanes, reverse=True)


def test_rate_that_full_batches_cannot_take_is_refused_with_what_is_possible() -> None:
    made = servers(SERVICE, lengths_of("laws"), 2)
    with pytest.raises(Overloaded, match=r"500\.0 arrive a second, at most 2\d\d\.\d can be"):
        balance(500, made)
