"""A real Prometheus loads the alerts, scrapes the real server under load and answers the dashboard."""

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.auth.keys import add_key, new_key
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import Server, serving
from tests.telemetry.test_monitoring import ALERTS, FOLDER, expressions

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PROMETHEUS and PROMTOOL),
        reason="prometheus and promtool are not on PATH (Debian: apt install prometheus)",
    ),
]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_the_example_are_valid() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", FOLDER / "alerts.yml")
    promtool("check", "config", FOLDER / "prometheus.yml")


# --- when alerts fire -----------------------------------------------------------------------------

LAWS, OTHERS = 'collection="laws"', 'collection="(others)"'
MAIN = 'database="main"'
STEADY = "0+60x200"
# A minute apart, in Prometheus' notation: a value and how often it follows.
WELL: Mapping[tuple[str, str], str] = {
    ("up", ""): "1x200",
    ("inkwell_ready", ""): "1x200",
    ("process_start_time_seconds", ""): "100x200",
    ("inkwell_lanes_busy", ""): "2x200",
    ("inkwell_batch_texts_count", ""): STEADY,
    ("inkwell_failed_batches_total", ""): "0x200",
    ("inkwell_hung_lanes_total", ""): "0x200",
    ("inkwell_queue_seconds_bucket", 'le="0.1"'): STEADY,
    ("inkwell_queue_seconds_bucket", 'le="5"'): STEADY,
    ("inkwell_queue_seconds_bucket", 'le="+Inf"'): STEADY,
    ("inkwell_refused_total", ""): "0x200",
    ("inkwell_requests_total", 'status="200"'): STEADY,
    ("inkwell_requests_total", 'status="500"'): "0x200",
    # Probes of a server that is stopping, or has a full disk.
    ("inkwell_requests_total", 'status="503"'): "0+12x200",
    ("inkwell_disk_free_bytes", ""): "80e9x200",
    ("inkwell_disk_bytes", ""): "100e9x200",
    ("inkwell_wal_bytes", LAWS): "16e6x200",
    ("inkwell_snapshot_behind_parts", LAWS): "900x200",
    ("inkwell_wal_bytes", OTHERS): "3e8x200",
    ("inkwell_snapshot_behind_parts", OTHERS): "30000x200",
    ("inkwell_recall_at_10", LAWS): "0.996x200",
    ("process_resident_memory_bytes", ""): "2e9x200",
    ("inkwell_memory_limit_bytes", ""): "4e9x200",
    ("inkwell_key_expiry_timestamp_seconds", ""): "+Inf",
    ("inkwell_certificate_expiry_timestamp_seconds", ""): "+Inf",
    ("inkwell_audit_lost_lines_total", ""): "0x200",
    ("inkwell_vector_database_up", MAIN): "1x200",
    # A database that is away for a minute now and then, as while it is updated.
    ("inkwell_outbox_oldest_seconds", MAIN): "0 30 0x200",
    ("inkwell_outbox_refused", MAIN): "0x200",
}
# For each alert: the minutes until it fires, and the series that differ.
GONE_WRONG: Mapping[str, tuple[int, Mapping[tuple[str, str], str]]] = {
    "InkwellDown": (2, {("up", ""): "0x200"}),
    "InkwellNotReady": (3, {("inkwell_ready", ""): "0x200"}),
    "InkwellRestarting": (25, {("process_start_time_seconds", ""): "0x5 300x5 600x5 900x200"}),
    "InkwellLanesStuck": (6, {("inkwell_batch_texts_count", ""): "7x200"}),
    "InkwellWaitHigh": (11, {("inkwell_queue_seconds_bucket", 'le="0.1"'): "0+50x200"}),
    "InkwellRefusing": (11, {("inkwell_refused_total", ""): "0+1x200"}),
    "InkwellFaults": (11, {("inkwell_requests_total", 'status="500"'): "0+1x200"}),
    "InkwellFailedBatches": (5, {("inkwell_failed_batches_total", ""): "0 0 1x200"}),
    "InkwellLaneHung": (5, {("inkwell_hung_lanes_total", ""): "0 0 1x200"}),
    "InkwellDiskLow": (11, {("inkwell_disk_free_bytes", ""): "9e9x200"}),
    "InkwellDiskFilling": (180, {("inkwell_disk_free_bytes", ""): "80e9-1e8x200"}),
    "InkwellLogGrowing": (31, {("inkwell_wal_bytes", LAWS): "3e8x200"}),
    "InkwellSnapshotOld": (61, {("inkwell_snapshot_behind_parts", LAWS): "30000x200"}),
    "InkwellRecallLow": (31, {("inkwell_recall_at_10", LAWS): "0.96x200"}),
    "InkwellMemoryHigh": (11, {("process_resident_memory_bytes", ""): "3.7e9x200"}),
    "InkwellKeyExpires": (1, {("inkwell_key_expiry_timestamp_seconds", ""): "1e6x200"}),
    "InkwellCertificateExpires": (
        1,
        {("inkwell_certificate_expiry_timestamp_seconds", ""): "1e6x200"},
    ),
    "InkwellAuditLost": (5, {("inkwell_audit_lost_lines_total", ""): "0 0 3x200"}),
    "InkwellDatabaseAway": (3, {("inkwell_vector_database_up", MAIN): "0x200"}),
    "InkwellOutboxOld": (11, {("inkwell_outbox_oldest_seconds", MAIN): "0+60x200"}),
    "InkwellOutboxRefused": (2, {("inkwell_outbox_refused", MAIN): "1x200"}),
}


