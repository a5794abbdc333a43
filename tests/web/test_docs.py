"""The page of the API in a real browser: it begins with a request to try, and speaks one language throughout."""

import json

import pytest

from tests.api.test_docs_page import ROUTES
from tests.support.browser import DESK, PHONE, Page

# Routes that no model of this server can answer.
UNSERVED = ("rerank", "ranking", "score", "predict", "embed_sparse", "embed_all")


def open_docs(page: Page, language: str, size: tuple[int, int] = DESK, dark: bool = False) -> None:
    page.open(language=language, size=size, dark=dark)
    page.driver.get(f"{page.url}/docs")
    page.find("details.route")


def test_first_thing_is_a_request_that_is_answered(page: Page) -> None:
    open_docs(page, "en")
    assert page.script("return document.querySelector('main > *').id") == "try"
    assert "/search" in page.text("#try .curl")
    page.click("#try button.primary")
    page.until(lambda: page.text("#try .status").startswith("200"))
    assert json.loads(page.text("#try .answer"))["hits"]
    page.script("""
        const choice = document.getElementById("route");
        choice.value = "embed";
        choice.dispatchEvent(new Event("change"));
    """)
    page.click("#try button.primary")
    page.until(lambda: "vectors" in page.text("#try .answer"))
    page.find("#try textarea").clear()
    page.find("#try textarea").send_keys("{")
    page.click("#try button.primary")
    page.until(lambda: page.text("#try .status").startswith("400"))


def test_routes_are_those_that_this_server_answers(page: Page) -> None:
    open_docs(page, "en")
    shown = page.script(
        "return [...document.querySelectorAll('.route')].map((each) => each.dataset.route)"
    )
    assert sorted(shown) == sorted(
        each for each in ROUTES if not any(name in each for name in UNSERVED)
    )
    page.script("document.getElementById('search').open = true")
    page.until(lambda: page.all("#search table"))
    assert "top_k" in page.text("#search") and "= null" not in page.text("#search")


def test_chinese_page_has_no_english_sentence(page: Page) -> None:
    open_docs(page, "zh")
    page.script("for (const each of document.querySelectorAll('.route')) each.open = true")
    page.until(lambda: page.script("return document.querySelectorAll('.route form').length > 40"))
    said = page.script("""
        const kept = document.querySelector("main").cloneNode(true);
        for (const each of kept.querySelectorAll("code, pre, textarea, kbd")) each.remove();
        return kept.textContent;
    """)
    words = [each for each in said.split() if each.isascii() and each.isalpha() and each.islower()]
    # What is left are the names of formats and fields.
    assert "the" not in words and "of" not in words and "is" not in words, words


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_page_of_the_api_has_nothing_serious_for_axe(
    page: Page, language: str, size: tuple[int, int]
) -> None:
    open_docs(page, language, size, dark=size == PHONE)
    page.script("document.getElementById('list_documents').open = true")
    page.click("#try button.primary")
    page.until(lambda: page.text("#try .status").startswith("200"))
    assert page.axe() == []
    width = page.script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    if size == DESK:
        page.shot(f"docs-{language}")
