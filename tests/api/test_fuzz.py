"""Random requests are answered or refused with a message, without a 5xx, a hang or a leak."""

import asyncio
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.types import ASGIApp

from server.api.openapi import examples
from server.app import every_operation
from server.config import Config
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.support.clients import Wire, app_of, lifespan, run, serving, stateful
from tests.support.dialects import AS_JSON, FORMS, NATIVE, OPENAI, TEI, check_error
from tests.support.fakes import PATIENCE_S

OPERATIONS = every_operation(Config(), Metrics())
# The bodies of those that take a file are no JSON.
POSTS = sorted({each.path for each in OPERATIONS if each.method == "POST" and not each.is_file})
# The time limit of one case, which may wait for a reindexing or a write.
CASE_S = 10.0
# Resident memory may grow by this much after the first 10,000 cases: allocators keep some of what the
# largest batches took.
GROWTH_BYTES = 64 << 20
MAX_BODY_BYTES = 100_000


# --- bodies that almost are what they should be ---------------------------------------------------

ODD_VALUES = [
    b"null", b"true", b"0", b"-1", b"-0", b"1.5", b"1e999", b"-1e999", b"1e-999", b"NaN", b"Infinity",
    b"-Infinity", b"2147483648", b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", b"1" + b"0" * 400, b"1" + b"0" * 5000, b'""', b'"\\u0000"',
    b'"\\ud800"', b'"\\udc00x"', b'"\xff"', b'"\xed\xa0\x80"', b"[]", b"[[]]", b"{}", b'[""]',
    b'["a",["b"]]', b"[1,2]", b'{"$not":{}}', b'{"$or":[]}', b'{"$gt":1e999}', b'{"a":{"b":[1]}}',
    b"[" * 200 + b"]" * 200, b'{"a":' * 200 + b"1" + b"}" * 200, b"[" * 3000, b'"' + b"x" * 9000 + b'"',
    b'["' + b'a","' * 2100 + b'"]',
]  # fmt: skip
ODD_KEYS = [b'""', b'"\\u0000"', b'"$and"', b'"a.b"', b'"' + b"k" * 2000 + b'"', b'"\\ud800"']
ODD_STARTS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\x1f\x8b\x08\x00", b" \n\t" * 50]


def mutated(random: random.Random, body: bytes) -> bytes:
    """Return the body after one to three random changes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        body = random.choice(MUTATIONS)(random, body)
    return body[: MAX_BODY_BYTES + 1000]


def _flipped(random: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(random.randint(1, 4)):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: random.Random, body: bytes) -> bytes:
    begin, end = sorted((random.randint(0, len(body)), random.randint(0, len(body))))
    return random.choice((body[:begin], body[begin:end], body[:begin] + body[end:]))


def _repeated(random: random.Random, body: bytes) -> bytes:
    begin, end = sorted((random.randint(0, len(body)), random.randint(0, len(body))))
    return body[:end] + body[begin:end] * random.choice((1, 2, 50)) + body[end:]


def _inserted(random: random.Random, body: bytes) -> bytes:
    place = random.randint(0, len(body))
    return body[:place] + random.choice(ODD_VALUES + ODD_KEYS + ODD_STARTS) + body[place:]


def _prefixed(random: random.Random, body: bytes) -> bytes:
    return random.choice(ODD_STARTS) + body


def _recoded(random: random.Random, body: bytes) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(random.choice(("utf-16", "utf-16-le", "utf-32", "gb18030")))


def _replaced(random: random.Random, body: bytes) -> bytes:
    """Replace a value somewhere in the JSON, which mostly stays valid."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return _inserted(random, body)
    if not isinstance(value, dict) or not value:
        return random.choice(ODD_VALUES)
    places = list(_places(value))
    container, key = random.choice(places)
    mark = "the odd value"
    container[key] = mark
    text = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "replace")
    return text.replace(f'"{mark}"'.encode(), random.choice(ODD_VALUES))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _keyed(random: random.Random, body: bytes) -> bytes:
    """Add a key: an odd one, or one that is there already."""
    names = [
        b'"texts"',
        b'"inputs"',
        b'"input"',
        b'"top_k"',
        b'"dimensions"',
        b'"filter"',
        b'"ids"',
    ]
    pair = random.choice(names + ODD_KEYS) + b":" + random.choice(ODD_VALUES)
    if body.startswith(b"{"):
        return b"{" + pair + (b"," if body != b"{}" else b"") + body[1:]
    return body


MUTATIONS = (
    _flipped, _cut, _repeated, _inserted, _prefixed, _recoded, _replaced, _replaced, _replaced, _keyed,
)  # fmt: skip


# --- requests that almost are what they should be -------------------------------------------------

