"""The search view in a real browser: as a person uses it, by keyboard, in both languages, and with hostile texts."""

from urllib.parse import quote
from zipfile import ZipFile

import pytest

from server.api.web.manual import PACKED
from tests.support.browser import DESK, PHONE, Page
from tests.support.page_documents import HANDBOOK
from tests.support.processes import Server

QUESTION = "电脑坏了找谁"
LEAVE = "年休假有几天"
# Of the images: words find something too.
ASKED = {"en": "can I work at home", "zh": "客人来公司要提前登记吗"}


def ask(page: Page, text: str) -> None:
    """Type a query; wait until it is the one that has been answered."""
    page.find("#query").clear()
    page.find("#query").send_keys(text)
    page.until(lambda: f"q={quote(text)}" in page.driver.current_url)
    page.settled()


def turned(page: Page, begin: int) -> None:
    """Wait for the page of the list that begins with this document."""
    page.until(lambda: page.text(".range").startswith(f"{begin} to"))


def titles(page: Page, mode: str) -> list[str]:
    return page.texts(f"[data-column={mode}] .hit-title")


def test_results_come_as_one_types_side_by_side(page: Page) -> None:
    page.open(language="zh")
    assert page.text("#query ~ button") == "" and len(page.all(".browse .hit")) == 20
    ask(page, QUESTION)
    assert page.texts(".column h2")[0].startswith("语义")
    # Meaning finds it although no word is the same; words do not.
    assert titles(page, "dense")[0] == "设备故障"
    assert "不在词语结果中" in page.text(".brings")
    assert page.all(".column.dense .rank-in.lexical.missing")
    ask(page, "显示器")
    assert titles(page, "lexical")[0] == "设备故障"
    assert "显示器" in "".join(page.texts(".column.lexical mark"))
    assert page.axe() == []


def test_hits_show_their_place_and_the_whole_document_opens(page: Page) -> None:
    page.open("search?q=年休假")
    page.settled()
    assert "员工手册.pdf · page 12" in page.text(".column.hybrid .hit .place")
    page.click(".column.hybrid .hit a")
    assert "顺延到次年三月底" in page.until(lambda: page.text(".panel .text"))
    assert page.text(".panel h2") == "年休假"
    # The next page of the same file.
    page.until(lambda: page.all("#neighbours a"))
    page.click("#neighbours a")
    page.until(lambda: page.text(".panel h2") == "病假")
    page.driver.back()
    page.until(lambda: page.text(".panel h2") == "年休假")
    assert page.axe() == []
    page.keys("\ue00c")
    page.until(lambda: not page.all(".panel"))
    assert "doc=" not in page.driver.current_url


def test_everything_is_reached_by_the_keyboard(page: Page) -> None:
    page.open("search?q=加班")
    page.settled()
    page.script("document.activeElement.blur()")
    page.keys("/")
    assert page.script("return document.activeElement.id") == "query"
    page.keys("\ue015")
    here = """
        const hit = document.activeElement.closest(".hit");
        return hit && hit.dataset.mode + hit.querySelector(".rank").innerText;
    """
    assert page.script(here) == "dense1"
    page.keys("\ue015")
    assert page.script(here) == "dense2"
    page.keys("\ue014")
    assert page.script(here) == "hybrid2"
    page.keys("\ue013")
    page.keys("\ue007")
    page.until(lambda: page.all(".panel"))
    page.keys("\ue00c")
    page.until(lambda: not page.all(".panel"))
    # Back where it was opened.
    assert page.script(here) == "hybrid1"
    page.keys("?")
    assert page.find("dialog[open] kbd")
    page.keys("\ue00c")
    page.until(lambda: not page.all("dialog"))


def test_answer_of_an_older_query_never_replaces_a_newer_one(page: Page) -> None:
    page.open()
    # Every first request waits, so that its answer would come after that of the second.
    page.script("""
        const real = window.fetch;
        window.fetch = async (url, options = {}) => {
          if (!(options.body || "").includes("病假")) return real(url, options);
          const { signal, ...rest } = options;
          await new Promise((resolve) => setTimeout(resolve, 400));
          return real(url, rest);
        };
    """)
    page.find("#query").send_keys("病假")
    page.until(lambda: page.all("[aria-busy]"))
    page.find("#query").clear()
    page.find("#query").send_keys("停车")
    page.until(lambda: titles(page, "dense")[:1] == ["停车"])
    page.script("return new Promise((resolve) => setTimeout(resolve, 600))")
    assert titles(page, "dense")[0] == titles(page, "lexical")[0] == "停车"


def test_nothing_is_searched_while_a_word_is_composed(page: Page) -> None:
    page.open()
    page.script("""
        const field = document.getElementById("query");
        field.dispatchEvent(new CompositionEvent("compositionstart"));
        field.value = "ting";
        field.dispatchEvent(new InputEvent("input", { isComposing: true }));
    """)
    page.script("return new Promise((resolve) => setTimeout(resolve, 150))")
    assert "q=" not in page.driver.current_url
    page.script("""
        const field = document.getElementById("query");
        field.value = "停车";
        field.dispatchEvent(new CompositionEvent("compositionend"));
    """)
    page.until(lambda: titles(page, "dense")[:1] == ["停车"])


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_page_has_nothing_serious_for_axe(
    page: Page, language: str, dark: bool, size: tuple[int, int]
) -> None:
    page.open(f"search?q={ASKED[language]}", language=language, dark=dark, size=size)
    page.settled()
    assert page.find("html").get_attribute("lang") == language
    assert page.axe() == []
    width = page.script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    # Those that the documents show.
    kinds = (language, *(["dark"] if dark else []), *(["phone"] if size == PHONE else []))
    if dark == (size == PHONE):
        page.shot("-".join(["question", *kinds]))


