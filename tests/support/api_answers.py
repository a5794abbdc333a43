"""The example answers of /openapi.json, recorded from a server with the shipped model.

python -m tests.support.api_answers          # print them
python -m tests.support.api_answers --write  # put them into server/api/description

Reranking and sparse weights are answered by toys. Long lists and texts are shortened; the types stay.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from server.api.description.answers import FILE
from server.api.description.names import COLLECTION, operation_id
from server.api.openapi import PARAMETER, examples
from server.api.operation import CollectionOperation
from server.app import every_operation
from server.config import Config
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.support.clients import serving
from tests.support.many_vectors import export_toy, write_toy_m3
from tests.support.processes import ROOT
from tests.support.scorers import write_toy_scorer

SHIPPED = ROOT / "models" / "bge-small-zh-v1.5" / "onnx-int8"
VALUES = {
    **{"collection": "laws", "id": "a", "model": "bge-small-zh-v1.5", "alias": "current"},
    **{"file": "index.html", "page": "en/index.html"},
}
# A page of the manual, which is built apart from the program.
MANUAL_PAGE = '<!doctype html>\n<html lang="en">\n<head><title>Inkwell</title></head>'
REPORT = "# 报告\n\n人工智能正在改变世界。"
# Items of a list, characters of a text, decimals of a number.
NUMBERS, ITEMS, CHARACTERS, DECIMALS = 4, 3, 400, 4


def operations() -> Iterator[CollectionOperation]:
    """Yield the operations in an order in which each finds what it needs."""

    def turn(each: CollectionOperation) -> float:
        inside = each.path.removeprefix(COLLECTION)
        if each.method == "DELETE":
            return 4 if inside else 5
        first = ("/collections", "/documents")
        if each.method == "PUT" or inside in ("/rename", "/restore"):
            return 1.5
        if each.method == "POST" and inside in first:
            return first.index(inside)
        return 3 if inside == "/documents/delete" else 2

    return iter(sorted(every_operation(Config(), Metrics()), key=turn))


def shortened(value: Any) -> Any:
    """Return a value that is short enough to be shown, of the same types."""
    if isinstance(value, dict):
        return {key: shortened(part) for key, part in list(value.items())[:40]}
    if isinstance(value, list):
        numbers = all(isinstance(part, int | float) for part in value)
        return [shortened(part) for part in value[: NUMBERS if numbers else ITEMS]]
    if isinstance(value, float):
        return round(value, DECIMALS)
    return value[:CHARACTERS] if isinstance(value, str) else value


async def record(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in operations():
        path = PARAMETER.sub(r"{\1}", each.path)
        name = operation_id(each.method, path)
        bodies = list(examples(each.path, each.method).values()) if each.request else [None]
        if each.path == "/manual/{page:path}":
            found[name] = MANUAL_PAGE
            continue
        if path.endswith("/files"):
            reply = await client.post(
                path.format(**VALUES),
                params={"name": "report.md"},
                content=REPORT.encode(),
                headers={"content-type": "application/octet-stream"},
            )
        elif path.endswith("/restore"):
            source = path.format(**VALUES).removesuffix("/restore")
            copy = await client.post(f"{source}/backup", json={})
            reply = await client.post(
                f"{source}/restore",
                params={"replace": "true"},
                content=copy.content,
                headers={"content-type": "application/octet-stream"},
            )
        else:
            replies = [
                await client.request(each.method, path.format(**VALUES), json=body)
                for body in bodies
            ]
            reply = replies[0]
        while reply.status_code == 409 and (each.method == "DELETE" or "/transfer" in path):
            # Its reindexing runs still.
            await asyncio.sleep(0.1)
            reply = await client.request(each.method, path.format(**VALUES), json=bodies[0])
        while each.method == "GET" and "/transfer" in path and reply.json()["state"] == "running":
            await asyncio.sleep(0.1)
            reply = await client.get(path.format(**VALUES))
        assert reply.status_code == each.status, (name, reply.text)
        if path.endswith("/rename"):
            back = {"name": VALUES["collection"] if COLLECTION in path else "default"}
            await client.post(f"/collections/{reply.json()['name']}/rename", json=back)
        if "octet" in each.plain:
            found[name] = "SQLite format 3..."
            continue
        if reply.content or each.plain:
            is_json = reply.headers.get("content-type", "").startswith("application/json")
            found[name] = shortened(reply.json() if is_json else reply.text)
    whole = found["openapi_document"]
    found["openapi_document"] = {key: whole[key] for key in ("openapi", "info", "servers")}
    return found


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        scorer = Model(write_toy_scorer(place / "bge-reranker-base" / "artifact"))
        m3 = write_toy_m3(place / "bge-m3", layers=1, max_tokens=24)
        others = [scorer, *(export_toy(m3, task) for task in ("sparse", "token_vectors"))]
        async with serving(Model(SHIPPED), others) as client:
            found = await record(client)
    text = json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if "--write" in sys.argv[1:]:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    asyncio.run(main())
