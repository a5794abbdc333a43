"""What `bulk embed` wrote, stored in a collection of a running server: whole, as the model's own, and checked."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.bulk_corpora import corpus, read, run, write_jsonl
from tests.support.processes import serving

pytest.importorskip("distributed")
pytestmark = pytest.mark.bulk


def test_vectors_become_documents_that_are_found(toy_artifact: Path, tmp_path: Path) -> None:
    rows = [{**row, "year": 2000 + place} for place, row in enumerate(corpus(300, 3))]
    out, bare = tmp_path / "out", tmp_path / "bare"
    given = ("embed", write_jsonl(tmp_path / "a.jsonl", rows), "--model", toy_artifact)
    run(*given, "--out", out, "--with-text", "--keep", "year:int")
    run(*given, "--out", bare)
    with serving(toy_artifact, tmp_path) as server:
        load = ("load", out, "--url", server.url, "--collection", "laws")
        embedded = server.metric("texts_total")
        said, _ = run(*load)
        assert said.startswith(f"added {len(rows)}, unchanged 0, ")
        # Again: nothing is stored twice.
        said, _ = run(*load)
        assert said.startswith(f"added 0, unchanged {len(rows)}, ")
        with server.client() as client:
            stats = client.get("/collections/laws").json()
            assert stats["documents"] == len(rows)
            assert stats["fingerprint"] == client.get("/info").json()["fingerprint"]
            asked = {"ids": ["3-7"], "include_vectors": True}
            (stored,) = client.post("/collections/laws/documents/get", json=asked).json()[
                "documents"
            ]
            assert stored["metadata"] == {"year": 2007}
            vectors = {id: row["vector"] for (id, _), row in read(out).items()}
            np.testing.assert_allclose(stored["vector"], vectors["3-7"], atol=2e-3)
            question = {"query": f"{rows[7]['title'] or ''}\n{rows[7]['text']}", "top_k": 1}
            (hit,) = client.post("/collections/laws/search", json=question).json()["hits"]
            assert hit["id"] == "3-7"
            # A few texts of each request were embedded to compare them; the rest was taken as it is.
            assert server.metric("texts_total") - embedded < len(rows) / 10
            # Vectors of another model are refused before any is stored.
            other = {"name": "other", "embedder": "theirs", "dimension": 32}
            assert client.post("/collections", json=other).status_code == 201
            _, error = run("load", out, "--url", server.url, "--collection", "other", status=1)
            assert "theirs" in error
            assert client.get("/collections/other").json()["documents"] == 0
        _, error = run("load", bare, "--url", server.url, status=1)
        assert "vectors without texts" in error
        _, error = run("load", tmp_path, "--url", server.url, status=1)
        assert "has no _manifest.json" in error


def test_server_of_another_model_takes_no_vectors(
    toy_artifact: Path, shipped_artifact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    path = write_jsonl(tmp_path / "a.jsonl", corpus(9))
    run("embed", path, "--out", out, "--model", toy_artifact, "--with-text")
    with serving(shipped_artifact, tmp_path) as server:
        _, error = run("load", out, "--url", server.url, "--collection", "laws", status=1)
        assert "no model with the fingerprint" in error
        with server.client() as client:
            assert "laws" not in client.get("/collections").text
