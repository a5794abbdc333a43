"""The views beside the search in a real browser: adding, collections, map, comparing and load."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from server.auth.keys import add_key, new_key
from tests.support.browser import DESK, PHONE, Page
from tests.support.processes import Server, serving

VIEWS = ("add", "collections", "map", "compare", "load")
ENTER, UP, RIGHT = "\ue007", "\ue013", "\ue014"
# What is there once a view has drawn what it shows.
DRAWN = {
    "add": ".drop",
    "collections": ".collections time",
    "map": ".stage canvas",
    "compare": ".cosine",
    "load": ".routes tbody td",
}
PAIR = json.dumps([["我有几天年假？", "query"], ["员工每年享有十五天带薪休假。", "document"]])
MANY = 'tr[data-name="many"]'
STATE = {"compare": f"?t={quote(PAIR)}"}


def opened(page: Page, view: str, state: str = "", **look: object) -> None:
    page.open(view + (state or STATE.get(view, "")), **look)  # type: ignore[arg-type]
    page.find(DRAWN[view])


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_in_the_way_of_anyone_in_any_view(page: Page, view: str) -> None:
    """axe-core finds nothing serious, light and dark, and nothing is wider than a phone."""
    for language, size, dark in (("en", DESK, False), ("zh", DESK, False), ("en", PHONE, True)):
        opened(page, view, language=language, size=size, dark=dark)
        assert page.axe() == [], (language, size, dark)
        wide = "return document.documentElement.scrollWidth > innerWidth"
        assert not page.script(wide), (language, size)
        if size == DESK and view not in ("add", "load"):
            page.shot(f"{view}-{language}")


# --- add --------------------------------------------------------------------------------------------


def test_text_is_added_and_found(page: Page, client: httpx.Client) -> None:
    client.post("/collections", json={"name": "pasted"})
    opened(page, "add", "?c=pasted")
    page.find("#text").send_keys("红色的苹果\n\n绿色的香蕉")
    page.click('[data-value="paragraphs"]')
    page.click(".pasting .primary")
    page.until(lambda: "2 documents stored" in page.text(".pasting"))
    page.until(lambda: page.all('a[href="#/search?c=pasted"].button'))
    assert client.post("/collections/pasted/documents/count", json={}).json() == {"count": 2}
    # The same again is stored already.
    page.find("#text").send_keys("红色的苹果")
    page.click(".pasting .primary")
    page.until(lambda: "1 unchanged" in page.text(".pasting"))


@pytest.mark.parametrize(
    ("language", "states", "place"),
    [
        ("en", ["2 documents stored, 1 row left out", "not stored", "1 document stored"], "line 3"),
        ("zh", ["已存入 2 篇文档, 略过 1 行", "未存入", "已存入 1 篇文档"], "第 3 行"),
    ],
)
def test_files_are_added_with_their_errors_by_line(
    page: Page, client: httpx.Client, tmp_path: Path, language: str, states: list[str], place: str
) -> None:
    (tmp_path / "天气.csv").write_text("text,year\n天气很好,2024\n,2023\n雨天,2022\n", "utf-8")
    (tmp_path / "bad.pdf").write_bytes(b"this is no PDF")
    (tmp_path / "note.md").write_text("# 标题\n\n正文", "utf-8")
    collection = f"files-{language}"
    client.post("/collections", json={"name": collection})
    opened(page, "add", f"?c={collection}", language=language)
    page.click("#check")
    page.find("#files").send_keys(str(tmp_path / "天气.csv"))
    page.until(lambda: "天气很好" in page.text(".file.done .preview"))
    count = f"/collections/{collection}/documents/count"
    assert client.post(count, json={}).json() == {"count": 0}
    opened(page, "add", f"?c={collection}", language=language)
    names = "\n".join(str(tmp_path / name) for name in ("天气.csv", "bad.pdf", "note.md"))
    page.find("#files").send_keys(names)
    page.until(lambda: len(page.all(".file.done, .file.failed")) == 3)
    assert page.texts(".file-state") == states
    assert page.texts(".errors li")[-1].startswith(place)
    assert "bad.pdf" in page.text(".file.failed .bad")
    assert client.post(count, json={}).json() == {"count": 3}
    assert page.axe() == []
    page.shot(f"add-{language}")


def test_file_that_is_dropped_is_added_and_one_that_waits_can_be_cancelled(
    page: Page, client: httpx.Client
) -> None:
    client.post("/collections", json={"name": "dropped"})
    opened(page, "add", "?c=dropped")
    page.script(
        """
        const data = new DataTransfer();
        const lines = Array.from({ length: 4000 }, (_, n) => `line ${n}`).join("\\n");
        data.items.add(new File([lines], "long.txt"));
        data.items.add(new File(["other"], "second.txt"));
        document.querySelector(".drop").dispatchEvent(
          new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        for (const each of [...document.querySelectorAll(".file button")].slice(1)) each.click();
        """
    )
    page.until(lambda: "cancelled" in page.text(".file.failed"))
    page.until(lambda: "4,000 documents stored" in page.text(".file.done"))
    ids = client.get("/collections/dropped/documents?limit=1").json()["documents"]
    assert ids[0]["text"] == "line 0"


def test_folder_that_is_dropped_is_added_and_what_is_skipped_is_said(
    page: Page, client: httpx.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    for n in range(120):
        (folder / f"part{n % 2}").mkdir(parents=True, exist_ok=True)
        (folder / f"part{n % 2}" / f"{n}.exe").write_bytes(b"x")
    # The same name twice, one that would be markup, and one that turns its direction.
    names = (
        "a/same.md",
        "b/same.md",
        "<img src=x onerror=alert(1)>.md",
        "\u202etxt.md",
        ".hidden.md",
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"# {name}", "utf-8")
    client.post("/collections", json={"name": "folder"})
    opened(page, "add", "?c=folder")
    place = page.script(
        "const { x, y } = document.querySelector('.drop').getBoundingClientRect(); return [x + 9, y + 9]"
    )
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": place[0], "y": place[1], "data": data}
        page.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)
    page.until(lambda: "4 of 4 files done" in page.text("p.dim[role=status]"))
    said = page.text("p.dim[role=status]")
    assert said.endswith("; 121 skipped: 1 hidden or temporary, 120 of another format")
    # A name that no id can hold is refused, and the others are stored.
    assert len(page.all(".file.done")) == 3
    found = client.get("/collections/folder/documents").json()["documents"]
    assert {each["id"] for each in found} >= {
        "folder\u2215a\u2215same.md",
        "folder\u2215b\u2215same.md",
    }
    assert page.axe() == []


def test_collection_that_was_deleted_elsewhere_leaves_the_list(
    page: Page, client: httpx.Client
) -> None:
    client.post("/collections", json={"name": "gone"})
    client.post("/collections/gone/documents", json={"documents": [{"text": "x"}]})
    page.open("search")
    assert "gone" in page.texts("#collection option")
    client.delete("/collections/gone").raise_for_status()
    page.script("location.hash = '#/search?c=gone'")
    page.until(lambda: page.all(".failure"))
    page.script("location.hash = '#/search'")
    page.until(lambda: "gone" not in page.texts("#collection option"))


# --- collections ------------------------------------------------------------------------------------


def test_collections_are_created_described_and_deleted_by_typing_their_name(
    page: Page, client: httpx.Client
) -> None:
    opened(page, "collections")
    row = page.until(lambda: "ago" in page.text(MANY) and page.text(MANY))
    assert "10,000" in row and "bge-small-zh-v1.5" in row
    page.click("#create")
    page.find("#name").send_keys("short-lived")
    page.find("#chunks").send_keys("200")
    page.click("dialog .primary")
    page.until(lambda: page.all('tr[data-name="short-lived"] .size'))
    assert client.get("/collections/short-lived/stats").json()["chunks"]["size"] == 200
    # One that exists is refused, and the dialog says so.
    page.click("#create")
    page.find("#name").send_keys(f"short-lived{ENTER}")
    assert "exists already" in page.until(lambda: page.text("dialog .failure"))
    page.click("dialog header button")
    page.click('tr[data-name="short-lived"] button')
    page.find("#confirm").send_keys("short")
    assert not page.find("dialog .danger").is_enabled()
    page.find("#confirm").send_keys("-lived")
    assert page.axe() == []
    page.click("dialog .danger")
    page.until(lambda: not page.all('tr[data-name="short-lived"]') and page.all("tr[data-name]"))
    assert client.get("/collections/short-lived").status_code == 404


# --- map --------------------------------------------------------------------------------------------


def test_map_is_read_by_keyboard_and_opens_documents(page: Page) -> None:
    opened(page, "map")
    assert "All 31 chunks" in page.text(".map .lead")
    assert page.texts(".legend li"), "coloured by a key of the metadata"
    page.script("document.querySelector('canvas').focus()")
    page.keys(RIGHT)
    first = page.until(lambda: page.text(".detail h2"))
    page.keys(UP)
    page.until(lambda: page.text(".detail h2") not in ("", first))
    chosen = page.text(".detail h2")
    page.keys(ENTER)
    page.until(lambda: page.text(".panel h2") == chosen)
    page.click("#panel-close")
    assert page.axe() == []


def test_map_lights_up_what_is_nearest_to_a_text(page: Page) -> None:
    opened(page, "map", f"?q={quote('电脑坏了找谁')}", language="zh")
    page.until(lambda: page.all(".nearest li"))
    assert "设备故障" in page.texts(".nearest button")[0]
    page.click(".nearest button")
    assert page.until(lambda: page.text(".detail .chunk"))
    page.script(
        "const by = document.querySelector('#colour');"
        "by.value = 'score'; by.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: page.all(".scale"))
    assert "by=score" in page.driver.current_url


def test_map_of_nothing_says_so_and_of_many_is_a_sample(page: Page) -> None:
    page.open("map?c=empty")
    assert "nothing to draw" in page.until(lambda: page.text(".stage .notice"))
    opened(page, "map", "?c=many")
    assert "2,000 of 10,000 chunks" in page.until(lambda: page.text(".map .lead"))


@pytest.mark.parametrize("view", ["map", "collections", "add", "load"])
def test_stored_text_never_runs_as_script(page: Page, view: str) -> None:
    opened(page, view, "?c=hostile")
    if view == "map":
        page.script("document.querySelector('canvas').focus()")
        for _ in range(4):
            page.keys(RIGHT)
        assert page.until(lambda: page.text(".detail h2"))
    assert page.script("return window.ran") is None


# --- compare ----------------------------------------------------------------------------------------


def test_texts_are_compared_as_one_types_and_have_a_link(page: Page) -> None:
    page.open("compare")
    page.click(".compare .row button:nth-of-type(2)")
    cosine = page.until(lambda: page.text(".cosine strong"))
    assert 0.3 < float(cosine) < 1
    page.click(".compare .row button")
    page.script("document.querySelectorAll('.text-card textarea')[2].focus()")
    page.keys("Paid vacation")
    page.until(lambda: len(page.all(".matrix tbody tr")) == 3)
    page.until(lambda: "Paid" in page.driver.current_url)
    page.driver.refresh()
    page.until(lambda: len(page.all(".matrix tbody tr")) == 3)
    assert page.texts(".matrix tbody tr:first-child td")[1] == cosine
    assert page.axe() == []


# --- load -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_load_shows_what_the_server_does_now(
    page: Page, client: httpx.Client, language: str
) -> None:
    opened(page, "load", language=language)
    line = "return document.querySelector('.spark .line')?.getAttribute('d') ?? ''"
    for n in itertools.count():
        client.post("/search", json={"query": f"年休假 {n}", "mode": "hybrid"})
        # Each reading adds a step to the line.
        if page.script(line).count("L") >= 4:
            break
    page.until(lambda: "/search" in page.text(".routes tbody"))
    assert not page.text('[data-tile="requests"] strong').startswith("0")
    assert "ms" in page.text('[data-tile="latency"] strong')
    page.shot(f"load-{language}")


def test_load_needs_its_scope(browser: object, toy_artifact: Path, tmp_path: Path) -> None:
    secret, key = new_key("reader", "search")
    add_key(tmp_path / "keys", key)
    with serving(toy_artifact, tmp_path, "--keys", str(tmp_path / "keys")) as guarded:
        page = Page(browser, guarded.url)
        page.open("load")
        page.find("#key").send_keys(f"{secret}\n")
        page.until(lambda: "“metrics”" in page.text("main"))
        assert page.texts(".views a") == ["Search", "Collections", "Map"]
