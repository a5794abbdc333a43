"""Every request that the documents show is sent to the real server; answers are as shown."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import examples as support
from tests.support.examples import PAGES, Answered, Request, answers, examples, same, show
from tests.support.processes import ROOT, serving

FINGERPRINT = re.compile(r'"fingerprint":"([0-9a-f]{32})"')
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.fixture(scope="module")
def answered(
    shipped_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Answered]]:
    """Return every example with the answer of one server with the shipped model."""
    with serving(shipped_artifact, tmp_path_factory.mktemp("examples")) as server:
        yield list(answers(server))


def test_answers_are_as_the_documents_show_them(answered: list[Answered]) -> None:
    """Where this fails: `python -m tests.support.examples --write`, and read the difference."""
    wrong = [(one.example.page, one.example.answer, one.answer) for one in answered if one.differs]
    assert wrong == []


def test_requests_without_an_answer_beside_them_succeed(answered: list[Answered]) -> None:
    for one in answered:
        if one.example.answer is None:
            assert all(200 <= status < 300 for status in one.statuses), one.example.commands


def test_every_page_has_examples_and_every_route_of_vectors_one() -> None:
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    paths = {
        request.path
        for page, text in texts.items()
        for example in examples(page, text)
        for request in example.requests
    }
    assert {"/embed", "/v1/embeddings", "/api/embed", "/api/embeddings", "/vectors"} <= paths
    assert all(list(examples(page, text)) for page, text in texts.items())


def test_all_documents_show_one_fingerprint() -> None:
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    shown = [found for text in texts for found in FINGERPRINT.findall(text)]
    assert len(shown) > 1 and len(set(shown)) == 1


def reply(value: object, **headers: str) -> httpx.Response:
    return httpx.Response(
        200,
        content=json.dumps(value).encode(),
        headers={"content-type": "application/json", **headers},
    )


def test_shown_answers_are_shortened_and_keep_what_matters() -> None:
    request = Request("GET", "/", {}, b"", head=True)
    value = {"vector": [0.123456] * 512, "digest": "0123456789abcdef" * 4}
    assert show(
        request, reply(value, **{"x-truncated": "0", "x-request-id": "1"})
    ).splitlines() == [
        "HTTP/1.1 200 OK",
        "content-type: application/json",
        "x-truncated: 0",
        "",
        '{"vector":[0.1235,0.1235,...],"digest":"0123456789ab..."}',
    ]


@pytest.mark.parametrize(
    ("shown", "answer", "exact", "otherwise"),
    [
        ('{"a":1,\n "b":[0.1235,...]}', '{"a":1,"b":[0.1236,...]}', True, True),
        ("[0.1235,...]", "[0.1335,...]", False, True),
        ("[0.1235,...]", "[0.2235,...]", False, False),
        ('{"dim":512}', '{"dim":513}', False, False),
        ('{"a":null}', '{"b":null}', False, False),
        ("[0.1,0.2]", "[0.1]", False, False),
        ('{"total_duration":1}', '{"total_duration":23}', True, True),
        ("x-total-time: 2", "x-total-time: 31", True, True),
        ("x-compute-tokens: 2", "x-compute-tokens: 3", False, False),
        (f'{{"fingerprint":"{"0" * 32}"}}', f'{{"fingerprint":"{"1" * 32}"}}', True, True),
    ],
)
def test_answers_differ_by_structure_and_by_more_than_last_digits(
    shown: str, answer: str, exact: bool, otherwise: bool
) -> None:
    assert same(shown, answer, exact=True) is exact
    assert same(shown, answer, exact=False) is otherwise


def test_answers_are_written_into_the_pages_of_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, twin = "docs/en/http.md", "docs/zh/http.md"
    block = "```sh\ncurl localhost:8000/{}\n```\n```json\n{}\n```\n"
    for name, words in ((page, "One of two.\n"), (twin, "共两个。\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(words + block.format("a", "[1]") + block.format("b", "[1]"))
    monkeypatch.setattr(support, "ROOT", tmp_path)
    monkeypatch.setattr(support, "PAGES", (page,))
    shown = list(examples(page, (tmp_path / page).read_text()))
    support.write(
        [
            Answered(one, [200], answer)
            for one, answer in zip(shown, ("[1]\n", "[2]\n"), strict=True)
        ]
    )
    wanted = block.format("a", "[1]") + block.format("b", "[2]")
    assert (tmp_path / page).read_text() == "One of two.\n" + wanted
    assert (tmp_path / twin).read_text() == "共两个。\n" + wanted
