"""A page in Debian's Chromium: opened, used by keyboard and pointer, looked at by axe-core, and stored as an image."""

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.fakes import PATIENCE_S

ROOT = Path(__file__).parents[2]
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = ROOT / "tests/web/js/node_modules/axe-core/axe.min.js"
# Where screenshots are stored, with SCREENSHOTS=1; other runs leave the tree as it is.
IMAGES = ROOT / "docs/images"
COLOURS = 192
DESK, PHONE = (1280, 800), (360, 740)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--force-color-profile=srgb",
)
# Characters of a language's browsers, as navigator.languages has them.
LANGUAGES = {"en": "en-US,en", "zh": "zh-CN,zh"}
# axe-core's impacts that a page must not have.
SERIOUS = ("serious", "critical")


@contextmanager
def launched(profile: Path) -> Iterator[Any]:
    """Start a browser without a window; skips the test where none is installed."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(PATIENCE_S)
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """One tab, without anything that an earlier test has stored in it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        self._agent = driver.execute_script("return navigator.userAgent")

    def open(
        self,
        state: str = "",
        *,
        language: str = "en",
        size: tuple[int, int] = DESK,
        dark: bool = False,
    ) -> None:
        """Load the page again, with an address such as "search?q=..."; wait until it shows what it found."""
        self.look(size, dark=dark)
        agent = {"userAgent": self._agent, "acceptLanguage": LANGUAGES[language]}
        self.driver.execute_cdp_cmd("Network.setUserAgentOverride", agent)
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#/{state}" if state else f"{self.url}/")
        self.until(lambda: self.all("main > *"))
        self.settled()

    def look(self, size: tuple[int, int], *, dark: bool = False) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        # Without motion, so that an image is never taken in the middle of one.
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def find(self, selector: str) -> Any:
        """Return the first element, once there is one."""
        return self.until(lambda: self.all(selector))[0]

    def text(self, selector: str) -> str:
        """Return the text of the first element; empty where there is none."""
        said = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.driver.execute_script(said, selector))

    def texts(self, selector: str) -> list[str]:
        said = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        return list(self.driver.execute_script(said, selector))

    def keys(self, *keys: str) -> None:
        """Press keys where the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def script(self, code: str, *given: Any) -> Any:
        return self.driver.execute_script(code, *given)

    def until(self, holds: Callable[[], Any]) -> Any:
        """Return what `holds` gives as soon as it is true; elements may be drawn again meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if found := holds():
                    return found
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < deadline, (
                f"it never came to hold; the page: {self.text('body')}"
            )
            time.sleep(0.02)

    def settled(self) -> None:
        """Wait until every search has answered."""
        self.until(lambda: not self.all('[aria-busy="true"], .waiting'))

    def complaints(self) -> list[str]:
        """Return what the browser's console has said since the last call, without refusals of requests."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        return [each for each in said if "Failed to load resource" not in each]

    def hosts(self) -> set[str]:
        """Return the hosts that were asked since the last call."""
        logged = self.driver.get_log("performance")
        messages = [json.loads(entry["message"])["message"] for entry in logged]
        urls = [
            urlsplit(message["params"]["request"]["url"])
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return {url.netloc for url in urls if url.scheme not in ("data", "chrome", "about")}

    def axe(self) -> list[str]:
        """Return what axe-core finds serious or critical, a line each."""
        if not AXE.is_file():
            pytest.skip("axe-core is not installed: make test-page installs it with npm")
        self.script(AXE.read_text(encoding="utf-8"))
        run = "const done = arguments[0]; axe.run().then(done, (e) => done({ failed: String(e) }))"
        found = self.driver.execute_async_script(run)
        assert "failed" not in found, found
        return [
            f"{each['impact']} {each['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]

    def shot(self, name: str) -> bytes:
        """Return an image of the page as a PNG; with SCREENSHOTS=1 it is stored for the documents."""
        self.script("document.activeElement?.blur()")
        image: bytes = self.driver.get_screenshot_as_png()
        if os.environ.get("SCREENSHOTS") == "1":
            IMAGES.mkdir(exist_ok=True)
            (IMAGES / f"page-{name}.png").write_bytes(_small(image))
        return image


def _small(image: bytes) -> bytes:
    """Return the image with fewer colours: a third of the bytes, and the eye sees no difference."""
    from PIL import Image

    made = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").quantize(COLOURS).save(made, "PNG", optimize=True)
    return made.getvalue()
