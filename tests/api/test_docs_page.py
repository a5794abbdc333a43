"""The page for people is one file, connects only to its own server, and works in a browser."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from server.api.web.docs import PAGE
from server.auth.keys import add_key, new_key
from server.inference.model import Model
from tests.api.test_openapi import described
from tests.support import processes
from tests.support.clients import ask
from tests.support.fakes import PATIENCE_S, eventually

ROUTES = [f"{method} {path}" for method, path, _ in described()]
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def test_page_loads_nothing_from_elsewhere() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"https?://\S+", page) == []
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,", "openapi.json"]
    assert not re.search(r"@import|url\(|innerHTML|insertAdjacentHTML|eval\(| style=| on\w+=", page)


def test_policy_allows_this_style_and_this_script_only(toy_model: Model) -> None:
    answer = ask(toy_model, "GET", "/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    for element in ("style", "script"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"


def test_page_has_every_sentence_in_both_languages() -> None:
    page = PAGE.read_text(encoding="utf-8")
    english, chinese = re.findall(r"^  (?:en|zh): \{ (.*) \},$", page, re.M)
    keys = re.findall(r'(?:^|", )(\w+): "', english)
    assert keys == re.findall(r'(?:^|", )(\w+): "', chinese)
    assert set(re.findall(r'word\("(\w+)"\)', page)) == set(keys)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--lang=en",
        "--window-size=1200,1000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.implicitly_wait(10)
    driver.set_page_load_timeout(PATIENCE_S)
    yield driver
    driver.quit()


def asked_of(browser: Any) -> set[str]:
    """Return the hosts to which the page has sent requests."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    # chrome: is the browser's own first tab.
    return {url.netloc for url in map(urlsplit, urls) if url.scheme not in ("data", "chrome")}


def test_page_works_in_a_browser(browser: Any, toy_artifact: Path, tmp_path: Path) -> None:
    def find(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    secret, key = new_key("page", "embed")
    add_key(tmp_path / "keys", key)
    with processes.serving(toy_artifact, tmp_path, "--keys", str(tmp_path / "keys")) as server:
        browser.get(f"{server.url}/docs")
        find("details.route")
        shown = browser.find_elements("css selector", "details.route")
        assert sorted(one.get_attribute("data-route") for one in shown) == sorted(ROUTES)
        # Each can be opened.
        browser.execute_script("for (const d of document.querySelectorAll('.route')) d.open = true")
        forms = "return document.querySelectorAll('.route form').length"
        eventually(lambda: browser.execute_script(forms) == len(ROUTES))
        assert "top_k" in find("#search table").text
        form = find("#embed form")
        assert "curl" in find("#embed .curl").text
        button, answer = form.find_element("css selector", "button"), find("#embed .answer")
        button.click()
        eventually(lambda: "unauthorized" in answer.text)
        # The browser itself logs a refusal.
        assert all("401" in entry["message"] for entry in browser.get_log("browser"))
        find("#key").send_keys(f"{secret}\n")
        button.click()
        eventually(lambda: "vectors" in answer.text)
        assert answer.text.startswith("200 OK")
        assert len(json.loads(answer.text.partition("\n\n")[2])["vectors"][0]) == 32
        browser.save_screenshot(str(tmp_path / "english.png"))
        find("#language").click()
        assert find("html").get_attribute("lang") == "zh"
        assert "发往别处" in find("main p").text
        browser.save_screenshot(str(tmp_path / "chinese.png"))
        assert browser.get_log("browser") == []
        assert asked_of(browser) == {f"{server.host}:{server.port}"}
