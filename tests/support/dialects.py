"""The routes of all dialects, their wrong requests, and checks of their replies."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from server.config import Config
from server.types import Vectors

SAME = 1e-5


AS_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Form:
    """One way to ask for vectors."""

    dialect: str
    path: str
    key: str

    def body(self, texts: Any, **others: Any) -> dict[str, Any]:
        return {self.key: texts, **others}

    def __str__(self) -> str:
        return f"{self.dialect} {self.path}"


NATIVE = Form("native", "/embed", "texts")
TEI = Form("tei", "/embed", "inputs")
OPENAI = Form("openai", "/v1/embeddings", "input")
OLLAMA = Form("ollama", "/api/embed", "input")
AZURE = "/openai/deployments/toy/embeddings"
FORMS = (
    *(NATIVE, TEI, OPENAI, OLLAMA),
    *(Form("openai", path, "input") for path in ("/embeddings", "/openai/v1/embeddings", AZURE)),
)
# Every GET route with the dialect of its errors. The POST routes are those of FORMS and ONE_TEXT.
GETS = {
    "/api/tags": "ollama",
    "/api/ps": "ollama",
    "/api/version": "ollama",
    "/meta": "weaviate",
    "/.well-known/live": "weaviate",
    "/.well-known/ready": "weaviate",
    "/v1/models": "openai",
    "/v1/models/toy": "openai",
    "/models": "openai",
    "/models/toy": "openai",
    "/openai/v1/models": "openai",
    "/openai/v1/models/toy": "openai",
    "/info": "tei",
    "/health": "native",
    "/ready": "native",
    "/metrics": "native",
    "/openapi.json": "native",
    "/docs": "native",
    "/manual": "native",
    "/key": "native",
    "/ui/main.js": "native",
}
POSTS = {
    "/embed": "native",
    "/v1/embeddings": "openai",
    "/embeddings": "openai",
    "/openai/v1/embeddings": "openai",
    AZURE: "openai",
    "/api/embed": "ollama",
}
# Routes of one text, with their dialect and the key of the text (in one case a name).
ONE_TEXT = {
    "/api/embeddings": ("ollama", "prompt"),
    "/api/show": ("ollama", "model"),
    "/api/pull": ("ollama", "model"),
    "/vectors": ("weaviate", "text"),
    "/vectors/": ("weaviate", "text"),
}
by_form = pytest.mark.parametrize("form", FORMS, ids=str)


def vectors_of(form: Form, response: httpx.Response) -> Vectors:
    """Return float32 (B, D) from a reply with vectors as numbers."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    if form.dialect == "native":
        assert set(body) == {"vectors"}
        body = body["vectors"]
    elif form.dialect == "openai":
        assert [row["index"] for row in body["data"]] == list(range(len(body["data"])))
        body = [row["embedding"] for row in body["data"]]
    elif form.dialect == "ollama":
        body = body["embeddings"]
    return np.array(body, dtype=np.float32)


