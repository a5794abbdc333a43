"""Characters that are no text are left out of chunks, and replies say how many."""

import base64
import json
import random

import httpx

from server.inference.model import Model
from tests.support.clients import run

IMAGE = base64.b64encode(random.Random(1).randbytes(900)).decode()
NOISE = f"![图](data:image/png;base64,{IMAGE})"
TEXT = f"甲甲甲。\n{NOISE}\n乙乙乙。"


def test_replies_say_how_many_characters_no_part_has(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "a", "chunks": {"size": 20, "overlap": 0}})
        documents = [{"id": "1", "text": TEXT}, {"id": "2", "text": "丙"}]
        answer = await client.post("/collections/a/documents", json={"documents": documents})
        assert answer.json() == {
            "ids": ["1", "2"],
            "stored": 2,
            "characters_left_out": len(NOISE),
        }
        stored = (await client.get("/collections/a/documents/1")).json()
        assert stored["text"] == TEXT
        assert (await client.get("/collections/a/stats")).json()["parts"] == 3
        lines = "".join(json.dumps({"text": TEXT + str(n)}) + "\n" for n in range(2))
        answer = await client.post(
            "/collections/a/documents",
            content=lines,
            headers={"content-type": "application/x-ndjson"},
        )
        assert answer.json()["characters_left_out"] == 2 * len(NOISE)
        await client.post("/collections", json={"name": "b", "chunks": None})
        answer = await client.post("/collections/b/documents", json={"documents": documents})
        assert answer.json() == {"ids": ["1", "2"], "stored": 2}

    run(test, toy_model)
