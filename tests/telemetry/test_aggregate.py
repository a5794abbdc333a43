"""Pages of metrics of several processes, added up."""

import re

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.aggregate import counted, summed
from server.telemetry.metrics import Metrics


def page(**counts: int) -> str:
    """Of a process that answered so many requests with each of these statuses' names."""
    metrics = Metrics()
    for route, count in counts.items():
        metrics.requests.labels(f"/{route}", "200").inc(count)
        for _ in range(count):
            metrics.request_seconds.labels(f"/{route}").observe(0.004)
    metrics.lanes.set(2)
    metrics.model.labels("toy", "int8", "f").set(1)
    return metrics.render().decode()


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_one_page_alone_says_what_it_said() -> None:
    alone = page(embed=3)
    assert samples(summed([alone])) == samples(alone)
    assert re.findall("^#.*", summed([alone]), re.M) == re.findall("^#.*", alone, re.M)


def test_counters_histograms_and_gauges_are_added() -> None:
    found = samples(summed([page(embed=3), page(embed=4)]))
    assert found['inkwell_requests_total{route="/embed",status="200"}'] == 7
    assert found['inkwell_request_seconds_bucket{le="0.005",route="/embed"}'] == 7
    assert found['inkwell_request_seconds_count{route="/embed"}'] == 7
    assert found["te_request_count"] == 7
    assert found["inkwell_lanes"] == 4


def test_limits_descriptions_and_moments_are_not_added() -> None:
    one, two = page(embed=1), page(embed=1)
    found, first, second = samples(summed([one, two])), samples(one), samples(two)
    assert found['inkwell_model_info{fingerprint="f",model_id="toy",precision="int8"}'] == 1
    assert found["process_max_fds"] == first["process_max_fds"]
    created = 'inkwell_requests_created{route="/embed",status="200"}'
    assert found[created] == min(first[created], second[created])
    assert found["process_start_time_seconds"] == first["process_start_time_seconds"]


def test_what_only_one_process_has_stands_with_its_family() -> None:
    whole = summed([page(embed=3), page(search=4)])
    families = {each.name: each for each in text_string_to_metric_families(whole)}
    counts = {
        sample.labels["route"]: sample.value
        for sample in families["inkwell_requests"].samples
        if sample.name == "inkwell_requests_total"
    }
    assert counts == {"/embed": 3, "/search": 4}
    assert whole.count("# TYPE inkwell_requests_total counter") == 1


def test_of_a_process_that_ended_only_what_it_counted_remains() -> None:
    found = samples(summed([counted(page(embed=3)), page(embed=4)]))
    assert found['inkwell_requests_total{route="/embed",status="200"}'] == 7
    assert found["te_request_count"] == 7
    assert found["inkwell_lanes"] == 2
    assert counted("") == summed([]) == summed(["", ""]) == ""
