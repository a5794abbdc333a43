"""The amount of work that may wait: seconds of work at the model's speed, or what the settings say."""

from typing import Any

import numpy as np
import pytest

from server.config import Config
from server.errors import Overloaded
from server.inference.batching import Job
from server.inference.capacity import QUEUE_S, batch_limits
from server.inference.model import Model
from server.inference.tenant import Tenant
from server.telemetry.metrics import Metrics
from tests.support.engines import counter, run, running
from tests.support.fakes import Echo, with_parts

# Of bge-small-zh-v1.5 on a core with VNNI, and of a model of 24 layers of 1,024.
FAST, SLOW = 12_000.0, 600.0


def tenant_of(rate: float, lanes: int = 2, max_tokens: int = 512, **settings: Any) -> Tenant:
    limits = batch_limits(Config(lanes=lanes, **settings), max_tokens)
    return Tenant(Echo(), limits, None, lanes, rate)


def job(tokens: int) -> Job:
    return Job([np.zeros(tokens, dtype=np.int64)], None, 0.0)


@pytest.mark.parametrize("rate", [FAST, SLOW])
def test_so_many_tokens_wait_as_the_lanes_compute_in_a_second_and_a_half(rate: float) -> None:
    tenant = tenant_of(rate)
    interactive, _ = tenant.bounds
    assert interactive == int(QUEUE_S * rate * 2)
    for _ in range(interactive // 10):
        tenant.add(job(10))
    with pytest.raises(Overloaded) as refusal:
        tenant.add(job(11))
    # Half of the queue: it is as long for any model.
    assert refusal.value.retry_after_s == 1


def test_bound_follows_the_observed_speed() -> None:
    tenant = tenant_of(FAST)
    before, bulk = tenant.bounds
    for _ in range(200):
        tenant.observe(tenant.encoder, 4, 60, 60 / SLOW, alone=False)
    after, same = tenant.bounds
    assert before == pytest.approx(36_000)
    assert after == pytest.approx(1800, rel=0.01)
    assert bulk == same == Config().bulk_queue_tokens


def test_setting_wins_over_the_measured_speed() -> None:
    for rate in (FAST, SLOW):
        assert tenant_of(rate, interactive_queue_tokens=777).bounds[0] == 777


def test_any_request_that_counts_as_small_fits_however_slow_the_model_is() -> None:
    assert tenant_of(1.0, interactive_tokens=2000).bounds[0] == 2000
    assert tenant_of(1.0, max_tokens=8192).bounds[0] == 8192


def test_clients_of_a_slow_model_are_asked_to_wait_longer_for_as_many_tokens() -> None:
    waits = []
    for rate in (FAST, SLOW):
        tenant = tenant_of(rate, interactive_queue_tokens=20_000)
        tenant.add(job(20_000))
        with pytest.raises(Overloaded) as refusal:
            tenant.add(job(1))
        waits.append(refusal.value.retry_after_s)
    assert waits == [1, round(20_000 / (2 * SLOW) / 2)]


def test_engine_takes_the_speed_that_was_measured_when_its_model_was_opened(
    toy_model: Model,
) -> None:
    metrics = Metrics()

    async def test() -> None:
        async with running(with_parts(toy_model, rate=SLOW), metrics, lanes=2):
            bound = metrics.registry.get_sample_value(
                "inkwell_queue_tokens_limit", {"kind": "interactive"}
            )
            assert bound == QUEUE_S * SLOW * 2

    run(test)
    assert toy_model.rate > 0
    assert counter(metrics, "refused_total") == 0
