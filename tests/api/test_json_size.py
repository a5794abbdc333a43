"""A body with too many values is refused before it is decoded; texts do not count."""

import json
import tracemalloc

import httpx
import pytest

from server.api import json_size
from server.api.json_size import check_size
from server.errors import RequestTooLarge
from server.inference.model import Model
from tests.support.clients import ask

MAX_CONTAINERS, MAX_VALUES = 2_000, 40_000
MARKS = '{[,]}"\\' * 10


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_size, "MAX_CONTAINERS", MAX_CONTAINERS)
    monkeypatch.setattr(json_size, "MAX_VALUES", MAX_VALUES)


@pytest.mark.parametrize(
    "body",
    [
        b'{"documents":[' + b",".join([b'{"text":"a"}'] * (MAX_CONTAINERS + 1)) + b"]}",
        b'{"ids":[' + b",".join([b'"a"'] * (MAX_VALUES + 2)) + b"]}",
        b"[" + b",".join([b"1"] * (MAX_VALUES + 2)) + b"]",
        b"[" + b"[]," * MAX_CONTAINERS + b"1]",
        b'{"t":"' + b'\\"' * 10 + b'","ids":[' + b"1," * (MAX_VALUES + 1) + b"1]}",
    ],
    ids=["documents", "ids", "numbers", "lists", "behind a text"],
)
def test_many_small_values_are_too_many(body: bytes) -> None:
    with pytest.raises(RequestTooLarge, match=str(MAX_VALUES)):
        check_size(body)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_marks_inside_of_texts_count_nothing(ascii_only: bool) -> None:
    texts = [MARKS * 1_000, MARKS[:-1] * 9 + "\\", "墨" * 1000]
    assert json.dumps(texts).count(",") > 2
    body = json.dumps({"texts": texts * 12}, ensure_ascii=ascii_only).encode()
    assert body.count(b"{") > MAX_CONTAINERS
    check_size(body)


def test_what_is_no_json_is_left_to_the_decoder() -> None:
    for body in (b"[" * 99_000, b'{"a":' * 99_000, b'"' + b"\\" * 99_001, b'"{[' * 99_001):
        check_size(body)


def test_counting_takes_no_memory() -> None:
    body = b'{"documents":[' + b",".join([b'{"text":"a,{"}'] * 20_000) + b"]}"
    tracemalloc.start()
    try:
        json_size._outside_texts(body)
        assert tracemalloc.get_traced_memory()[1] < 64 * json_size.SLICE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", ["/documents", "/documents/delete", "/v1/embeddings"])
def test_every_route_refuses_such_a_body(toy_model: Model, path: str) -> None:
    content = b'{"input":[' + b"[]," * 99_000 + b"[]]}"
    headers = {"content-type": "application/json"}
    response: httpx.Response = ask(toy_model, "POST", path, content=content, headers=headers)
    assert response.status_code == 413, response.text
    assert "request_too_large" in response.text and str(MAX_CONTAINERS) in response.text


def test_one_object_with_very_many_keys_is_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding a million different keys holds the interpreter lock for 0.4 s."""
    monkeypatch.setattr(json_size, "MAX_KEYS", 10_000)
    wide = {f"k{n}": n for n in range(10_001)}
    with pytest.raises(RequestTooLarge, match="10000 keys in 2 lists and objects"):
        check_size(json.dumps({"filter": wide}).encode())
    # Documents may have as many keys together, and texts as many colons.
    check_size(json.dumps({"documents": [{"metadata": wide}, *[{}] * 3]}).encode())
    check_size(json.dumps({"texts": [":" * 20_000]}).encode())