def test_language_and_theme_are_switched_and_kept(page: Page) -> None:
    page.open(language="zh")
    assert page.text(".views a[aria-current]") == "搜索"
    page.click("#language")
    assert page.text(".views a[aria-current]") == "Search"
    page.click("#theme")
    page.click("#theme")
    assert page.find("html").get_attribute("data-theme") == "dark"
    page.open(language="zh")
    assert page.text(".views a[aria-current]") == "Search"
    assert page.find("html").get_attribute("data-theme") == "dark"


def test_ten_thousand_documents_are_paged(page: Page) -> None:
    page.open("search?c=many")
    assert page.text(".pager h2") == "10,000 documents"
    assert page.text(".range") == "1 to 20 of 10,000"
    for begin in (21, 41, 61):
        page.click("#next")
        turned(page, begin)
    # The browser draws a row only once it is in sight.
    page.until(lambda: page.texts(".snippet")[0] == "row 61")
    page.click("#previous")
    turned(page, 41)
    page.driver.refresh()
    turned(page, 41)
    # The last page, as somebody who has turned 499 pages sees it.
    page.open("search?c=many&after=9980&page=499")
    page.until(lambda: page.text(".range") == "9,981 to 10,000 of 10,000")
    assert page.find("#next").get_attribute("disabled")
    # A search gives the best thousand of ten thousand hits, and says so.
    page.open("search?c=many&q=row&n=500&mode=lexical")
    page.settled()
    page.click(".more")
    page.until(lambda: len(page.all(".hit")) == 1000)
    assert "no more than these" in page.text(".column > .dim")


def test_stored_text_never_runs(page: Page) -> None:
    page.open("search?c=hostile&q=hostile")
    page.settled()
    assert "<script>" in page.text(".column.hybrid .hits")
    assert len(page.all(".column.hybrid .hit")) == 4
    for place in range(4):
        page.open("search?c=hostile&q=hostile")
        page.settled()
        page.all(".column.hybrid .hit a")[place].click()
        page.until(lambda: page.all(".panel .metadata dd"))
    assert page.script("return window.ran === undefined")
    # What turns the direction of a name is shown instead.
    turning = "return /[\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)"
    page.open("search?c=hostile&q=hostile")
    page.settled()
    assert not page.script(turning) and "report\ufffdtxt.exe" in page.text("main")
    assert (
        page.script("return document.querySelectorAll('main img, .panel img, main script').length")
        == 0
    )
    links = page.script("return [...document.links].map((each) => each.protocol)")
    assert set(links) == {"http:"}
    assert page.axe() == []


def test_empty_collection_teaches_how_to_fill_it(page: Page) -> None:
    page.open("search?c=empty")
    assert "There are no documents here yet" in page.text(".empty h2")
    assert "inkwell index" in page.text(".empty") and "/collections/empty/documents" in page.text(
        ".empty"
    )
    assert page.axe() == []


def test_documents_are_named_in_both_languages(page: Page) -> None:
    page.open(language="zh")
    page.until(lambda: page.all(".pager"))
    assert page.text(".pager h2") == f"{len(HANDBOOK)} 篇文档"
    page.click(".examples button")
    page.until(lambda: "q=" in page.driver.current_url)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_passage_of_a_long_document_is_marked(page: Page, server: Server, language: str) -> None:
    page.open(f"search?c=long&q={LEAVE}", language=language)
    page.settled()
    page.click(".column.dense .hit a")
    marked = page.until(
        lambda: page.script("return document.querySelector('.panel mark')?.textContent")
    )
    # Exactly what the server found: positions count characters, and emoji stand before the passage.
    with server.client() as client:
        body = {"query": LEAVE, "top_k": 1}
        (hit,) = client.post("/collections/long/search", json=body).json()["hits"]
    assert marked == hit["text"] and hit["part"]["begin"] > 0 and not hit["part"]["whole"]
    assert page.axe() == []
    page.shot(f"document-{language}")


@pytest.mark.parametrize("built", [False, True])
def test_help_leads_to_the_manual_where_there_is_one(page: Page, built: bool) -> None:
    if PACKED.is_file():
        pytest.skip("the manual is built already")
    try:
        if built:
            with ZipFile(PACKED, "w") as files:
                files.writestr("zh/index.html", "<title>手册</title><p id=book>手册")
        page.open(language="zh")
        page.keys("?")
        if not built:
            page.settled()
            assert not page.find("#manual").is_displayed()
            return
        page.until(lambda: page.find("#manual").is_displayed())
        assert page.text("#manual") == "用户手册"
        page.click("#manual")
        page.until(lambda: page.text("#book") == "手册")
    finally:
        if built:
            PACKED.unlink(missing_ok=True)


def test_id_that_a_browser_would_take_for_a_path_is_never_asked_for(page: Page) -> None:
    page.open("search?c=hostile&q=hostile&doc=" + quote("../../many", safe=""))
    page.until(lambda: "cannot stand in an address" in page.text(".panel .failure"))
    page.driver.get(f"{page.url}/docs#remove_one")
    form = '[data-route="DELETE /documents/{id}"]'
    page.until(lambda: page.all(form))
    page.script(f"document.querySelector('{form}').open = true")
    page.find(f"{form} [name=id]").clear()
    page.find(f"{form} [name=id]").send_keys("../collections/empty")
    page.click(f"{form} .primary")
    page.until(lambda: "cannot stand in an address" in page.text(f"{form} .status"))
    assert "cannot stand in an address" in page.text(f"{form} .curl")
    asked = page.script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert not [each for each in asked if "empty" in each]
