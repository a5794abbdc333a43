"""GET / shows browsers the search page, whose files are strict, small and complete in both languages."""

import posixpath
import re
from pathlib import Path

import httpx
import pytest

from server.api.web.page import FOLDER, POLICY, replies, squeezed
from server.api.web.static import TYPES
from server.auth.keys import SCOPES, add_key, new_key
from server.inference.model import Model
from tests.support.clients import ask, run

# What browsers of the last years send.
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"}
MOST_BYTES = 150_000
SCRIPTS = sorted(FOLDER.rglob("*.js"))
KEY = re.compile(r'^    "([\w.]+)":', re.M)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_browsers_get_the_page_and_others_the_line_of_text(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        page = await client.get("/", headers=BROWSER)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"] == POLICY
        for headers in ({}, {"accept": "application/json"}, {"accept": "*/*"}):
            line = await client.get("/", headers=headers)
            assert "Ollama is running" in line.text
            assert line.headers["vary"] == page.headers["vary"] == "accept"

    run(test, toy_model)


def test_a_copy_that_is_the_same_is_not_sent_again(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, headers in (("/", BROWSER), ("/ui/main.js", {})):
            first = await client.get(path, headers=headers)
            assert first.headers["cache-control"] == "no-cache"
            tag = first.headers["etag"]
            same = await client.get(path, headers={**headers, "if-none-match": f'"other", W/{tag}'})
            assert (same.status_code, same.content) == (304, b"")
            assert same.headers["etag"] == tag
            other = await client.get(path, headers={**headers, "if-none-match": '"other"'})
            assert other.content == first.content

    run(test, toy_model)


@pytest.mark.parametrize("path", ["/ui/none.js", "/ui/README.md", "/ui/..%2Fpage.py", "/ui/"])
def test_nothing_but_the_files_of_the_page_is_served(toy_model: Model, path: str) -> None:
    assert ask(toy_model, "GET", path).status_code == 404


def test_policy_forbids_what_the_page_does_not_need() -> None:
    policy = dict(part.partition(" ")[::2] for part in POLICY.split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in POLICY and "http" not in POLICY


def test_no_file_asks_another_host_or_reads_text_as_html() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix in TYPES:
            text = text_of(path)
            assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}
            assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write", text)
            assert not re.search(r"\beval\(|new Function|@import|url\(| style=\"| on\w+=\"", text)


def led_to(start: str) -> set[str]:
    """Return the files that a page loads, at once or later."""
    found, waiting = set[str](), [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        text = text_of(FOLDER / name)
        modules = re.findall(r'(?:from|import\(|import)\s*"(\.[^"]+)"', text)
        waiting += [
            posixpath.normpath(posixpath.join(posixpath.dirname(name), each)) for each in modules
        ]
        waiting += re.findall(r'(?:href|src)="ui/([^"]+)"', text)
        waiting += re.findall(r'"(\w+\.css)"', text)
    return found


def test_the_page_with_all_its_views_is_small() -> None:
    files = replies()
    page, docs = led_to("index.html"), led_to("docs.html")
    assert set(files) == page | docs
    assert sum(len(files[name].body) for name in page) <= MOST_BYTES
    assert sum(len(files[name].body) for name in docs - page) <= MOST_BYTES // 4


def without(script: str) -> list[str]:
    """Return the lines of a script without comments; texts as they are, the rest without blanks."""
    found = []
    for line in script.splitlines():
        pieces = re.split(r'("(?:[^"\\]|\\.)*")', line.strip())
        pieces[::2] = [re.sub(" (?=\\W)|(?<=\\W) ", "", piece) for piece in pieces[::2]]
        found.append("" if line.strip().startswith(("//", "/*")) else "".join(pieces))
    return found


def test_blanks_are_left_out_beside_signs_and_in_no_text() -> None:
    for line, sent in (
        ('const a = { b: "x, y" };', 'const a={b:"x, y"};'),
        ("return a ? `${b}, c` : d;", "return a?`${b}, c`:d;"),
        ('x = a ? `b ${c ? `, d` : ""}` : e;', 'x = a ? `b ${c ? `, d` : ""}` : e;'),
        ("const a = /, b/;", "const a = /, b/;"),
        ("if (a) return a - -b;", "if(a)return a - -b;"),
        ("for (const a of b) c = a in d;", "for(const a of b)c=a in d;"),
    ):
        assert squeezed(line) == sent


def test_files_are_sent_without_indents_and_comments() -> None:
    """So no line may be part of a text or of a comment that began above it."""
    for path in (*SCRIPTS, *FOLDER.rglob("*.css")):
        text, sent = text_of(path), replies()[path.relative_to(FOLDER).as_posix()].body.decode()
        assert len(sent.splitlines()) == len(text.splitlines())
        assert without(text) == without(sent), path.name
        assert "    " not in sent and not re.search(r"^(//|/\*)", sent, re.M)
        for line in text.splitlines():
            code = re.sub(r'"(?:[^"\\]|\\.)*"|^\s*//.*', "", line)
            assert code.count("`") % 2 == 0, (path.name, line)
            assert ("/*" in code) == ("*/" in code), (path.name, line)


def test_every_module_is_there() -> None:
    for path in SCRIPTS:
        for target in re.findall(r'(?:from|import\()\s*"(\.[^"]+)"', text_of(path)):
            assert (path.parent / target).is_file(), (path.name, target)
    for target in re.findall(r'(?:href|src)="ui/([^"]+)"', text_of(FOLDER / "index.html")):
        assert (FOLDER / target).is_file(), target


@pytest.mark.parametrize("path", sorted(FOLDER.glob("words/*.js")), ids=lambda path: path.stem)
def test_every_sentence_is_there_in_both_languages(path: Path) -> None:
    english, chinese = text_of(path).split("\n  zh: {")
    assert KEY.findall(english) == KEY.findall(chinese)
    fields = [re.findall(r"\{\w+\}", line) for line in english.splitlines()[2:]]
    others = [re.findall(r"\{\w+\}", line) for line in chinese.splitlines()[1:]]
    assert all(set(a) == set(b) for a, b in zip(fields, others, strict=False))


def test_no_sentence_is_missing_and_none_is_unused() -> None:
    known = {key for path in FOLDER.glob("words/*.js") for key in KEY.findall(text_of(path))}
    code = "\n".join(text_of(path) for path in SCRIPTS if path.parent.name != "words")
    named = set(re.findall(r'\bt\("([\w.]+)"[,)]', code))
    assert named <= known
    # Some keys are put together: "search." + mode.
    literals = re.findall(r'["`]([\w.]+)["`$]', code) + re.findall(r"`([\w.]+)\$\{", code)
    joined = {each for each in literals if each.endswith(".")}
    for key in known - set(literals):
        assert any(key.startswith(begin) for begin in joined), key


def test_key_says_what_it_may_do(toy_model: Model, tmp_path: Path) -> None:
    secret, key = new_key("page", "search,embed")
    add_key(tmp_path / "keys", key)
    settings = {"keys": tmp_path / "keys"}
    assert ask(toy_model, "GET", "/key", settings=settings).status_code == 401
    headers = {"authorization": f"Bearer {secret}"}
    found = ask(toy_model, "GET", "/key", settings=settings, headers=headers).json()
    whole = {"collections": None}
    assert found == {"needed": True, "name": "page", "scopes": ["embed", "search"], **whole}
    # Without keys everything is allowed, also where there is an audit.
    for given in ({}, {"audit": tmp_path / "audit"}):
        found = ask(toy_model, "GET", "/key", settings=given).json()
        assert found == {"needed": False, "name": None, "scopes": list(SCOPES), **whole}
