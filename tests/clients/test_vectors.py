"""Every client gets the vectors that the server computes."""

import asyncio
import re
from collections.abc import Sequence

import numpy as np
import pytest

from processes import embedded
from singles import MODEL, SINGLES
from snippets import BLOCK, DOCUMENT, SECTIONS, run

TEXTS = ["今天天气很好，适合出去郊游。", "The weather is fine today."]
QUERY = "今天适合做什么？"
EMBEDDING = [title for title in SECTIONS if not title.endswith("reranking")]


def assert_same(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> None:
    one, other = np.array(found, np.float64), np.array(expected, np.float64)
    assert one.shape == other.shape
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() >= 0.99999


def test_every_section_of_the_document_has_code() -> None:
    assert list(SECTIONS) == re.findall("^## (.+)$", DOCUMENT, re.MULTILINE)
    assert len(BLOCK.findall(DOCUMENT)) == len(SECTIONS)


@pytest.mark.parametrize("title", EMBEDDING)
def test_the_documented_code_gets_documents_and_a_query(title: str, url: str) -> None:
    found = run(title, url)
    assert_same(found["vectors"], embedded(url, TEXTS))
    assert_same([found["query"]], embedded(url, [QUERY], "query"))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("title", SINGLES)
def test_a_text_alone_gets_the_same_vector(title: str, text: str, url: str) -> None:
    assert_same([SINGLES[title](run(title, url), text)], embedded(url, [text]))


def test_openai_reads_a_query_by_input_type(url: str) -> None:
    client = run("openai", url)["client"]
    reply = client.embeddings.create(model=MODEL, input=[QUERY], extra_body={"input_type": "query"})
    assert_same([reply.data[0].embedding], embedded(url, [QUERY], "query"))


def test_openai_reads_numbers_as_well_as_base64(url: str) -> None:
    client = run("openai", url)["client"]
    reply = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert_same([each.embedding for each in reply.data], embedded(url, TEXTS))


def test_openai_lists_the_models(url: str) -> None:
    client = run("openai", url)["client"]
    assert [each.id for each in client.models.list()] == [MODEL, f"{MODEL}:query"]
    assert client.models.retrieve(MODEL).id == MODEL


def test_asynchronous_clients_get_the_same_vectors(url: str) -> None:
    from openai import AsyncOpenAI

    async def ask() -> list[list[float]]:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            reply = await client.embeddings.create(model=MODEL, input=TEXTS)
            return [each.embedding for each in reply.data]

    assert_same(asyncio.run(ask()), embedded(url, TEXTS))