def trial(name: str, minutes: int, wrong: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """Return a test for promtool: exactly this alert fires at that minute, or none if nothing is wrong."""
    firing = [name] if wrong else []
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {
                "series": f'{metric}{{job="inkwell",instance="a"{label and ","}{label}}}',
                "values": values,
            }
            for (metric, label), values in {**WELL, **wrong}.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{each}"}}', "value": 1} for each in firing
                ],
            }
        ],
    }


def test_each_alert_fires_alone_when_its_thing_goes_wrong_and_none_when_all_is_well(
    tmp_path: Path,
) -> None:
    assert list(GONE_WRONG) == [alert["alert"] for alert in ALERTS]
    trials = [trial("well", 180, {})]
    trials += [trial(name, minutes, wrong) for name, (minutes, wrong) in GONE_WRONG.items()]
    file = tmp_path / "trials.yml"
    content = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": trials,
    }
    # JSON is YAML too.
    file.write_text(json.dumps(content))
    assert "SUCCESS" in promtool("test", "rules", file)


# --- the dashboard --------------------------------------------------------------------------------


@contextlib.contextmanager
def prometheus(server: Server, secret: str, folder: Path) -> Iterator[httpx.Client]:
    """Run a Prometheus that scrapes the server every second; yield a client of its API."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / "alerts.yml")]
    (job,) = config["scrape_configs"]
    job["authorization"] = {"type": "Bearer", "credentials": secret}
    job["static_configs"] = [{"targets": [f"{server.host}:{server.port}"]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([str(PROMETHEUS), *flags], stdout=log, stderr=log)
    url = f"http://{address}"
    try:
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            eventually(lambda: answers(client))
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def answers(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.ConnectError):
        return client.get("/-/ready").status_code == 200
    return False


def ask(client: httpx.Client, expression: str) -> list[Any]:
    """Return the samples of an instant query."""
    reply = client.get("/api/v1/query", params={"query": expression})
    assert reply.status_code == 200, f"{expression}: {reply.text}"
    found = reply.json()["data"]["result"]
    assert isinstance(found, list)
    return found


def use(client: httpx.Client) -> None:
    """Use a little of everything that is counted."""
    client.post("/embed", json={"texts": ["墨池", "笔" * 99]})
    client.post("/embed", json={"texts": []})
    client.post("/search", json={"query": "墨"})
    client.get("/v1/models", headers={"authorization": "Bearer wrong"})
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 400")


def fill(client: httpx.Client) -> None:
    """Store enough vectors for codes, a snapshot and a measured recall."""
    for start in range(0, 12_000, 1500):
        documents = [{"id": str(n), "text": f"墨池 {n}"} for n in range(start, start + 1500)]
        client.post("/documents", json={"documents": documents}).raise_for_status()

    def compacted() -> bool:
        stats = client.get("/collections/default").json()
        return bool(stats["index"]["kind"] == "fastscan")

    eventually(compacted)


def scraped(client: httpx.Client) -> float:
    """Return the number of successful scrapes."""
    found = ask(client, 'sum(sum_over_time(up{job="inkwell"}[5m]))')
    return float(found[0]["value"][1]) if found else 0


# The test is too short for a probe.
NO_DATA_YET = "inkwell_recall_probe_seconds"


def test_dashboard_is_answered_and_no_alert_fires_under_load(
    toy_artifact: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    secret, key = new_key("prometheus", "embed,search,write,metrics")
    add_key(keys, key)
    flags = ("--keys", str(keys))
    with serving(toy_artifact, tmp_path, *flags) as server, server.client() as client:
        client.headers["authorization"] = f"Bearer {secret}"
        fill(client)
        with prometheus(server, secret, tmp_path) as asked:
            while scraped(asked) < 8:
                use(client)
            for expression in expressions():
                query = expression.replace("$job", "inkwell").replace("$instance", ".+")
                query = query.replace("$__rate_interval", "1m")
                if not query.startswith("label_values"):
                    assert ask(asked, query) or NO_DATA_YET in query, query
            rules = asked.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
            assert {rule["health"] for rule in rules} == {"ok"}
            assert len(rules) == len(ALERTS)
            assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
