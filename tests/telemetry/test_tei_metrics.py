"""The metrics under the names of Text Embeddings Inference."""

import re
from pathlib import Path

import httpx

from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.api.test_tei import COMPUTED, GOOD, metrics_of
from tests.support.clients import run

TEI_NAMES = """te_request_count te_request_success te_request_failure te_request_duration
    te_request_tokenization_duration te_request_queue_duration te_request_inference_duration
    te_queue_size te_batch_next_size te_batch_next_tokens""".split()


def test_metrics_have_the_names_of_tei_from_the_start() -> None:
    page = Metrics().render().decode()
    assert re.findall(r"^# HELP (te_\w+)", page, re.MULTILINE) == re.findall(
        r"^# TYPE (te_\w+)", page, re.MULTILINE
    )
    assert set(re.findall(r"^# TYPE (te_\w+)", page, re.MULTILINE)) == set(TEI_NAMES)
    documented = Path(__file__).parents[2] / "docs/en/reference/http.md"
    headings = documented.read_text(encoding="utf-8").splitlines()
    assert all(f"#### {name}" in headings for name in TEI_NAMES)


def test_metrics_of_tei_count_what_is_counted_anyway(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in COMPUTED:
            assert (await client.post(path, json=GOOD[path])).status_code == 200
        assert (await client.post("/embed", json={"texts": ["墨"]})).status_code == 200
        for path in ("/api/embed", "/v1/embeddings"):
            assert (await client.post(path, json={"input": "墨"})).status_code == 200
        assert (await client.post("/vectors", json={"text": "墨"})).status_code == 200
        await client.post("/", json={"inputs": [""]})
        await client.post("/", json={"inputs": 5})
        # Neither of these asks for vectors.
        await client.post("/tokenize", json={"inputs": "墨"})
        await client.get("/api/tags")
        page = (await client.get("/metrics")).text
        found = metrics_of(page)
        assert found["te_request_count"] == 10
        assert found["te_request_success"] == 8
        assert found['te_request_failure{err="400"}'] == 1
        assert found['te_request_failure{err="422"}'] == 1
        assert found["te_request_duration_count"] == 10
        for name in ("tokenization", "queue", "inference"):
            assert found[f"te_request_{name}_duration_count"] == 8
            assert found[f"te_request_{name}_duration_sum"] > 0
            assert found[f'te_request_{name}_duration_bucket{{le="+Inf"}}'] == 8
        assert found["te_queue_size"] == 0
        # One text on each of three paths, three of the comparison, and four in other forms.
        assert found["te_batch_next_size_sum"] == 10
        assert found["te_batch_next_tokens_sum"] == 3 * 4 + 11 + 4 * 3
        buckets = [
            value for name, value in found.items() if name.startswith("te_request_duration_b")
        ]
        assert buckets == sorted(buckets) and buckets[-1] == 10

    run(test, toy_model)
