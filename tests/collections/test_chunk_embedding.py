"""Default chunks: at most 512 tokens, counted as the model's tokenizer counts them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from tokenizers import processors

from server.collections.chunk_embedding import (
    Chunked,
    chunk_documents,
    default_chunks,
    longest_chunk,
)
from server.config import Config
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.inference.tokenizer import Tokenizer
from server.store.records import ChunkRules, Document
from server.telemetry.metrics import Metrics
from server.types import Ids, Packing, Vectors
from tests.support.clients import run
from tests.support.fakes import with_parts
from tests.support.toys import VOCABULARY, tokenizer


class Endless:
    """An encoder of texts of any length: a vector by the number of tokens."""

    packing = Packing(groups=4, longest=8192)

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        return np.array([[len(ids), *range(31)] for ids in texts], dtype=np.float32)


def reading(
    model: Model, max_tokens: int, *, special: str = "[CLS] $A [SEP]", **rules: Any
) -> Model:
    """The toy model with another maximum, other special tokens or an instruction."""
    text = msgspec.structs.replace(model.manifest.text, max_tokens=max_tokens, **rules)
    described = tokenizer()
    described.post_processor = processors.TemplateProcessing(
        single=special,
        special_tokens=[(name, VOCABULARY.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return with_parts(
        model,
        manifest=msgspec.structs.replace(model.manifest, text=text),
        tokenizer=Tokenizer(described.to_str(), text),
        encoder=Endless(),
        wide=None,
    )


def sizes(model: Model) -> tuple[int, ChunkRules]:
    """The longest chunk and the default ones."""

    async def inside() -> tuple[int, ChunkRules]:
        models = ModelRegistry([model], Config(lanes=1), Metrics(), asyncio.get_running_loop())
        try:
            return longest_chunk(models.default), default_chunks(models.default)
        finally:
            await asyncio.to_thread(models.close)

    return asyncio.run(inside())


@pytest.mark.parametrize(
    ("max_tokens", "longest", "default"),
    [(64, 62, 62), (512, 510, 510), (513, 511, 510), (8192, 8190, 510)],
)
def test_default_chunk_is_at_most_512_tokens_whatever_the_model_reads(
    toy_model: Model, max_tokens: int, longest: int, default: int
) -> None:
    found, rules = sizes(reading(toy_model, max_tokens))
    assert (found, rules.size) == (longest, default)


@pytest.mark.parametrize(
    ("special", "number"), [("$A", 0), ("$A [SEP]", 1), ("[CLS] [CLS] $A [SEP] [SEP]", 4)]
)
def test_special_tokens_are_counted_by_the_tokenizer(
    toy_model: Model, special: str, number: int
) -> None:
    model = reading(toy_model, 100, special=special)
    longest, rules = sizes(model)
    assert longest == rules.size == 100 - number
    full, over = "墨" * longest, "墨" * (longest + 1)
    assert model.tokenizer.encode([full, over]).truncated == [1]


def test_instruction_for_documents_takes_room_of_every_chunk(toy_model: Model) -> None:
    model = reading(toy_model, 100, document_instruction="文档：")
    longest, _ = sizes(model)
    assert longest == 100 - 2 - 3
    assert model.tokenizer.encode(["墨" * longest, "墨" * (longest + 1)]).truncated == [1]


@pytest.mark.parametrize(
    ("max_tokens", "instruction", "default"),
    [(8192, 200, 310), (8192, 300, 256), (8192, 600, 256), (512, 300, 210), (512, 600, 1)],
)
def test_long_instruction_leaves_default_chunks_as_long_as_the_model_can_read(
    toy_model: Model, max_tokens: int, instruction: int, default: int
) -> None:
    _, rules = sizes(reading(toy_model, max_tokens, document_instruction="墨" * instruction))
    assert rules.size == default


def test_title_takes_room_of_every_chunk(toy_model: Model) -> None:
    """Together they are too long, each alone is not."""
    document = Document("a", "墨池。" * 13, "纸" * 30)

    async def inside() -> Chunked:
        models = ModelRegistry([toy_model], Config(lanes=1), Metrics(), asyncio.get_running_loop())
        try:
            return (await chunk_documents([document], ChunkRules(62, 0), models.default))[0]
        finally:
            await asyncio.to_thread(models.close)

    chunked = asyncio.run(inside())
    assert [document.text[begin:end] for begin, end in chunked.spans] == [
        "墨池。" * 10,
        "墨池。" * 3,
    ]
    assert chunked.texts == [f"{document.title}\n{'墨池。' * n}" for n in (10, 3)]
    assert max(toy_model.tokenizer.count(chunked.texts)) <= 62


def test_collection_of_a_model_that_reads_8192_tokens_has_chunks_of_510(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        made = await client.post("/collections", json={"name": "long"})
        assert made.json()["chunks"] == {"size": 510, "overlap": 63}
        text = "".join(f"墨池{n % 10}。" for n in range(300))
        await client.post("/collections/long/documents", json={"documents": [{"text": text}]})
        stats = (await client.get("/collections/long/stats")).json()
        assert (stats["documents"], stats["parts"]) == (1, 3)
        refused = await client.post("/collections", json={"name": "a", "chunks": {"size": 8191}})
        assert "8 to 8190" in refused.json()["error"]["message"]

    run(test, reading(toy_model, 8192))
