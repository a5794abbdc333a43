"""How long after the last key does the search page show its first hit?

    python -m benchmarks.page [--texts FILE] [--count 64000] [--typed 30] [--data FOLDER]

A server with the shipped model, and Debian's Chromium without a window on the same machine. Each query is
typed key by key, 80 ms apart; the time runs from the browser's own stamp of the last key to the frame that
shows the first hit of exactly that query, so it includes the pause in which the page waits for another key.
`all` is the time until all three columns have answered. FILE: JSON lines with "text", also .gz, or a JSON
list; without it, texts with the lengths of law articles. Queries are pieces of ten characters of the texts.
FOLDER: a data folder that holds these documents already; without it they are indexed first. One JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.connection import ask
from benchmarks.ingest import texts_of
from benchmarks.serve import index, server
from server.system.output import until_reader_leaves

KEY_S = 0.08
PIECE = 10
PATIENCE_S = 30
BROWSER, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
# Resolves with milliseconds since the last key: of the first column that shows hits of the query, and of all.
WATCH = """
window.lastKey = 0;
document.getElementById("query").addEventListener("input", (event) => { window.lastKey = event.timeStamp; }, true);
window.watched = (query) => new Promise((resolve) => {
  let first = 0;
  const look = () => {
    const asked = new URLSearchParams(location.hash.split("?")[1]).get("q") === query;
    const hits = ".column:not([aria-busy]) .hits:not(.waiting) .hit:first-child";
    const done = asked ? document.querySelectorAll(hits).length : 0;
    if (done && !first) first = performance.now() - window.lastKey;
    if (done === 3) resolve([first, performance.now() - window.lastKey]);
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""


def main() -> None:
    arguments = _arguments()
    texts = texts_of(arguments.texts, arguments.count)
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data or _indexed(arguments.model, texts, Path(scratch))
        with server(arguments.model, data) as (url, _, _):
            stored = sum(each["documents"] for each in ask(f"{url}/collections")["collections"])
            with _browser(Path(scratch)) as driver:
                times = np.array(_times(driver, url, _queries(texts, arguments.typed)))
    line = {"case": "page", "documents": stored, "queries": len(times), "key_ms": 1000 * KEY_S}
    for name, column in (("first_ms", times[:, 0]), ("all_ms", times[:, 1])):
        found = np.percentile(column, (50, 95, 100))
        line[name] = dict(
            zip(("p50", "p95", "max"), (round(float(ms)) for ms in found), strict=True)
        )
    machine.show(line, arguments)


def _indexed(model: Path, texts: Sequence[str], scratch: Path) -> Path:
    """Index the texts; return the data folder."""
    file = scratch / "texts.jsonl"
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    file.write_text("\n".join(lines), encoding="utf-8")
    index(model, file, scratch / "data")
    return scratch / "data"


def _queries(texts: Sequence[str], number: int) -> list[str]:
    random = np.random.default_rng(1)
    long = [text for text in texts if len(text) > 3 * PIECE]
    chosen = (long[place] for place in random.integers(0, len(long), number))
    return ["".join(text[PIECE : 2 * PIECE].split()) for text in chosen]


@contextmanager
def _browser(scratch: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={scratch / 'profile'}", "--window-size=1280,800"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


def _times(driver: Any, url: str, queries: Sequence[str]) -> list[tuple[float, float]]:
    """Return milliseconds to the first hit and to all columns, for each query."""
    driver.get(url)
    driver.implicitly_wait(PATIENCE_S)
    field = driver.find_element("css selector", "#query")
    driver.find_element("css selector", ".browse .hit")
    driver.execute_script(WATCH)
    found = []
    for query in queries:
        field.clear()
        for character in query[:-1]:
            field.send_keys(character)
            time.sleep(KEY_S)
        driver.execute_script("window.shown = window.watched(arguments[0])", query)
        field.send_keys(query[-1])
        first, whole = driver.execute_async_script("window.shown.then(arguments[0])")
        found.append((first, whole))
    return found


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--texts", type=Path, help="JSON lines with text, or a JSON list")
    options.add_argument("--count", type=int, default=64_000, help="documents")
    options.add_argument("--typed", type=int, default=30, help="queries")
    options.add_argument("--data", type=Path, help="a data folder that has the documents")
    found = options.parse_args()
    if not Path(BROWSER).exists():
        sys.exit(f"{BROWSER} is missing: apt install chromium chromium-driver")
    return found


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
