"""What the server itself says that requests spent, by stage, read from /metrics.

The difference of two readings is what the requests between them spent; the means are a request's.
"""

import time
import urllib.request

from server.telemetry.metrics import PREFIX

STAGES = ("tokenize", "queue", "infer")
# By stage: the seconds of all requests together, and how many they were.
Stages = dict[str, tuple[float, float]]


def samples(url: str) -> dict[str, str]:
    """By name with labels, as Prometheus reads them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def read(url: str) -> Stages:
    """Since the server's start."""
    found = samples(url)
    names = {stage: f"{PREFIX}_{stage}_seconds" for stage in STAGES}
    return {
        stage: (float(found[f"{name}_sum"]), float(found[f"{name}_count"]))
        for stage, name in names.items()
    }


def settled(url: str) -> Stages:
    """Until now, once the requests that a closed loop left behind are answered."""
    before: Stages = {}
    while (now := read(url)) != before:
        before = now
        time.sleep(0.2)
    return now


def between(before: Stages, after: Stages) -> Stages:
    return {
        stage: (after[stage][0] - before[stage][0], after[stage][1] - before[stage][1])
        for stage in STAGES
    }


def means_ms(*spent: Stages) -> dict[str, float]:
    """Milliseconds a request by stage, over all readings together; 0 where none was counted."""
    means = {}
    for stage in STAGES:
        seconds, requests = map(sum, zip(*(each[stage] for each in spent), strict=True))
        means[stage] = seconds / requests * 1e3 if requests else 0.0
    return means
