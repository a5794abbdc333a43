"""The metrics pages of several processes, joined into one."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.collections.metrics import COLLECTION_JOINS, CollectionMetrics
from server.store.records import CollectionStats
from server.telemetry.aggregate import JOINS, counted, summed
from server.telemetry.metrics import Metrics


def page(**counts: int) -> str:
    """Return the page of a process that answered so many requests on each of these routes."""
    metrics = Metrics()
    for route, count in counts.items():
        metrics.requests.labels(f"/{route}", "200").inc(count)
        for _ in range(count):
            metrics.request_seconds.labels(f"/{route}").observe(0.004)
    metrics.lanes.set(2)
    metrics.model.labels("toy", "int8", "f", "kernels").set(1)
    return metrics.render().decode()


JOINS_OF_ALL = {**Metrics().joins, **COLLECTION_JOINS}


def joined(*pages: str) -> str:
    return summed(pages, JOINS_OF_ALL)


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_one_page_alone_says_what_it_said() -> None:
    alone = page(embed=3)
    assert samples(joined(alone)) == samples(alone)
    assert re.findall("^#.*", joined(alone), re.M) == re.findall("^#.*", alone, re.M)


def test_counters_histograms_and_gauges_are_added() -> None:
    found = samples(joined(page(embed=3), page(embed=4)))
    assert found['inkwell_requests_total{route="/embed",status="200"}'] == 7
    assert found['inkwell_request_seconds_bucket{le="0.005",route="/embed"}'] == 7
    assert found['inkwell_request_seconds_count{route="/embed"}'] == 7
    assert found["te_request_count"] == 7
    assert found["inkwell_lanes"] == 4


def test_limits_descriptions_and_moments_are_not_added() -> None:
    one, two = page(embed=1), page(embed=1)
    found, first, second = samples(joined(one, two)), samples(one), samples(two)
    (info,) = [value for name, value in found.items() if name.startswith("inkwell_model_info")]
    assert info == 1
    assert found["process_max_fds"] == first["process_max_fds"]
    created = 'inkwell_requests_created{route="/embed",status="200"}'
    assert found[created] == min(first[created], second[created])
    assert found["process_start_time_seconds"] == first["process_start_time_seconds"]


def test_what_only_one_process_has_stands_with_its_family() -> None:
    whole = joined(page(embed=3), page(search=4))
    families = {each.name: each for each in text_string_to_metric_families(whole)}
    counts = {
        sample.labels["route"]: sample.value
        for sample in families["inkwell_requests"].samples
        if sample.name == "inkwell_requests_total"
    }
    assert counts == {"/embed": 3, "/search": 4}
    assert whole.count("# TYPE inkwell_requests_total counter") == 1


def test_of_a_process_that_ended_only_what_it_counted_remains() -> None:
    found = samples(joined(counted(page(embed=3)), page(embed=4)))
    assert found['inkwell_requests_total{route="/embed",status="200"}'] == 7
    assert found["te_request_count"] == 7
    assert found["inkwell_lanes"] == 2
    assert counted("") == joined() == joined("", "") == ""


# --- gauges ---------------------------------------------------------------------------------------


def page_of_all() -> str:
    """Return a page with every gauge that a server has."""
    metrics = Metrics()
    stats = CollectionStats(1, 2, 3, 4, 5, 6, 7, 0.5)
    metrics.register(CollectionMetrics(lambda: [("a", stats)]), COLLECTION_JOINS)
    assert metrics.joins == JOINS_OF_ALL
    return metrics.render().decode()


def test_every_gauge_declares_how_it_joins() -> None:
    declared = set(re.findall(r"^# TYPE (\w+) gauge$", page_of_all(), re.M))
    assert {name for name in declared if not name.endswith("_created")} == set(JOINS_OF_ALL)


@pytest.mark.parametrize("name", JOINS_OF_ALL)
def test_gauge_joins_as_declared(name: str) -> None:
    pages = [f"# HELP {name} A.\n# TYPE {name} gauge\n{name} {value}\n" for value in (3, 1, 2)]
    join = JOINS_OF_ALL[name]
    assert samples(joined(*pages)) == {name: {"sum": 6, "min": 1, "max": 3}[join]}
    assert JOINS.keys() == {"sum", "min", "max"}


def test_gauges_join_as_their_meaning_asks() -> None:
    by_join = {
        join: {name for name, declared in JOINS_OF_ALL.items() if declared == join}
        for join in JOINS
    }
    assert by_join["max"] == {
        "process_max_fds",
        "python_info",
        "inkwell_batch_tokens_max",
        "inkwell_model_info",
        "inkwell_build_info",
        "inkwell_memory_limit_bytes",
        "inkwell_disk_bytes",
    }
    assert by_join["min"] == {
        "process_start_time_seconds",
        "inkwell_key_expiry_timestamp_seconds",
        "inkwell_certificate_expiry_timestamp_seconds",
        "inkwell_snapshot_timestamp_seconds",
        "inkwell_recall_at_10",
        "inkwell_disk_free_bytes",
        "inkwell_ready",
    }


def test_gauge_that_no_process_declares_is_added_up() -> None:
    other = "# HELP other A.\n# TYPE other gauge\nother 2\n"
    assert samples(joined(other, other)) == {"other": 4}
