"""The built manual: nothing from elsewhere, every link leads somewhere, and it works in a browser.

`make test-docs` builds it first.
"""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from server.api.web.manual import PACKED
from tests.support import processes
from tests.support.fakes import eventually
from tests.support.manual import builder

pytestmark = [pytest.mark.slow, pytest.mark.docs]
SITE = processes.ROOT / "build/manual"
MODEL = processes.ROOT / "models/bge-small-zh-v1.5/onnx-int8"
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# Installed by `make test-page`.
AXE = processes.ROOT / "tests/web/js/node_modules/axe-core/axe.min.js"
# What a browser loads by itself, by element and attribute.
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """A page: ids, links, what it loads, and what a policy without exceptions would block."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.blocked: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if tag == "a" and name == "href" and value:
                self.links.append(value)
            if (tag, name) in LOADED and value:
                self.loaded.append(value)
            if name == "style" or name.startswith("on"):
                self.blocked.append(f"{tag} {name}")


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    if not SITE.is_dir():
        pytest.skip("build it with `make manual`")
    return {path: Page(path) for path in sorted(SITE.rglob("*.html"))}


def test_every_page_is_built_in_its_language(pages: dict[Path, Page]) -> None:
    wanted = {SITE / name.replace(".md", ".html") for name, _ in builder().pages()}
    assert wanted <= pages.keys()
    for language, code in (("en", "en"), ("zh", "zh-CN")):
        assert f'lang="{code}"' in pages[SITE / language / "index.html"].text


def test_pages_load_nothing_from_another_host(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        for address in page.loaded:
            assert not urlsplit(address).netloc and urlsplit(address).scheme in ("", "data"), (
                page.path,
                address,
            )
            if not address.startswith(("data:", "#")):
                assert (page.path.parent / urlsplit(address).path).is_file(), (page.path, address)
    for style in SITE.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "@import" not in text
        for address in re.findall(r"url\(['\"]?([^)'\"]{1,40})", text):
            assert address.startswith("data:") or (style.parent / address).is_file(), address


def test_pages_need_no_exception_from_the_policy(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        assert page.blocked == [], page.path


def test_links_and_anchors_lead_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for page in pages.values():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            anchor = unquote(parts.fragment)
            if target not in pages or (anchor and anchor not in pages[target].ids):
                broken.append((page.path.relative_to(SITE).as_posix(), link))
    assert broken == []


def test_every_page_leads_to_its_twin(pages: dict[Path, Page]) -> None:
    twins = {"en": "zh", "zh": "en"}
    for path, page in pages.items():
        language, _, name = path.relative_to(SITE).as_posix().partition("/")
        if language in twins and not name.startswith(("project/", "search")):
            (found,) = re.findall(r'<p class="language"><a href="([^"]+)"', page.text)
            assert (path.parent / found).resolve() == SITE / twins[language] / name, path


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not PACKED.is_file():
        pytest.skip("build it with `make manual`")
    with processes.serving(MODEL, tmp_path_factory.mktemp("served")) as running:
        yield running.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": "zh-CN,zh"})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def complaints(browser: Any) -> list[str]:
    """Return what the browser logged, but for what a page itself writes."""
    return [each["message"] for each in browser.get_log("browser") if each["level"] != "INFO"]


def test_browser_is_led_to_its_language(browser: Any, server: str) -> None:
    browser.get(f"{server}/manual")
    eventually(lambda: browser.current_url == f"{server}/manual/zh/index.html")
    assert complaints(browser) == []


@pytest.mark.parametrize(
    ("language", "words", "page"),
    [
        ("zh", "量化的模型文件", "readme.html"),
        ("zh", "缓存", ".html"),
        # Two words without a blank, which stand apart on the page.
        ("zh", "备份恢复", "how-to/operate.html"),
        ("en", "quotas", "how-to/access.html"),
        ("en", "人工智能正在改变世界", "reference/search.html"),
    ],
)
def test_search_finds_chinese_and_english(
    browser: Any, server: str, language: str, words: str, page: str
) -> None:
    browser.get(f"{server}/manual/{language}/search.html?q={words}")
    eventually(lambda: browser.find_elements("css selector", "#search-results li a"))
    found = [
        each.get_attribute("href")
        for each in browser.find_elements("css selector", "#search-results li a")
    ]
    assert any(page in address for address in found), found
    assert complaints(browser) == []


def test_page_switches_language_and_theme_and_fits_a_telephone(browser: Any, server: str) -> None:
    browser.set_window_size(360, 740)
    browser.get(f"{server}/manual/en/reference/settings.html")
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    browser.find_element("css selector", ".theme-toggle-header .theme-toggle").click()
    assert browser.execute_script("return document.body.dataset.theme") in ("light", "dark")
    browser.find_element("css selector", ".language a").click()
    eventually(lambda: "/manual/zh/" in browser.current_url)
    assert complaints(browser) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", ["zh/index", "en/reference/http", "zh/how-to/size-machines"])
def test_pages_have_nothing_serious_for_axe(
    browser: Any, server: str, page: str, theme: str
) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: `make test-page` installs it")
    browser.set_window_size(1280, 850)
    browser.get(f"{server}/manual/{page}.html")
    browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
    browser.refresh()
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert [each["id"] for each in serious] == []
