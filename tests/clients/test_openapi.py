"""The OpenAPI document is read by programs that make tools and code of it."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from datamodel_code_generator import DataModelType, GenerateConfig, InputFileType, generate
from fastmcp import Client, FastMCP


def document(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    return found


def test_fastmcp_makes_a_tool_of_every_operation_and_they_work(url: str) -> None:
    described = document(url)
    names = {one["operationId"] for path in described["paths"].values() for one in path.values()}

    async def call() -> None:
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            async with Client(FastMCP.from_openapi(described, client=http)) as client:
                assert {tool.name for tool in await client.list_tools()} == names
                made = await client.call_tool("create_collection", {"name": "tools"})
                assert made.structured_content["name"] == "tools"
                new = [{"id": "a", "text": "人工智能正在改变世界。"}]
                told = {"collection": "tools", "documents": new}
                await client.call_tool("add_documents_in_collection", told)
                asked = {"collection": "tools", "query": "人工智能", "highlight": True}
                found = await client.call_tool("search_in_collection", asked)
                # It wraps an answer of one of several types.
                (hit,) = found.structured_content["result"]["hits"]
                assert hit["id"] == "a" and hit["highlights"]
                await client.call_tool("remove_collection", {"collection": "tools"})

    asyncio.run(call())


def test_generated_models_read_what_the_server_answers(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "models.py"
    text = httpx.get(f"{url}/openapi.json", trust_env=False).text
    config = GenerateConfig(
        input_file_type=InputFileType.OpenAPI,
        output=file,
        formatters=[],
        output_model_type=DataModelType.PydanticV2BaseModel,
    )
    generate(text, config=config)
    spec = importlib.util.spec_from_file_location("models", file)
    assert spec and spec.loader
    models = importlib.util.module_from_spec(spec)
    # Annotations are looked up in it.
    monkeypatch.setitem(sys.modules, "models", models)
    spec.loader.exec_module(models)
    info = httpx.get(f"{url}/collections", trust_env=False).json()
    assert models.CollectionList(**info).collections is not None
    assert models.SearchRequest(query="a").top_k == 10
