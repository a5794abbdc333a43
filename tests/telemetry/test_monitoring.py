"""The dashboard and the alerts use existing metrics, cover all of them, and are in both languages."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.support.clients import run

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
ALERTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))[
    "groups"
][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Metrics that Prometheus itself makes for each target.
OWN = {"up"}


def expressions() -> Iterator[str]:
    """Yield the expressions of all panels and variables of the dashboard."""
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        yield from filter(None, [variable.get("definition")])


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:inkwell|process|te)_\w+|\bup\b", expression))


@pytest.fixture(scope="module")
def page(toy_model: Model) -> str:
    """Return the metrics page of a server that has done a little of everything."""
    pages: list[str] = []

    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/embed", json={"texts": ["墨池"]})
        await client.post("/documents", json={"documents": [{"id": "a", "text": "墨池"}]})
        await client.post("/search", json={"query": "墨"})
        pages.append((await client.get("/metrics")).text)

    run(test, toy_model)
    return pages[0]


def names(page: str) -> set[str]:
    """Return the names of all series, and of families without series yet."""
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    found = set(re.findall(r"^([a-z_]+)", page, re.MULTILINE)) | set(families)
    for family, kind in families.items():
        if kind == "histogram":
            found |= {f"{family}_{part}" for part in ("bucket", "sum", "count")}
    return found


def test_every_expression_asks_for_metrics_that_exist(page: str) -> None:
    known = names(page) | OWN
    for expression in (*expressions(), *(alert["expr"] for alert in ALERTS)):
        assert metrics_in(expression) and metrics_in(expression) <= known, expression


def test_everything_that_is_counted_is_shown() -> None:
    rendered = Metrics().render().decode()
    counted = {
        name
        for name in re.findall(r"^# TYPE (inkwell_\w+) ", rendered, re.MULTILINE)
        if not name.endswith("_created")
    }
    shown = "\n".join(expressions())
    assert "inkwell_requests_total" in counted
    assert {name for name in counted if name not in shown} == set()


def test_panels_have_titles_in_both_languages_and_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert CHINESE.search(panel["title"]) and re.search("[A-Za-z]", panel["title"])
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_panel_takes_the_data_source_and_the_instances_that_are_chosen() -> None:
    chosen = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert chosen == {"datasource", "job", "instance"}
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            selectors = re.findall(r"(?:inkwell|process)_\w+(\{[^}]*\})?", target["expr"])
            assert all('job="$job",instance=~"$instance"' in each for each in selectors)


def test_alerts_say_how_urgent_they_are_in_both_languages_and_what_to_do() -> None:
    document = (FOLDER.parents[1] / "docs/en/how-to/monitoring.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(Inkwell\w+)` \| (\w+) \|", document, re.MULTILINE)
    assert listed == [(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS]
    for alert in ALERTS:
        said = alert["annotations"]
        assert not CHINESE.search(said["summary"]) and CHINESE.search(said["summary_zh"])