def metric(text: str, name: str, **labels: str) -> float:
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    line = f"inkwell_{name}{{{wanted}}}" if labels else f"inkwell_{name}"
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def check_error(
    dialect: str,
    response: httpx.Response,
    status: int,
    code: str | None = None,
    *,
    param: str | None = None,
) -> str:
    """Check that the reply is an error of this status in the dialect's shape; return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    body = response.json()
    if dialect == "tei":
        assert set(body) == {"error", "error_type"}
        kinds = {400: "Empty", 424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
        assert body["error_type"] == kinds.get(status, "Validation")
        message = body["error"]
    elif dialect in ("ollama", "weaviate"):
        assert set(body) == {"error"}
        message = body["error"]
    else:
        # Clients of Jina, NVIDIA and Xinference look for the message there.
        more = {"message", "detail"} if dialect == "openai" else set()
        assert set(body) == {"error", *more}
        assert {body[key] for key in more} <= {body["error"]["message"]}
        keys = {"code", "message"} | ({"type", "param"} if dialect == "openai" else set())
        assert set(body["error"]) == keys
        assert code is None or body["error"]["code"] == code
        assert param is None or body["error"]["param"] == param
        message = body["error"]["message"]
    assert isinstance(message, str) and message
    assert not message.endswith(".") and "Traceback" not in message
    retries = status in (429, 503)
    assert (response.headers.get("retry-after") is not None) == retries
    if retries:
        assert 1 <= int(response.headers["retry-after"]) <= 60
    return message


NESTED = 100_000
BROKEN_BODIES = {
    "empty": b"",
    "white space": b"  \n",
    "no object": b"[]",
    "a string": b'"KEY"',
    "null": b"null",
    "cut short": b'{"KEY": ["a"',
    "two values": b'{"KEY": ["a"]} {}',
    "comma": b'{"KEY": ["a",]}',
    "single quotes": b"{'KEY': ['a']}",
    "NaN": b'{"KEY": ["a"], "dimensions": NaN}',
    "infinity": b'{"KEY": ["a"], "dimensions": -Infinity}',
    "not a number": b'{"KEY": ["a"], "dimensions": 1.2.3}',
    "huge float": b'{"KEY": ["a"], "dimensions": 1e999}',
    "huge integer": b'{"KEY": ["a"], "dimensions": 1' + b"0" * 5000 + b"}",
    "negative": b'{"KEY": ["a"], "dimensions": -9223372036854775809}',
    "nested": b'{"KEY": ' + b"[" * NESTED + b"]" * NESTED + b"}",
    "nested and open": b'{"KEY": ' + b"[" * NESTED,
    "nested objects": b'{"KEY": ' + b'{"a":' * NESTED,
    "nested elsewhere": b'{"KEY": ["a"], "x": ' + b"[" * NESTED + b"]" * NESTED + b"}",
    "bad UTF-8": b'{"KEY": ["\xff\xfe"]}',
    "cut UTF-8": b'{"KEY": ["\xe5\xa2"]}',
    "overlong UTF-8": b'{"KEY": ["\xc0\xaf"]}',
    "surrogate in UTF-8": b'{"KEY": ["\xed\xa0\x80"]}',
    "UTF-16": '{"KEY": ["a"]}'.encode("utf-16"),
    "lone surrogate": b'{"KEY": ["\\ud800"]}',
    "lone low surrogate": b'{"KEY": ["a\\udc00b"]}',
    "surrogate twice": b'{"KEY": ["\\ud800\\ud800"]}',
    "bad escape": b'{"KEY": ["\\x"]}',
    "control character": b'{"KEY": ["a\nb"]}',
    "gzip": b"\x1f\x8b\x08\x00",
}
WRONG_VALUES: dict[str, dict[str, Any]] = {
    "number": {"KEY": 5},
    "null": {"KEY": None},
    "true": {"KEY": True},
    "object": {"KEY": {"a": "b"}},
    "numbers": {"KEY": [1, 2, 3]},
    "lists of numbers": {"KEY": [[1, 2], [3]]},
    "null in the list": {"KEY": ["a", None]},
    "number in the list": {"KEY": ["a", 5]},
    "list in the list": {"KEY": ["a", ["b"]]},
    "true in the list": {"KEY": [True]},
    "dimensions as a string": {"KEY": ["a"], "dimensions": "32"},
    "dimensions as a fraction": {"KEY": ["a"], "dimensions": 31.5},
    "no dimensions": {"KEY": ["a"], "dimensions": 0},
    "negative dimensions": {"KEY": ["a"], "dimensions": -32},
    "other dimensions": {"KEY": ["a"], "dimensions": 16},
    "too many dimensions": {"KEY": ["a"], "dimensions": 33},
    "huge dimensions": {"KEY": ["a"], "dimensions": 10**30},
}
EMPTY: dict[str, dict[str, Any]] = {
    "empty list": {"KEY": []},
    "empty text": {"KEY": ["a", ""]},
}
WRONG_OPTIONS: dict[Form, list[dict[str, Any]]] = {
    NATIVE: [
        {"input_type": "title"},
        {"input_type": 1},
        {"encoding_format": "hex"},
        {"truncate": "yes"},
        {"inputs": ["b"]},
        {"topk": 5},
        {"task": "query"},
    ],
    TEI: [
        {"truncate": "yes"},
        {"truncation_direction": "middle"},
        {"truncation_direction": 5},
        {"prompt_name": "poem"},
        {"normalize": "no"},
        {"task": "retrieval.poem"},
        {"task": "query", "input_type": "passage"},
        {"parameters": {"prompt_name": "query"}},
    ],
    OPENAI: [
        {"encoding_format": "hex"},
        {"encoding_format": 5},
        {"model": 5},
        {"user": 5},
        {"input_type": "title"},
        {"input_type": "query", "task": "retrieval.passage"},
        {"output_dimension": 16},
        {"output_dimension": 32, "dimensions": 31},
        {"output_dtype": "int8"},
        {"embedding_type": "binary"},
        {"embedding_type": "base64", "encoding_format": "float"},
        {"truncate": "MIDDLE"},
        {"late_chunking": True},
        {"return_multivector": True},
        {"messages": [{"role": "user", "content": "a"}]},
        {"chat_template": "a"},
        {"add_special_tokens": False},
        {"truncate_prompt_tokens": 4},
        {"embed_dtype": "float16"},
        {"endianness": "big"},
        {"embd_normalize": -1},
        {"instruct": "a"},
        {"text_type": "query"},
        {"prompt_template": "a"},
        {"return_logits": [0]},
        {"instruction": "a"},
        {"prompt": "a"},
        {"modality": ["text", "image"]},
        {"normalize": True, "normalized": False},
    ],
    OLLAMA: [
        {"truncate": "yes"},
        {"truncate": 0},
        {"model": 5},
        {"dimensions": True},
        {"input_type": "title"},
    ],
}
# Values that are no text, for the routes of one text.
NO_TEXTS = (5, True, ["a"], [1, 2], {"a": "b"})


def filled(body: dict[str, Any], form: Form) -> dict[str, Any]:
    return {form.key if key == "KEY" else key: value for key, value in body.items()}


async def walk(client: httpx.AsyncClient) -> AsyncIterator[tuple[str, httpx.Response, int]]:
    """Send every kind of wrong request to every route; yield dialect, reply and expected status."""
    for form in FORMS:
        bad = 422 if form is TEI else 400
        for name, body in WRONG_VALUES.items():
            # Ollama's texts may be left out, and null counts as left out.
            if form is OLLAMA and name == "null":
                continue
            yield form.dialect, await client.post(form.path, json=filled(body, form)), bad
        for name, body in EMPTY.items():
            # Ollama answers an empty list with an empty list.
            if form is not OLLAMA or name != "empty list":
                yield form.dialect, await client.post(form.path, json=filled(body, form)), 400
        if form not in (NATIVE, OLLAMA):
            yield form.dialect, await client.post(form.path, json=form.body("")), 400
        too_many = form.body(["a"] * (Config().max_texts + 1))
        yield form.dialect, await client.post(form.path, json=too_many), bad
        too_large = form.body(["a" * 200_000])
        large = await client.post(form.path, json=too_large)
        yield POSTS[form.path], large, 413
        kinds = (None, "text/plain", "multipart/form-data; boundary=x", "application/xml", "")
        for kind in kinds if form is not OLLAMA else ():
            content = json.dumps(form.body(["a"])).encode()
            headers = {} if kind is None else {"content-type": kind}
            yield (
                POSTS[form.path],
                await client.post(form.path, content=content, headers=headers),
                415,
            )
    for form, options in WRONG_OPTIONS.items():
        for option in options:
            response = await client.post(form.path, json=form.body(["a"], **option))
            yield form.dialect, response, 422 if form is TEI else 400
    for path, (dialect, key) in ONE_TEXT.items():
        for wrong in NO_TEXTS:
            yield dialect, await client.post(path, json={key: wrong}), 400
        yield dialect, await client.post(path, json=[]), 400
        yield dialect, await client.post(path, json={key: "a" * 200_000}), 413
    for path in POSTS:
        if path != OLLAMA.path:
            yield POSTS[path], await client.post(path, json={}), 400
    posts = POSTS | {path: dialect for path, (dialect, _) in ONE_TEXT.items()}
    for path, dialect in posts.items():
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
            yield dialect, await client.request(method, path), 405
    for path, dialect in GETS.items():
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            yield dialect, await client.request(method, path, json={}), 405
        headers = {"content-length": str(1 << 20)}
        yield dialect, await client.get(path, headers=headers), 413
    for path in (
        "/nowhere",
        "/embed/x",
        "/%00",
        "/../etc/passwd",
        "/healthz",
        "/" + "x" * 9999,
    ):
        for method in ("GET", "POST"):
            yield "native", await client.request(method, path, json={}), 404
    for path in ("/v1/", "/v1/nowhere", "/v1/embeddings/x", "/v1/completions"):
        for method in ("GET", "POST"):
            yield "openai", await client.request(method, path, json={}), 404
    for path in (
        "/api/",
        "/api/nowhere",
        "/api/embed/x",
        "/api/chat",
        "/api/generate",
        "/api/push",
    ):
        for method in ("GET", "POST"):
            yield "ollama", await client.request(method, path, json={}), 404
    yield "openai", await client.get("/v1/models/nowhere"), 404
    for path in ("/api/embed", "/api/embeddings", "/api/show"):
        yield "ollama", await client.post(path, json={"model": "nowhere"}), 404
