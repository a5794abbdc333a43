"""The page around its views in a real browser: keys, refusals, a server that has gone, size and sources."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.auth.keys import add_key, new_key
from server.auth.quota import Quota
from tests.support.browser import Page
from tests.support.processes import Server, serving
from tests.web.conftest import page_of

ESCAPE = "\ue00c"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keys by name, and under "file" the file that has them."""
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    made = {"file": str(path)}
    for name, scopes, quota in (
        ("reader", "search", None),
        ("writer", "search,write", None),
        ("embedder", "embed", None),
        ("slow", "search", 6),
    ):
        made[name], key = new_key(name, scopes, quota=Quota(quota))
        add_key(path, key)
    return made


@pytest.fixture(scope="module")
def guarded(
    toy_artifact: Path,
    scorer_artifact: Path,
    secrets: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server with keys and a reranker."""
    folder = tmp_path_factory.mktemp("guarded")
    flags = ("--keys", secrets["file"], "--model", str(scorer_artifact))
    with serving(toy_artifact, folder, *flags) as found:
        with found.client() as client:
            client.headers["x-api-key"] = secrets["writer"]
            body = {"documents": [{"text": "one document"}, {"text": "another document"}]}
            client.post("/documents", json=body).raise_for_status()
        yield found


@pytest.fixture
def page(browser: Any, guarded: Server) -> Iterator[Page]:
    with page_of(guarded, browser) as found:
        yield found


def give(page: Page, secret: str) -> None:
    page.find("#key").clear()
    page.find("#key").send_keys(f"{secret}\n")


def test_page_asks_for_a_key_keeps_it_for_the_tab_and_forgets_it(
    page: Page, secrets: dict[str, str]
) -> None:
    page.open()
    page.find("dialog[open] #key")
    give(page, "ink_wrong")
    page.until(lambda: "does not know this key" in page.text("dialog .bad"))
    assert page.axe() == []
    give(page, secrets["reader"])
    page.until(lambda: page.all(".browse .hit"))
    assert not page.all("dialog")
    page.driver.refresh()
    page.until(lambda: page.all(".browse .hit"))
    assert page.script("return Object.keys(localStorage).length") == 0
    # This key may not write, so there is no view that does.
    assert not page.all('.views a[href^="#/add"]')
    page.click("#key-button")
    assert "reader" in page.text("dialog")
    page.click("dialog .row button:not(.primary)")
    page.until(lambda: page.all("dialog[open] #key"))
    assert page.script("return sessionStorage.length") == 0
    page.keys(ESCAPE)


def test_key_without_the_scope_is_answered_with_a_sentence(
    page: Page, secrets: dict[str, str]
) -> None:
    page.open(language="zh")
    give(page, secrets["embedder"])
    page.until(lambda: "search" in page.text("main .notice"))
    assert "无权打开" in page.text("main .notice")


def test_busy_server_is_asked_again_when_it_says_so(page: Page, secrets: dict[str, str]) -> None:
    page.open(language="en")
    give(page, secrets["slow"])
    page.until(lambda: page.all(".browse .hit, .failure"))
    page.open("search?q=document")
    page.until(lambda: page.all('[data-code="quota_exceeded"]'))
    said = page.text(".failure")
    assert "The server is busy. Next try in" in said
    # It counts down.
    page.until(lambda: page.text(".failure") != said)
    assert page.axe() == []


def test_hits_are_reranked_where_a_reranker_is_served(page: Page, secrets: dict[str, str]) -> None:
    page.open()
    give(page, secrets["reader"])
    page.until(lambda: page.all(".browse .hit"))
    page.open("search?q=document")
    plain = page.texts(".column.dense .score .figure")
    page.click("#rerank")
    page.until(lambda: page.texts(".column.dense .score .figure") not in ([], plain))
    page.settled()
    assert "reranker" in page.find(".column.dense .score").get_attribute("title")
    # Every column is in the reranker's order now.
    orders = [page.texts(f".column.{mode} .hit-title") for mode in ("dense", "hybrid", "lexical")]
    assert orders[0] == orders[1] == orders[2]
    assert "rerank=1" in page.driver.current_url


# The last one: it ends the server.
def test_server_that_has_gone_is_named(
    page: Page, secrets: dict[str, str], guarded: Server
) -> None:
    page.open(language="en")
    give(page, secrets["reader"])
    page.until(lambda: page.all(".browse .hit"))
    guarded.process.kill()
    guarded.wait()
    page.find("#query").send_keys("document")
    page.until(lambda: "does not answer" in page.text(".failure"))
    assert page.axe() == []
