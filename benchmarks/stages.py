"""Time that requests spent in each stage, read from the server's own /metrics.

The difference of two readings belongs to the requests between them; the means are per request.
"""

import socket
import time
from urllib.parse import urlsplit

from server.telemetry.metrics import PREFIX

STAGES = ("tokenize", "queue", "infer")
# By stage: the seconds of all requests together, and the number of requests.
Stages = dict[str, tuple[float, float]]


def samples(url: str) -> dict[str, str]:
    """Return every sample of /metrics, by its name with labels.

    The server has closed the connection when this returns, so that counts of its files do not have it.
    """
    address = urlsplit(url)
    request = f"GET /metrics HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n\r\n"
    place = (address.hostname, address.port)
    with socket.create_connection(place, timeout=60) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise OSError(f"{url}/metrics is not answered with 200: {head.decode()[:200]}")
    lines = body.decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def read(url: str) -> Stages:
    """Return what all requests since the server's start spent."""
    found = samples(url)
    names = {stage: f"{PREFIX}_{stage}_seconds" for stage in STAGES}
    return {
        stage: (float(found[f"{name}_sum"]), float(found[f"{name}_count"]))
        for stage, name in names.items()
    }


def settled(url: str) -> Stages:
    """Return the same once no request is under way any more."""
    before: Stages = {}
    while (now := read(url)) != before:
        before = now
        time.sleep(0.2)
    return now


def between(before: Stages, after: Stages) -> Stages:
    """Return what the requests between two readings spent."""
    return {
        stage: (after[stage][0] - before[stage][0], after[stage][1] - before[stage][1])
        for stage in STAGES
    }


def means_ms(*spent: Stages) -> dict[str, float]:
    """Return milliseconds per request by stage, over all readings together; 0 without requests."""
    means = {}
    for stage in STAGES:
        seconds, requests = map(sum, zip(*(each[stage] for each in spent), strict=True))
        means[stage] = seconds / requests * 1e3 if requests else 0.0
    return means