TYPES = [
    b"text/plain",
    b"",
    b"application/json; charset=utf-16",
    b"multipart/form-data",
    b"\xff/\x00",
]
CODINGS = [b"gzip", b"br", b"identity", b"", b"x" * 3000]
LENGTHS = [b"0", b"-1", b"1e3", b"99", b"99999999999", b"9" * 5000, b"\xb2"]


class Case(NamedTuple):
    path: str
    headers: list[tuple[bytes, bytes]]
    parts: list[bytes]

    @classmethod
    def of(cls, random: random.Random, path: str) -> "Case":
        """Return a case for this route: a correct request with something changed."""
        seeds = list(examples(path).values())
        body = json.dumps(random.choice(seeds), ensure_ascii=random.random() < 0.5).encode()
        body = mutated(random, body)
        headers = [(b"content-type", b"application/json")]
        if random.random() < 0.05:
            headers = [(b"content-type", random.choice(TYPES))]
        if random.random() < 0.05:
            headers.append((b"content-encoding", random.choice(CODINGS)))
            body = gzip.compress(body) if random.random() < 0.5 else body
        if random.random() < 0.1:
            headers.append((b"content-length", random.choice(LENGTHS)))
        if random.random() < 0.8:
            return cls(path, headers, [body])
        step = random.choice((1, 7, 1000)) if len(body) < 3000 else 1000
        parts = [body[place : place + step] for place in range(0, len(body), step)]
        return cls(path, headers, [*parts, b""])


async def answer(app: ASGIApp, case: Case) -> Wire:
    """Return the server's answer, which must come within CASE_S."""
    wire = Wire(case.path.replace("{model:path}", "toy").format(collection="laws"), case.parts)
    wire.scope["headers"] = case.headers
    await asyncio.wait_for(app(wire.scope, wire.receive, wire.send), CASE_S)
    return wire


def check_answer(case: Case, wire: Wire) -> None:
    """Check that the answer is complete, JSON, and no fault of the server."""
    said = b"".join(message.get("body", b"") for message in wire.sent)
    context = (
        f"{case.path} {case.headers} {b''.join(case.parts)[:2000]!r}: {wire.status} {said[:500]!r}"
    )
    assert wire.status < 500 or wire.status == 503, context
    headers = dict(wire.sent[0]["headers"])
    if headers[b"content-type"] == b"application/octet-stream":
        # A backup.
        assert wire.status == 200 and said.startswith(b"SQLite format 3"), context
        return
    streamed = headers[b"content-type"] == b"application/x-ndjson"
    if streamed:
        assert wire.sent[-1] == {"type": "http.response.body", "body": b""}, context
    else:
        assert headers[b"content-length"] == str(len(said)).encode(), context
    try:
        body = [json.loads(line) for line in said.splitlines()] if streamed else json.loads(said)
    except ValueError:
        raise AssertionError(context) from None
    blames = isinstance(body, dict) and not body.keys().isdisjoint(("error", "message"))
    assert (wire.status >= 400) == blames, context


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


async def emptied(app: ASGIApp) -> None:
    """Remove all collections, and create one named "laws"."""
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://inkwell"
    )
    async with client:
        for one in (await client.get("/collections")).json()["collections"]:
            gone = await client.delete(f"/collections/{one['name']}")
            assert gone.status_code in (200, 409), gone.text
        await client.post("/collections", json={"name": "laws"})
        await client.post("/documents", json=examples("/documents")["two"])


def fuzz(model: Model, cases: int, seed: int) -> dict[int, int]:
    """Return the statuses and their counts; check that memory stays bounded."""
    statuses: dict[int, int] = {}

    async def test() -> None:
        app = app_of(model, lanes=1, max_body_bytes=MAX_BODY_BYTES)
        dice = random.Random(seed)
        begun = 0
        async with lifespan(app) as state:
            served = stateful(app, state)
            for number in range(cases):
                if number % 250 == 0:
                    await emptied(served)
                if number == 10_000:
                    begun = resident()
                case = Case.of(dice, dice.choice(POSTS))
                wire = await answer(served, case)
                check_answer(case, wire)
                statuses[wire.status] = statuses.get(wire.status, 0) + 1
            if begun:
                assert resident() - begun < GROWTH_BYTES, (begun, resident())

    asyncio.run(test())
    return statuses


def test_mutated_bodies_are_answered_or_refused(toy_model: Model) -> None:
    statuses = fuzz(toy_model, 2_000, seed=1)
    assert sum(statuses.values()) == 2_000
    assert statuses[200] > 100 and statuses[400] > 500 and statuses[413] and statuses[415]


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_mutated_bodies_are_answered_or_refused(toy_model: Model) -> None:
    statuses = fuzz(toy_model, 100_000, seed=2)
    assert sum(statuses.values()) == 100_000


# --- many at once ---------------------------------------------------------------------------------


