"""What the search view offers beside its hits: counts, more like a hit, why a hit is here, the next hits."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.browser import DESK, PHONE, Page
from tests.support.processes import Server

VALUE = ".counts button[data-key=department]"


def address(page: Page) -> dict[str, str]:
    query = parse_qs(urlsplit(page.driver.current_url).fragment.partition("?")[2])
    return {key: values[0] for key, values in query.items()}


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_values_are_counted_beside_the_hits_and_filter_them(
    page: Page, server: Server, size: tuple[int, int]
) -> None:
    page.open("search?q=加班&mode=lexical", size=size)
    page.settled()
    assert not page.find(".counts").is_displayed()
    page.until(lambda: page.all("#counts"))
    page.click("#counts")
    page.until(lambda: page.all(VALUE))
    body = {"query": "加班", "mode": "lexical", "facets": ["department"]}
    with server.client() as client:
        (facet,) = client.post("/search", json=body).json()["facets"]
    counted = {each["value"]: each["documents"] for each in facet["values"]}
    assert len(counted) > 1
    shown = {json.loads(each.get_attribute("data-value")): each.text for each in page.all(VALUE)}
    assert shown == {value: f"{value}\n{number}" for value, number in counted.items()}
    assert "with these words" in page.text(".counts")
    width = page.script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    value = next(iter(counted))
    page.click(f"{VALUE}[data-value='{json.dumps(value, ensure_ascii=False)}']")
    page.until(lambda: page.all(f"{VALUE}[aria-pressed=true]"))
    page.settled()
    assert json.loads(address(page)["f"]) == {"department": {"$in": [value]}}
    page.until(lambda: len(page.all(".hit")) == counted[value])
    page.click(f"{VALUE}[aria-pressed=true]")
    page.until(lambda: "f" not in address(page))
    page.until(lambda: len(page.all(VALUE)) == len(counted))
    if size == DESK:
        assert page.axe() == []


def test_counts_are_part_of_a_link_and_say_what_they_count(page: Page) -> None:
    page.open("search?q=加班&mode=dense&counts=1", language="zh")
    page.until(lambda: page.all(VALUE))
    assert "全部文档" in page.text(".counts")
    page.click("#counts")
    page.until(lambda: "counts" not in address(page))
    page.settled()
    assert not page.find(".counts").is_displayed()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_documents_like_a_hit_are_a_search_of_their_own(
    page: Page, server: Server, language: str
) -> None:
    page.open("search?q=年休假", language=language)
    page.settled()
    hit = page.find(".column.hybrid .hit")
    id, title = hit.get_attribute("data-id"), page.text(".column.hybrid .hit .hit-title")
    page.click(".column.hybrid .hit .acts button")
    page.until(lambda: address(page).get("like") == id)
    page.settled()
    assert title in page.text(".brings") and page.find("#query").get_attribute("value") == ""
    with server.client() as client:
        hits = client.post("/search", json={"like": {"ids": [id]}}).json()["hits"]
    ids = [each.get_attribute("data-id") for each in page.all(".column.dense .hit")]
    assert ids == [each["id"] for each in hits] and id not in ids
    assert len(page.all(".column")) == 1
    assert page.axe() == []
    # A link shows the same; typing begins another search.
    page.driver.refresh()
    page.until(lambda: len(page.all(".hit")) == len(ids))
    page.find("#query").send_keys("病假")
    page.until(lambda: "like" not in address(page) and len(page.all(".column")) == 3)
    page.driver.back()
    page.until(lambda: address(page).get("q") == "年休假")
    page.settled()


def test_a_hit_says_why_it_is_here(page: Page, server: Server) -> None:
    page.open("search?q=加班 申请")
    page.settled()
    with server.client() as client:
        body = {"query": "加班 申请", "mode": "hybrid", "explain": True}
        first = client.post("/search", json=body).json()["hits"][0]
    explanation = first["explanation"]
    page.click(".column.hybrid .hit .why summary")
    page.until(lambda: page.all(".column.hybrid .terms li"))
    said = page.text(".column.hybrid .reasons")
    assert f"cosine {explanation['cosine']:.3f}" in said
    assert f"Words: {explanation['words']['share']:.3f}" in said
    assert f"give {first['score']:.3f}" in said
    terms = [each.text for each in page.all(".column.hybrid .terms .matched bdi")]
    assert terms == [each["term"] for each in explanation["words"]["terms"] if each["matched"]]
    assert page.axe() == []
    # By meaning there are no words, and the document does not open.
    page.click(".column.dense .hit .why summary")
    page.until(lambda: page.texts(".column.dense .reasons p"))
    assert len(page.all(".column.dense .reasons > *")) == 1
    assert not page.all(".panel") and "doc" not in address(page)


def test_next_hits_come_behind_those_that_are_there(page: Page, server: Server) -> None:
    page.open("search?c=many&q=row&n=20&mode=lexical")
    page.settled()
    page.click(".more")
    page.until(lambda: len(page.all(".hit")) == 40)
    body = {"query": "row", "mode": "lexical", "top_k": 40}
    with server.client() as client:
        hits = client.post("/collections/many/search", json=body).json()["hits"]
    assert [each.get_attribute("data-id") for each in page.all(".hit")] == [h["id"] for h in hits]
    here = "return document.activeElement.closest('.hit').querySelector('.rank').innerText"
    assert page.script(here) == "21"
    # The last ones, and then no more are offered.
    page.open("search?q=加班&n=20&mode=dense")
    page.settled()
    page.click(".more")
    page.until(lambda: len(page.all(".hit")) == 31)
    assert not page.all(".more")


def test_values_and_terms_of_strangers_are_text(page: Page) -> None:
    page.open("search?c=hostile&q=hostile&counts=1")
    page.settled()
    page.script("for (const each of document.querySelectorAll('.why')) each.open = true")
    page.until(lambda: all(each.text for each in page.all(".why[open] .reasons")))
    assert page.script("return window.ran === undefined")
    turning = "return /[\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)"
    assert not page.script(turning)
    assert page.script("return document.querySelectorAll('main img, main script').length") == 0
