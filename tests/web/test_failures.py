"""The page while its server restarts, is full or dies, while a key is revoked, and with much at once."""

import itertools
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from server.auth.keys import add_key, new_key
from server.auth.quota import Quota
from tests.support.browser import Page
from tests.support.fakes import eventually
from tests.support.processes import Server, serving
from tests.web.conftest import page_of

ENTER, ESCAPE = "\ue007", "\ue00c"
HITS = ".column .hit .rank"
DROP = """
    const data = new DataTransfer();
    for (const [name, text] of arguments[0]) data.items.add(new File([text], name));
    document.querySelector(".drop").dispatchEvent(
      new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
"""
# Waits of the page are a tenth as long from here on, and its requests are counted.
HURRIED = """
    const [every, after, ask] = [setInterval, setTimeout, fetch];
    window.setInterval = (act, ms) => every(act, ms / 10);
    window.setTimeout = (act, ms) => after(act, ms / 10);
    window.asked = 0;
    window.fetch = (...given) => { asked += 1; return ask(...given); };
"""


class Restarted:
    """A server that can be killed and started again, on the same port and with the same data."""

    def __init__(self, model: Path, folder: Path, *flags: str) -> None:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            port = str(chosen.getsockname()[1])
        self._make: Callable[[], Any] = lambda: serving(model, folder, "--port", port, *flags)
        self._running = ExitStack()
        self.server: Server = self._running.enter_context(self._make())

    def kill(self) -> None:
        self._running.close()

    def start(self) -> None:
        self.server = self._running.enter_context(self._make())


