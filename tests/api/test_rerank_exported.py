"""A cross-encoder from its checkpoint to the answer over HTTP: the scores are those of a readable reference."""

from pathlib import Path

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer

from export.pipeline import export
from export.settings import Settings
from server.inference.model import Model
from tests.support.clients import run
from tests.support.cross_encoders import ReferenceCrossEncoder, write_cross_encoder
from tests.support.toys import toy_texts, write_toy_texts

QUERY = "墨池 search"
# Of many lengths, so that they share batches; the last ones are cut, of two the query, of one the text.
TEXTS = [*toy_texts(40, seed=5), "池" * 100]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("served") / "toy-reranker", layers=1)


@pytest.fixture(scope="module")
def reranker(checkpoint: Path) -> Model:
    beside = checkpoint.parent
    settings = Settings(
        source=str(checkpoint),
        precision="fp32",
        calibration=write_toy_texts(beside / "calibration.txt", 40),
        verify_texts=write_toy_texts(beside / "verification.txt", 20, seed=1),
    )
    return Model(export(settings))


def expected(checkpoint: Path, query: str) -> list[float]:
    reference = ReferenceCrossEncoder(checkpoint)
    library = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    library.enable_truncation(64)
    encodings = [library.encode(query, text) for text in TEXTS]
    return [reference.score(np.array(one.ids), np.array(one.type_ids)) for one in encodings]


@pytest.mark.parametrize("query", [QUERY, "天" * 90])
def test_answers_are_the_scores_of_the_reference(
    toy_model: Model, reranker: Model, checkpoint: Path, query: str
) -> None:
    logits = expected(checkpoint, query)

    async def test(client: httpx.AsyncClient) -> None:
        body = {"query": query, "texts": TEXTS, "raw_scores": True}
        ranks = (await client.post("/rerank", json=body)).json()
        found = {each["index"]: each["score"] for each in ranks}
        assert [found[place] for place in range(len(TEXTS))] == pytest.approx(logits, abs=1e-4)
        assert [each["index"] for each in ranks] == np.argsort(-np.array(logits)).tolist()
        documents = {"query": query, "documents": TEXTS, "top_n": 5}
        best = (await client.post("/v1/rerank", json=documents)).json()["results"]
        assert [each["index"] for each in best] == [each["index"] for each in ranks[:5]]
        for each in best:
            relevance = 1 / (1 + np.exp(-logits[each["index"]]))
            assert each["relevance_score"] == pytest.approx(relevance, abs=1e-4)

    run(test, toy_model, others=[reranker])
