"""Filters are made of the metadata that is there, and stand in the address."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from server.app import every_operation
from server.config import Config
from server.telemetry.metrics import Metrics
from tests.support.browser import PHONE, Page

PATHS = {each.path for each in every_operation(Config(), Metrics())}
pytestmark = pytest.mark.skipif("/metadata" not in PATHS, reason="filters need GET /metadata")


def filter_of(page: Page) -> object:
    """Return the filter in the address, or None."""
    query = parse_qs(urlsplit(page.driver.current_url).fragment.partition("?")[2])
    return json.loads(query["f"][0]) if "f" in query else None


def choose(page: Page, key: str) -> None:
    """Open the choice of this key."""
    page.until(lambda: page.all(".choice summary"))
    keys = page.texts(".choice summary")
    page.all(".choice summary")[keys.index(key)].click()
    page.until(lambda: page.all(".choice[open] input"))


def test_values_are_chosen_and_taken_back(page: Page) -> None:
    page.open("search?q=出差")
    page.settled()
    choose(page, "department")
    assert "财务" in page.text(".choice[open]") and "false" not in page.text(".choice[open]")
    page.click(".choice[open] input[data-value='\"人事\"']")
    page.until(lambda: filter_of(page) == {"department": {"$in": ["人事"]}})
    page.settled()
    page.until(lambda: page.texts(".column.dense .hit"))
    assert all("人事" in each for each in page.texts(".column.dense .hit"))
    assert page.axe() == []
    # The filter is part of the link, and holds for the list of documents too.
    page.click("#clear")
    page.until(lambda: page.text(".pager h2") == "6 documents")
    page.click(".filters > button")
    page.until(lambda: page.text(".pager h2") == "31 documents")
    assert filter_of(page) is None


def test_numbers_have_bounds(page: Page) -> None:
    page.open("search?q=出差")
    choose(page, "page")
    page.find(".choice[open] .bounds input").send_keys("20\n")
    page.until(lambda: filter_of(page) == {"page": {"$gte": 20}})
    page.settled()
    page.until(lambda: 0 < len(page.all(".column.dense .hit")) < 10)


def test_filters_fit_a_phone_and_close_when_something_else_is_touched(page: Page) -> None:
    page.open("search?q=出差", size=PHONE)
    for key in ("department", "file", "page", "year"):
        choose(page, key)
        width = page.script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], key
    page.click("#query")
    page.until(lambda: not page.all(".choice[open]"))


def test_filter_of_a_link_that_is_no_choice_is_shown_and_can_be_dropped(page: Page) -> None:
    page.open('search?q=出差&f={"nothing":{"$exists":true}}')
    page.settled()
    assert "nothing" in page.text(".filters .own")
    assert page.texts(".nothing")
    page.click(".filters > button")
    page.until(lambda: page.all(".hit"))