async def client_at_random(client: httpx.AsyncClient, seed: int, requests: int) -> set[int]:
    """Create, fill, search, reindex and remove two collections; return the statuses."""
    dice = random.Random(seed)
    bodies: dict[str, Any] = {
        "documents": examples("/documents")["two"],
        "documents/delete": {"ids": ["a"]},
        "search": {"query": "AI", "mode": "hybrid"},
        "reindex": {},
    }
    statuses = set()
    for _ in range(requests):
        name = dice.choice(("laws", "default"))
        one = f"/collections/{name}"
        if dice.random() < 0.5:
            path = dice.choice(list(bodies))
            answer = await client.post(f"{one}/{path}", json=bodies[path])
        elif dice.random() < 0.4:
            answer = await client.post("/collections", json={"name": name})
        elif dice.random() < 0.4:
            answer = await client.delete(one)
        else:
            path = dice.choice(("/collections", f"{one}/stats", f"{one}/documents", one))
            answer = await client.get(path)
        assert answer.status_code < 500, (answer.request.method, answer.request.url, answer.text)
        statuses.add(answer.status_code)
    return statuses


@pytest.mark.parametrize(
    "requests", [60, pytest.param(3_000, marks=[pytest.mark.slow, pytest.mark.fuzz])]
)
def test_collections_come_and_go_under_many_clients(toy_model: Model, requests: int) -> None:
    async def test() -> None:
        async with serving(toy_model) as client:
            every = (client_at_random(client, seed, requests) for seed in range(8))
            statuses = set().union(*await asyncio.gather(*every))
        assert {200, 201, 202, 404, 409} <= statuses

    asyncio.run(asyncio.wait_for(test(), 40 * PATIENCE_S if requests > 100 else PATIENCE_S))


# --- what exactly is refused ----------------------------------------------------------------------

DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000
HUGE = b"1" + b"0" * 30
LONGEST = b"9" * 5000
REFUSED: dict[str, tuple[str, bytes, str]] = {
    # Path, body, and words of the message; the status is 400.
    "2,049 inputs": ("/v1/embeddings", b'{"input":[' + b'"a",' * 2048 + b'"a"]}', "2049"),
    "2,049 texts": ("/embed", b'{"texts":[' + b'"a",' * 2048 + b'"a"]}', "2049"),
    "no inputs": ("/v1/embeddings", b'{"input":[]}', "empty"),
    "empty input": ("/v1/embeddings", b'{"input":""}', "text 0 is empty"),
    "nested inputs": ("/v1/embeddings", b'{"input":[["a"]]}', "token ids"),
    "huge dimensions": ("/embed", b'{"texts":["a"],"dimensions":' + HUGE + b"}", "dimensions"),
    "longest dimensions": ("/embed", b'{"texts":["a"],"dimensions":' + LONGEST + b"}", "dimensions"),
    "NaN": ("/search", b'{"query":"a","min_score":NaN}', "JSON"),
    "infinity": ("/search", b'{"query":"a","min_score":Infinity}', "JSON"),
    "infinite number": ("/search", b'{"query":"a","min_score":1e999}', "min_score"),
    "huge top_k": ("/search", b'{"query":"a","top_k":' + HUGE + b"}", "top_k"),
    "longest top_k": ("/search", b'{"query":"a","top_k":' + LONGEST + b"}", "top_k"),
    "top_k of 64 bits": ("/search", b'{"query":"a","top_k":9223372036854775807}', "top_k"),
    "negative top_k": ("/search", b'{"query":"a","top_k":-1}', "top_k"),
    "fractional top_k": ("/search", b'{"query":"a","top_k":1.5}', "top_k"),
    "top_k as text": ("/search", b'{"query":"a","top_k":"5"}', "top_k"),
    "true as top_k": ("/search", b'{"query":"a","top_k":true}', "top_k"),
    "empty query": ("/search", b'{"query":""}', "empty"),
    "no queries": ("/search", b'{"queries":[]}', "0 queries"),
    "257 queries": ("/search", b'{"queries":[' + b'"a",' * 256 + b'"a"]}', "257"),
    "nested vector": ("/search", b'{"vector":[[1]]}', "vector"),
    "short vector": ("/search", b'{"vector":[1]}', "32 finite"),
    "vector of huge numbers": ("/search", b'{"vector":[' + b"1e300," * 31 + b"1]}", "finite"),
    "vector beyond numbers": ("/search", b'{"vector":[' + b"1e999," * 31 + b"1]}", "vector"),
    "filter as list": ("/search", b'{"query":"a","filter":[1]}', "filter"),
    "deep filter": ("/search", b'{"query":"a","filter":' + DEEP + b"}", ""),
    "filter of infinity": ("/search", b'{"query":"a","filter":{"a":{"$gt":1e999}}}', "filter"),
    "weights below 0": ("/search", b'{"query":"a","mode":"hybrid","weights":{"dense":-1}}', "weights"),
    "huge weights": ("/search", b'{"query":"a","weights":{"dense":1e999}}', "weights"),
    "empty text": ("/documents", b'{"documents":[{"text":""}]}', "empty"),
    "text of numbers": ("/documents", b'{"documents":[{"text":[1]}]}', "text"),
    "empty id": ("/documents", b'{"documents":[{"text":"a","id":""}]}', "id"),
    "longest id": ("/documents", b'{"documents":[{"text":"a","id":' + LONGEST + b"}]}", "id"),
    "fractional id": ("/documents", b'{"documents":[{"text":"a","id":1.5}]}', "id"),
    "metadata as list": ("/documents", b'{"documents":[{"text":"a","metadata":[]}]}', "metadata"),
    "deep metadata": ("/documents", b'{"documents":[{"text":"a","metadata":' + DEEP + b"}]}", ""),
    "half a pair": ("/documents", b'{"documents":[{"text":"\\ud800"}]}', ""),
    "half a pair in metadata": (
        "/documents", b'{"documents":[{"text":"a","metadata":{"k":"\\ud800"}}]}', "",
    ),
    "half a pair as key": (
        "/documents", b'{"documents":[{"text":"a","metadata":{"\\ud800":1}}]}', "",
    ),
    "half a pair as id": ("/documents", b'{"documents":[{"text":"a","id":"\\ud800"}]}', ""),
    "invalid UTF-8": ("/documents", b'{"documents":[{"text":"\xff"}]}', ""),
    "two marks": ("/documents", b'\xef\xbb\xbf' * 2 + b'{"documents":[]}', "JSON"),
    "NUL behind": ("/documents", b'{"documents":[]}\0', "JSON"),
    "UTF-16": ("/documents", '{"documents":[]}'.encode("utf-16"), "JSON"),
    "ids and filter": ("/documents/delete", b'{"ids":["a"],"filter":{"a":1}}', "ids"),
    "neither": ("/documents/delete", b"{}", "ids"),
    "empty filter": ("/documents/delete", b'{"filter":{}}', "filter"),
    "number as name": ("/collections", b'{"name":1}', "name"),
    "dots as name": ("/collections", b'{"name":".."}', "name"),
    "slash in name": ("/collections", b'{"name":"a/b"}', "name"),
    "NUL in name": ("/collections", b'{"name":"a\\u0000"}', "name"),
    "huge chunks": ("/collections", b'{"name":"a","chunks":{"size":' + HUGE + b"}}", "size"),
    "chunks of nothing": ("/collections", b'{"name":"a","chunks":{"size":0}}', "size"),
    "negative overlap": ("/reindex", b'{"chunks":{"size":40,"overlap":-1}}', "overlap"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_with_a_reason(toy_model: Model, case: str) -> None:
    path, content, said = REFUSED[case]

    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.post(path, content=content, headers=AS_JSON)
        dialect = "openai" if path.startswith("/v1/") else "native"
        assert said in check_error(dialect, answer, 400)

    run(test, toy_model)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "X"])
