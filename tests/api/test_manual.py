"""The manual is served from one packed file: its pages, and nothing else on the disk."""

import base64
import hashlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from server.api.web import manual
from server.inference.model import Model
from tests.support.clients import ask, run

PAGE = "<title>Books</title><style>a{}</style><script>let one</script><script>two()</script>"


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the packed manual, where there is none yet."""
    file = tmp_path / "manual.zip"
    monkeypatch.setattr(manual.operations, "__defaults__", (file,))
    return file


def build(file: Path, **more: str) -> None:
    with ZipFile(file, "w") as files:
        files.writestr("en/index.html", PAGE)
        files.writestr("zh/_static/a.css", "a{}")
        for name, content in more.items():
            files.writestr(name, content)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr,zh;q=0.2", "zh"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh-Hant-TW", "zh"),
        ("zh;q=1.2.3,*", "en"),
        ("," * 5000 + "zh", "zh"),
    ],
)
def test_language_is_the_one_that_the_browser_prefers(header: str, language: str) -> None:
    assert manual.preferred(header) == language


def test_manual_leads_to_the_language_of_the_browser(toy_model: Model, packed: Path) -> None:
    build(packed)
    for path, base in (("/manual", "manual/"), ("/manual/", "")):
        answer = ask(toy_model, "GET", path, headers={"accept-language": "zh-CN"})
        assert answer.status_code == 200
        assert f'content="0; url={base}zh/index.html"' in answer.text
        assert f'href="{base}en/index.html"' in answer.text
        known = ask(toy_model, "HEAD", path, headers={"accept-language": "zh-CN"})
        assert known.headers["link"] == f'<{base}zh/index.html>; rel="start"'


def test_manual_that_is_not_built_says_how_in_both_languages(
    toy_model: Model, packed: Path
) -> None:
    answer = ask(toy_model, "GET", "/manual")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "link" not in answer.headers
    assert answer.text.count("make manual") == 2 and 'lang="zh"' in answer.text
    refused = ask(toy_model, "GET", "/manual/en/index.html")
    assert refused.status_code == 404 and "make manual" in refused.json()["error"]["message"]


def test_manual_appears_when_it_is_built_while_the_server_runs(
    toy_model: Model, packed: Path
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert "refresh" not in (await client.get("/manual")).text
        build(packed)
        assert "refresh" in (await client.get("/manual")).text
        assert (await client.get("/manual/en/index.html")).text == PAGE

    run(test, toy_model)


def test_pages_have_their_types_and_a_policy_for_what_they_have_inline(
    toy_model: Model, packed: Path
) -> None:
    build(packed)
    style = ask(toy_model, "GET", "/manual/zh/_static/a.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert style.headers["x-content-type-options"] == "nosniff"
    page = ask(toy_model, "GET", "/manual/en/index.html")
    policy = dict(
        part.split(" ", 1) for part in page.headers["content-security-policy"].split("; ")
    )
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in ("let one", "two()")
    ]
    assert policy["script-src"] == " ".join(["'self'", *hashes])
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in page.headers["content-security-policy"]


def test_page_that_the_browser_has_is_not_sent_again(toy_model: Model, packed: Path) -> None:
    build(packed)

    async def test(client: httpx.AsyncClient) -> None:
        first = await client.get("/manual/en/index.html")
        known = {"if-none-match": first.headers["etag"]}
        again = await client.get("/manual/en/index.html", headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        with ZipFile(packed, "w") as files:
            files.writestr("en/index.html", "other")
        changed = await client.get("/manual/en/index.html", headers=known)
        assert (changed.status_code, changed.text) == (200, "other")

    run(test, toy_model)


@pytest.mark.parametrize(
    "name",
    [
        "en",
        "en/",
        "../manual.zip",
        "%2e%2e/manual.zip",
        "en/../../x",
        "/etc/passwd",
        "en/index.html%00",
    ],
)
def test_nothing_but_the_packed_pages_is_sent(toy_model: Model, packed: Path, name: str) -> None:
    build(packed)
    (packed.parent / "x").write_text("secret")

    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.get(httpx.URL("http://test", raw_path=f"/manual/{name}".encode()))
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "not_found"

    run(test, toy_model)


def test_broken_file_is_reported_and_says_what_to_do(toy_model: Model, packed: Path) -> None:
    packed.write_bytes(b"not a zip")
    answer: Any = ask(toy_model, "GET", "/manual/en/index.html")
    assert answer.status_code == 500 and "make manual" in answer.json()["error"]["message"]


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """A bundle that contains the manual can be made again byte for byte."""
    from tests.support.manual import builder

    (tmp_path / "site/en").mkdir(parents=True)
    (tmp_path / "site/en/index.html").write_text(PAGE)
    for name in ("a.zip", "b.zip"):
        builder().pack(tmp_path / "site", tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert ZipFile(tmp_path / "a.zip").read("en/index.html").decode() == PAGE