@pytest.fixture(scope="module")
def restarted(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    made = Restarted(toy_artifact, tmp_path_factory.mktemp("restarted"))
    with made.server.client() as client:
        documents = [{"id": f"{n}", "text": f"document {n}"} for n in range(30)]
        client.post("/documents", json={"documents": documents}).raise_for_status()
        for name in ("cut", "files"):
            client.post("/collections", json={"name": name}).raise_for_status()
    yield made
    made.kill()


@pytest.fixture
def page(browser: Any, restarted: Restarted) -> Iterator[Page]:
    with page_of(restarted.server, browser) as found:
        yield found


# --- the server goes and comes back -----------------------------------------------------------------


def test_page_goes_on_by_itself_after_the_server_was_restarted(
    page: Page, restarted: Restarted
) -> None:
    page.open("search?q=document")
    page.until(lambda: len(page.texts(HITS)) == 30)
    page.script(HURRIED)
    restarted.kill()
    page.find("#query").send_keys(" 7")
    page.until(lambda: "does not answer" in page.text(".column .failure"))
    # Many times in vain, three searches each.
    page.until(lambda: page.script("return asked") >= 18)
    # A view that was not loaded before.
    page.script("location.hash = '#/load'")
    page.until(lambda: "does not answer" in page.text("main > .failure"))
    page.driver.back()
    page.until(lambda: page.all(".column .failure"))
    restarted.start()
    page.until(lambda: len(page.texts(HITS)) == 30)
    assert not page.all(".failure")
    page.script("location.hash = '#/load'")
    page.find(".routes tbody td")
    assert (
        page.script("return getComputedStyle(document.querySelector('.tiles')).display") == "grid"
    )
    restarted.kill()
    page.until(lambda: "does not answer" in page.text(".load .failure"))
    restarted.start()
    page.until(lambda: not page.all(".failure"))
    line = "return document.querySelector('.spark .line')?.getAttribute('d').split('L').length ?? 0"
    page.until(lambda: page.script(line) >= 2)


def test_adding_goes_on_after_the_server_was_killed_and_claims_only_what_is_stored(
    page: Page, restarted: Restarted
) -> None:
    page.open("add?c=cut")
    page.script(HURRIED)
    long = "\n".join(f"line {n} " + "word " * 40 for n in range(1000))
    page.script(DROP, [["long.txt", long], ["after.txt", "one"]])
    page.until(lambda: "reading" in page.text(".file-state"))
    restarted.kill()
    page.until(lambda: "does not answer" in page.text(".file-state"))
    assert "stored" not in "".join(page.texts(".file-state"))
    # Text that is changed after it was refused is not sent by itself.
    page.find("#text").send_keys("half a sen")
    page.click(".pasting .primary")
    page.until(lambda: "does not answer" in page.text(".pasting .failure"))
    page.find("#text").send_keys("tence")
    assert not page.all(".pasting .failure")
    restarted.start()
    page.until(lambda: len(page.all(".file.done")) == 2)
    with restarted.server.client() as client:
        found = client.post("/collections/cut/documents/count", json={}).json()["count"]
    assert found == 1000 + 1
    # What was pasted is there again after other views.
    page.script("location.hash = '#/search?c=cut&q=line'")
    page.until(lambda: page.texts(HITS))
    page.driver.back()
    assert page.find("#text").get_attribute("value") == "half a sentence"
    assert len(page.all(".file.done")) == 2


# --- keys -------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    made = {"file": str(tmp_path / "keys.jsonl")}
    for name in ("first", "second"):
        made[name], key = new_key(name, "search,write,embed", quota=Quota(None))
        add_key(tmp_path / "keys.jsonl", key)
    return made


def revoke(server: Server, file: str, name: str, secret: str) -> None:
    path = Path(file)
    kept = [line for line in path.read_text().splitlines() if f'"{name}"' not in line]
    path.write_text("\n".join(kept) + "\n")
    server.process.send_signal(signal.SIGHUP)
    with server.client() as client:
        client.headers["x-api-key"] = secret
        eventually(lambda: client.get("/key").status_code == 401)


def give(page: Page, secret: str) -> None:
    page.find("dialog[open] #key").clear()
    page.find("dialog[open] #key").send_keys(secret + ENTER)
    page.until(lambda: not page.all("dialog[open]"))


def test_key_that_is_revoked_is_asked_for_and_each_tab_has_its_own(
    browser: Any, toy_artifact: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    with (
        serving(toy_artifact, tmp_path, "--keys", keys["file"]) as server,
        page_of(server, browser) as page,
    ):
        with server.client() as client:
            client.headers["x-api-key"] = keys["first"]
            client.post("/documents", json={"documents": [{"text": "document"}]})
        page.open("search?q=document")
        # Who closes the dialog has a way back to it.
        page.find("dialog[open] #key").send_keys(ESCAPE)
        page.click(".failure button")
        give(page, keys["first"])
        page.until(lambda: len(page.texts(HITS)) == 3)
        first = page.driver.current_window_handle
        page.driver.switch_to.new_window("tab")
        second = page.driver.current_window_handle
        page.driver.get(f"{page.url}/#/add")
        give(page, keys["second"])
        page.find(".drop")
        page.find("#text").send_keys("a text that nobody wants to write twice")
        revoke(server, keys["file"], "second", keys["second"])
        page.script(DROP, [[f"{n}.txt", f"file {n}"] for n in range(3)])
        page.find("dialog[open] #key")
        assert "In use" not in page.text("dialog[open]")
        assert page.axe() == []
        page.driver.switch_to.window(first)
        page.find("#query").send_keys(" again")
        page.until(lambda: "again" in page.driver.current_url)
        page.settled()
        assert not page.all("dialog[open]") and len(page.texts(HITS)) >= 2
        page.driver.switch_to.window(second)
        give(page, keys["first"])
        page.until(lambda: len(page.all(".file.done")) == 3)
        assert page.find("#text").get_attribute("value").startswith("a text")
        page.click(".pasting .primary")
        page.until(lambda: "1 document stored" in page.text(".pasting"))
        page.driver.close()
        page.driver.switch_to.window(first)


# --- a full queue -----------------------------------------------------------------------------------


@contextmanager
def flooded(server: Server, clients: int = 12) -> Iterator[None]:
    """Keep a server's queue full with single texts of many clients."""
    ended = threading.Event()
    texts = itertools.count()

    def work() -> None:
        with server.client() as client:
            while not ended.is_set():
                client.post("/embed", json={"texts": [f"{next(texts)} " + "word " * 50]})

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_queue_that_is_full_is_named_and_the_page_tries_again(
    browser: Any, toy_artifact: Path, tmp_path: Path
) -> None:
    flags = ("--interactive-queue-tokens", "64", "--query-cache-bytes", "0")
    with (
        serving(toy_artifact, tmp_path, *flags) as server,
        page_of(server, browser) as page,
    ):
        with server.client() as client:
            client.post("/documents", json={"documents": [{"text": "document"}]})
        page.open("search")
        with flooded(server):
            for n in itertools.count():
                page.find("#query").send_keys(f"a{n}")
                page.until(lambda n=n: page.driver.current_url.endswith(f"a{n}"))  # type: ignore[misc]
                page.settled()
                if page.all('[data-code="overloaded"]'):
                    break
            assert "The server is busy. Next try in" in page.text(".failure p")
            assert server.metric("errors_total", code="overloaded") > 0
        page.until(lambda: not page.all(".failure") and len(page.texts(HITS)) >= 2)


# --- much at once -----------------------------------------------------------------------------------


def test_two_hundred_files_are_added(page: Page, restarted: Restarted) -> None:
    page.open("add?c=files")
    page.script(DROP, [[f"{n}.txt", f"file {n}"] for n in range(200)])
    page.until(lambda: len(page.all(".file.done")) == 200)
    assert "200 of 200" in page.text("p.dim[role=status]")
    page.click('.views a[href^="#/search"]')
    page.until(lambda: page.text(".pager h2").startswith("200 "))


def test_document_of_ten_megabytes_is_shown(page: Page, restarted: Restarted) -> None:
    # Long words are quick to read for the model.
    text = ("😀" + "w" * 1021 + " ") * 10_240
    with restarted.server.client() as client:
        client.post("/collections", json={"name": "large", "chunks": None}).raise_for_status()
        body = {"documents": [{"id": "large", "text": text, "title": "A large one"}]}
        client.post("/collections/large/documents", json=body).raise_for_status()
    page.open("search?c=large&q=ww")
    page.until(lambda: page.texts(HITS))
    page.click(".column.dense .hit a")
    shown = page.until(lambda: page.text(".panel .text"))
    assert shown.startswith("😀www") and len(shown) < 50_000
    page.click(".panel button.link:not([hidden])")
    page.until(lambda: len(page.text(".panel .text")) > len(shown))
    assert page.axe() == []


# --- back and forward -------------------------------------------------------------------------------


def test_back_and_forward_lead_through_views_and_searches(page: Page, restarted: Restarted) -> None:
    # subtle: a tab keeps 50 addresses, and a full one forgets those first that no person chose, as these.
    first_tab = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        lead_back_and_forward(page)
    finally:
        page.driver.close()
        page.driver.switch_to.window(first_tab)


def lead_back_and_forward(page: Page) -> None:
    page.open("search?q=document+1")
    page.until(lambda: page.texts(HITS))
    steps = [
        "search?q=document+2&mode=lexical",
        "compare?t=" + quote('[["one","query"],["two","query"]]'),
        "compare?t=" + quote('[["three","query"],["four","query"]]'),
        "search?q=document+3&n=5",
        "collections",
    ]
    shown = {
        "collections": lambda: page.all(".collections time"),
        steps[3]: lambda: (
            value("#query") == "document 3"
            and len(page.texts(HITS)) == 15
            and value("#depth") == "5"
        ),
        steps[2]: lambda: value("textarea") == "three" and page.all(".cosine"),
        steps[1]: lambda: value("textarea") == "one" and page.all(".cosine"),
        steps[0]: lambda: value("#query") == "document 2" and len(page.texts(HITS)) == 10,
        "search?q=document+1": lambda: (
            value("#query") == "document 1" and len(page.texts(HITS)) == 30
        ),
    }

    def value(selector: str) -> Any:
        return page.script("return document.querySelector(arguments[0])?.value", selector)

    for step in steps:
        page.script("location.hash = '#/' + arguments[0]", step)
        page.until(shown[step])
    *others, first = shown.values()
    for holds in others:
        page.until(holds)
        page.driver.back()
    page.until(first)
    for holds in others[::-1]:
        page.driver.forward()
        page.until(holds)
    # A dialog goes with its view.
    page.click("#create")
    page.find("dialog[open] #name")
    page.driver.back()
    page.until(lambda: not page.all("dialog"))