def test_compressed_body_is_refused_with_a_sentence(toy_model: Model, coding: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for form in FORMS:
            content = gzip.compress(json.dumps(form.body(["a"])).encode())
            headers = {**AS_JSON, "content-encoding": coding}
            answer = await client.post(form.path, content=content, headers=headers)
            dialect = "native" if form is TEI else form.dialect
            message = check_error(dialect, answer, 415, "unsupported_media_type")
            assert coding.lower() in message and "uncompressed" in message

    run(test, toy_model)


def test_body_that_names_no_coding_is_read(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for coding in ("identity", "Identity", ""):
            content = json.dumps(OPENAI.body("a"))
            headers = {**AS_JSON, "content-encoding": coding}
            answer = await client.post(OPENAI.path, content=content, headers=headers)
            assert answer.status_code == 200

    run(test, toy_model)


def test_length_of_thousands_of_digits_is_too_large(toy_model: Model) -> None:
    async def test() -> None:
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            length = (b"content-length", b"9" * 5000)
            json_type = (b"content-type", b"application/json")
            case = Case(NATIVE.path, [json_type, length], [b"{}"])
            wire = await answer(stateful(app, state), case)
            assert (wire.status, wire.taken) == (413, 0)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_beyond_the_limit_is_refused_before_it_is_whole(toy_model: Model) -> None:
    async def test() -> None:
        app = app_of(toy_model, lanes=1, max_body_bytes=MAX_BODY_BYTES)
        async with lifespan(app) as state:
            for path in POSTS:
                case = Case(path, [(b"content-type", b"application/json")], [b" " * 10_000] * 100)
                wire = await answer(stateful(app, state), case)
                assert wire.status == 413
                assert wire.taken == MAX_BODY_BYTES // 10_000 + 1

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
