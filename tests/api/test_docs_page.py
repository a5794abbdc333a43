"""The page of the API is that of /openapi.json in both languages: no route and no sentence is missing."""

import re

from server.api.web.page import FOLDER, POLICY
from server.inference.model import Model
from tests.api.test_openapi import DOCUMENT, described
from tests.support.clients import ask

WORDS = (FOLDER / "words/docs.js").read_text(encoding="utf-8")
NAMED = "/collections/{collection}/"
# Every route, once: those of a named collection are the default one's.
ROUTES = [f"{method} {path}" for method, path, _ in described() if not path.startswith(NAMED)]


def part(name: str) -> str:
    """Return the object of the words that this name exports."""
    (found,) = re.findall(
        rf"^export const {name} = (.*?^\}}\)?;)$", WORDS, re.MULTILINE | re.DOTALL
    )
    return str(found)


def test_page_is_served_with_the_policy_of_the_search_page(toy_model: Model) -> None:
    answer = ask(toy_model, "GET", "/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    again = ask(toy_model, "GET", "/docs", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_every_route_has_its_summary_in_chinese() -> None:
    """A new route needs its line in `words/docs.js`."""
    listed = re.findall(r'"((?:GET|POST|PUT|DELETE|PATCH) [^"]+)"', part("SUMMARIES"))
    assert sorted(listed) == sorted(ROUTES)
    noted = re.findall(r'"((?:GET|POST|PUT|DELETE|PATCH) [^"]+)"', part("ABOUT"))
    assert set(noted) <= set(ROUTES) and len(noted) == len(set(noted))


def test_every_sentence_that_routes_share_is_there_in_chinese() -> None:
    """A new parameter, or another reason of a refusal, needs its line in `words/docs.js`."""
    said: set[str] = set()
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            said |= {each["description"] for each in operation.get("parameters", [])}
            for status, reply in operation["responses"].items():
                if status[0] in "45":
                    said.add(reply["description"])
    assert set(re.findall(r'^  "(.*?)": "', part("MEANINGS"), re.M)) == said
