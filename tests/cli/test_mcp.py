"""The MCP server beside a real server, asked by the official client; `make test-mcp` installs it."""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx
import pytest

from tests.support.fakes import eventually
from tests.support.processes import ROOT, Server, command, environment, serving

mcp = pytest.importorskip("mcp")

from mcp.client.client import Client  # noqa: E402
from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

LONG = "".join(f"第{n}段讲人工智能。" for n in range(800))
DOCUMENTS = [
    {"id": "a", "text": "人工智能正在改变世界。", "metadata": {"year": 2024, "note": "长" * 500}},
    {"id": "b", "text": "深圳是一个高速发展的城市。", "title": "城市", "metadata": {"year": 2020}},
    {"id": "dir/长", "text": LONG},
]
Use = Callable[[Any], Awaitable[None]]


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(toy_artifact, tmp_path_factory.mktemp("served")) as served:
        with served.client() as client:
            assert client.post("/documents", json={"documents": DOCUMENTS}).status_code == 200
            assert client.post("/collections", json={"name": "notes"}).status_code == 201
        yield served


@pytest.fixture(scope="module")
def guarded(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with keys, and one that may search."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys.jsonl"
    asked = command("key", "new", "agent", "--scopes", "search", "--keys", keys)
    with Popen(asked, stdout=PIPE, stderr=PIPE, cwd=ROOT, env=environment(), text=True) as made:
        key = made.communicate()[0].split()[-1]
    with serving(toy_artifact, folder, "--keys", str(keys)) as served:
        yield served, key


def over_stdio(url: str, use: Use, *flags: str, key: str = "") -> None:
    """Call the tools as the agent that starts the command."""
    variables = {"INKWELL_API_KEY": key} if key else {}
    started = StdioServerParameters(
        command=sys.executable,
        args=command("mcp", "--url", url, *flags)[1:],
        env=dict(environment(**variables)),
        cwd=str(ROOT),
    )

    async def call() -> None:
        async with Client(stdio_client(started)) as client:
            await use(client)

    asyncio.run(call())


@pytest.fixture(scope="module")
def door(server: Server) -> Iterator[str]:
    yield from listening(server.url)


def listening(url: str, *flags: str) -> Iterator[str]:
    """Yield the address of the MCP server over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    asked = command("mcp", "--url", url, "--http", address, *flags)
    with Popen(asked, stderr=PIPE, cwd=ROOT, env=environment()) as process:
        try:
            eventually(lambda: reachable(address) or process.poll() is not None)
            assert process.poll() is None, process.communicate()[1].decode()
            yield f"http://{address}/mcp"
        finally:
            process.terminate()
            assert process.wait(10) in (0, -15)


def reachable(address: str) -> bool:
    try:
        httpx.get(f"http://{address}/", trust_env=False)
    except httpx.TransportError:
        return False
    return True


def over_http(url: str, use: Use, key: str = "") -> None:
    import httpx2

    async def call() -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
            async with Client(streamable_http_client(url, http_client=http)) as client:
                await use(client)

    asyncio.run(call())


async def called(client: Any, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert json.loads(answer.content[0].text) == answer.structured_content
    return answer.structured_content


async def refused(client: Any, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)


async def search_and_read(client: Any) -> None:
    found = await called(client, "search", query="城市", mode="lexical")
    assert [hit["id"] for hit in found["hits"]] == ["b"] and found["warnings"] == []
    assert (found["hits"][0]["title"], found["hits"][0]["cut"]) == ("城市", None)
    found = await called(
        client, "search", query="人工智能", filter={"year": {"$gte": 2022}}, top_k=2
    )
    assert [hit["id"] for hit in found["hits"]] == ["a"]
    assert found["hits"][0]["metadata"]["note"].endswith("[cut: 500 characters]")
    listed = await called(client, "list_collections")
    assert listed == {
        "collections": [{"name": "default", "documents": 3}, {"name": "notes", "documents": 0}]
    }


def test_agents_search_over_standard_input_and_over_http(server: Server, door: str) -> None:
    over_stdio(server.url, search_and_read)
    over_http(door, search_and_read)


def test_long_documents_are_read_in_parts(door: str) -> None:
    async def use(client: Any) -> None:
        text, begin = "", 0
        while begin is not None:
            part = await called(client, "get_document", id="dir/长", begin=begin, length=3000)
            assert part["begin"] == begin and part["characters"] == len(LONG)
            text, begin = text + part["text"], part["next"]
        assert text == LONG
        beyond = await called(client, "get_document", id="b", begin=1000)
        assert (beyond["text"], beyond["begin"], beyond["next"]) == ("", 13, None)
        assert "no document 'x'" in await refused(client, "get_document", id="x")

    over_http(door, use)


def test_wrong_arguments_and_refusals_are_errors_that_say_why(door: str) -> None:
    async def use(client: Any) -> None:
        assert "top_k" in await refused(client, "search", query="a", top_k=1000)
        assert "no collection" in await refused(client, "search", query="a", collection="nowhere")
        unknown = await refused(client, "search", query="a", filter={"year": {"$near": 1}})
        assert "$near" in unknown
        # Ignored, it would search another collection.
        misspelt = await refused(client, "search", query="a", collection_name="notes")
        assert "collection_name" in misspelt
        assert "512" in await refused(client, "get_document", id="x" * 1000)

    over_http(door, use)


def test_agents_look_around_and_find_more_like_a_document(door: str) -> None:
    async def use(client: Any) -> None:
        first = await called(client, "search", query="城市", top_k=1)
        second = await called(client, "search", query="城市", top_k=1, offset=1)
        assert first["hits"][0]["id"] != second["hits"][0]["id"]
        assert first["facets"] == [] and first["hits"][0]["group"] is None
        grouped = await called(client, "search", query="城市", group_by="year", facets=["year"])
        assert {hit["group"] for hit in grouped["hits"]} == {"2020", "2024", "null"}
        counts = [{"value": "2020", "documents": 1}, {"value": "2024", "documents": 1}]
        assert grouped["facets"] == [{"key": "year", "values": counts, "complete": True}]
        alike = await called(client, "search", like=["a"])
        assert {hit["id"] for hit in alike["hits"]} == {"b", "dir/长"}
        both = await called(client, "search", query="城市", like=["a"], top_k=1)
        assert both["hits"][0]["id"] == "b"
        assert "give a query" in await refused(client, "search")
        assert "'x'" in await refused(client, "search", like=["x"])
        assert "pages hits" in await refused(client, "search", query="a", group_by="year", offset=1)
        beyond: list[dict[str, Any]] = [
            {"offset": -1},
            {"offset": 1001},
            {"facets": ["a"] * 6},
            {"like": []},
        ]
        for wrong in beyond:
            assert next(iter(wrong)) in await refused(client, "search", query="a", **wrong)

    over_http(door, use)


def test_tools_say_when_to_use_them_and_that_texts_are_data(door: str) -> None:
    async def use(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "get_document", "list_collections"}
        for tool in tools.values():
            assert "not instructions" in tool.description and tool.output_schema
            assert tool.annotations.read_only_hint
        assert all(mode in tools["search"].description for mode in ("hybrid", "dense", "lexical"))
        schema = tools["search"].input_schema
        assert "ctx" not in schema["properties"] and schema["additionalProperties"] is False

    over_http(door, use)


def test_documents_are_added_only_where_that_is_allowed(server: Server) -> None:
    async def use(client: Any) -> None:
        new = [
            {"text": "墨池是一个检索服务。"},
            {"id": "n", "text": "笔记", "metadata": {"by": "agent"}},
        ]
        added = await called(client, "add_documents", documents=new, collection="notes")
        assert added["ids"][1] == "n" and len(added["ids"][0]) > 8
        again = await refused(client, "add_documents", documents=new[1:], collection="notes")
        assert "409" in again
        kept = await called(client, "get_document", id="n", collection="notes")
        assert kept["metadata"] == {"by": "agent"}
        two = [{"id": "two", "text": text} for text in ("first", "second")]
        why = await refused(client, "add_documents", documents=two, collection="notes")
        assert "two documents have the id 'two'" in why
        wrong = [{"text": "x", "metdata": {}}]
        assert "metdata" in await refused(client, "add_documents", documents=wrong)

    over_stdio(server.url, use, "--allow-add")
    with server.client() as client:
        assert client.delete("/collections/notes").status_code == 200
        assert client.post("/collections", json={"name": "notes"}).status_code == 201


def test_each_caller_over_http_sends_its_own_key(guarded: tuple[Server, str]) -> None:
    server, key = guarded

    async def may(client: Any) -> None:
        assert await called(client, "list_collections") is not None

    async def may_not(client: Any) -> None:
        assert "authorization: Bearer" in await refused(client, "list_collections")

    for door in listening(server.url):
        over_http(door, may, key)
        over_http(door, may_not)
        over_http(door, may_not, "wrong")
    over_stdio(server.url, may, key=key)
    over_stdio(server.url, may_not)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({}, 200),
    ],
)
def test_web_pages_do_not_reach_the_tools(door: str, headers: dict[str, str], status: int) -> None:
    asked = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "page", "version": "1"},
        },
    }
    sent = {"accept": "application/json, text/event-stream", **headers}
    assert httpx.post(door, json=asked, headers=sent, trust_env=False).status_code == status


def test_a_server_without_keys_is_not_opened_to_other_machines(server: Server) -> None:
    asked = command("mcp", "--url", server.url, "--http", "0.0.0.0:1")
    with Popen(asked, stderr=PIPE, cwd=ROOT, env=environment()) as process:
        said = process.communicate()[1].decode()
    assert process.returncode == 1 and "asks for no key" in said
