"""Static embeddings: folders of model2vec and sentence-transformers give the vectors of their libraries."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.pipeline import export
from export.settings import Settings
from server.collections import chunk_embedding
from server.collections.chunk_embedding import chunk_documents, embed_chunks
from server.collections.query_cache import QueryCache
from server.errors import EmptyInput, TextTooLong
from server.inference import offline
from server.inference.manifest import TextRules
from server.inference.model import Model
from server.inference.tokenizer import Tokenizer
from server.messages.terminal import Terminal
from server.store.records import ChunkRules, Document
from server.telemetry.metrics import Metrics
from server.types import Ids
from tests.export.test_inspection import inspected
from tests.support.checkpoints import change_json, change_tensors, refusal
from tests.support.clients import run as run_client
from tests.support.downloads import files_in, lone_hub
from tests.support.encoders import float_encoder, one_by_one
from tests.support.engines import embed, run, running
from tests.support.stand_in_hub import MODEL, StandInHub
from tests.support.static_toys import (
    expected_vectors,
    unigram,
    write_model2vec,
    write_static_embedding,
)
from tests.support.toys import toy_texts, write_modules

# White space at the ends, unknown words, more tokens than are read, and more characters.
TEXTS = [
    *toy_texts(12, seed=6),
    " ink\n",
    "zebra ink ☃",
    "墨池 " * 300,
    "ink" + " " * 600 + "server",
]

OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"kind": np.float16},
    "int8": {"kind": np.int8},
    "shared rows": {"shared": True},
    "shared rows in int8": {"shared": True, "kind": np.int8, "normalize": False},
    "as they are": {"normalize": False, "max_length": 20},
    "unigram": {"own": unigram()},
}


def read_ids(checkpoint: Checkpoint, texts: list[str]) -> list[Ids]:
    settings = checkpoint.settings
    rules = TextRules(
        settings.lower_case,
        settings.max_tokens,
        strip=settings.strip,
        max_characters=settings.max_characters,
        dropped_token=settings.dropped_token,
    )
    return list(Tokenizer(checkpoint.tokenizer_json, rules).encode(texts).ids)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_model2vec_folder_gives_the_means_of_known_tokens(
    options: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_model2vec(tmp_path, **options)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.family.name == "static"
    ids, encoder = read_ids(checkpoint, TEXTS), float_encoder(checkpoint)
    expected = expected_vectors(folder, TEXTS)
    scale = np.abs(expected).max()
    assert np.abs(one_by_one(encoder, ids) - expected).max() < 1e-5 * scale
    # Several lengths in one batch.
    assert np.abs(encoder.encode(ids[:6]) - expected[:6]).max() < 1e-5 * scale


def test_text_without_a_known_token_has_no_tokens(tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path)
    assert [len(ids) for ids in read_ids(read_checkpoint(folder), ["☃ ☃", " \n", "ink ☃"])] == [
        0,
        0,
        1,
    ]
    assert not expected_vectors(folder, ["☃ ☃"]).any()


@pytest.mark.parametrize("inner", ["0_StaticEmbedding", ""])
def test_static_embedding_keeps_unknown_tokens_and_all_of_a_text(
    inner: str, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(write_static_embedding(tmp_path, normalize=True, inner=inner))
    assert checkpoint.settings.normalize and checkpoint.settings.max_tokens == 32_768
    assert "cuts them to 32,768 tokens" in checkpoint.outline.kind.notes[0].english
    ids = read_ids(checkpoint, ["ink ☃", "墨" * 2000])
    assert [len(row) for row in ids] == [2, 2000]
    assert float_encoder(checkpoint).encode(ids[:1]).any()


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def changed(name: str, **tensors: Any) -> Path:
        folder = write_model2vec(tmp_path / name, shared=True)
        change_tensors(folder, lambda stored: stored.update(tensors))
        return folder

    refusal(changed("short", mapping=np.zeros(9, np.int64)), ShapeMismatch, "mapping has 9 rows")
    refusal(changed("few", weights=np.ones(9)), ShapeMismatch, "weights has 9 rows", "ids up to")
    high = np.full(400, 50)
    refusal(changed("high", mapping=high), CorruptFile, "rows from 50 to 50, and there are 50")
    refusal(changed("low", mapping=-high), CorruptFile, "rows from -50")
    refusal(changed("float", mapping=high / 2), UnsupportedModel, "float32")
    refusal(changed("flat", embeddings=np.ones(9, np.float32)), ShapeMismatch, "has shape (9,)")
    refusal(changed("codes", embeddings=np.ones((50, 9), np.int32)), UnsupportedModel, "int32")
    refusal(changed("nan", weights=np.full(400, np.nan)), CorruptFile, "weights holds NaN")
    save_file({"other": np.ones(3)}, changed("none") / "model.safetensors")
    refusal(tmp_path / "none", ShapeMismatch, "embeddings is missing")


@pytest.mark.parametrize(
    ("key", "value"), [("max_length", 2), ("max_length", "x"), ("normalize", 1)]
)
def test_settings_out_of_range_are_refused(key: str, value: object, tmp_path: Path) -> None:
    change_json(write_model2vec(tmp_path) / "config.json", **{key: value})
    refusal(tmp_path, CorruptFile, key)


def test_tokenizer_without_tokens_is_refused(tmp_path: Path) -> None:
    write_model2vec(tmp_path)
    LibraryTokenizer(models.WordLevel({}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    refusal(tmp_path, CorruptFile, "no vocabulary")


def test_length_that_no_artifact_reads_is_noted(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_model2vec(tmp_path, max_length=10**6))
    assert checkpoint.settings.max_tokens == 32_768
    assert "cuts them to 32,768 tokens" in checkpoint.outline.kind.notes[0].english


def test_table_beside_other_modules_is_refused(tmp_path: Path) -> None:
    write_static_embedding(tmp_path, inner="")
    write_modules(tmp_path, ["StaticEmbedding", "Pooling"])
    refusal(tmp_path, UnsupportedModel, "StaticEmbedding, Pooling")


# --- the artifact and the server ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("static")
    source = write_model2vec(folder / "potion", shared=True)
    # As models have it that were trained with padding.
    change_tensors(source, lambda stored: stored["weights"].__setitem__(0, 0))
    # Its instruction is for the model that the table was made from.
    (source / "README.md").write_text("---\nbase_model: BAAI/bge-base-en-v1.5\n---\n")
    # Of the last text the model knows nothing.
    texts = [*toy_texts(30, seed=1), "☃ ☃"]
    (folder / "texts.txt").write_text("\n".join(texts))
    settings = Settings(
        str(source), calibration=folder / "texts.txt", verify_texts=folder / "texts.txt"
    )
    return Model(export(settings, Terminal("en", StringIO(), StringIO())))


def test_artifact_holds_one_scale_a_row_and_its_rules(model: Model) -> None:
    manifest = model.manifest
    assert (manifest.family, manifest.pooling, manifest.normalized) == ("static", "mean", True)
    assert manifest.text == TextRules(False, 512, strip=False, max_characters=512, dropped_token=1)
    assert manifest.agreement.mean > 0.999 and manifest.agreement.texts == 30
    assert manifest.quantization is not None and manifest.quantization.recipe == "rowwise-int8-1"
    assert manifest.model_id == "potion" and not manifest.text.query_instruction


def test_server_gives_the_vectors_and_names_a_text_that_it_knows_nothing_of(model: Model) -> None:
    found = embed(model, TEXTS[:12]).vectors
    np.testing.assert_allclose(found, offline.embed(model, TEXTS[:12]), rtol=0, atol=1e-6)
    for call in (embed, offline.embed):
        with pytest.raises(EmptyInput, match="text 1 has no token that the model knows"):
            call(model, ["ink", "☃"])


def test_text_with_a_vector_of_zeros_is_named(model: Model) -> None:
    with pytest.raises(EmptyInput, match="gives text 1 a vector of zeros"):
        embed(model, ["ink", "[PAD]"])


def test_query_without_a_vector_is_shown(model: Model) -> None:
    """Also where the others are in the cache, so that its number is another."""

    async def ask() -> None:
        async with running(model) as engine:
            cache = QueryCache(10_000, Metrics())
            await cache.of(["ink"], engine)
            for queries in (["☃"], ["ink", "☃"], ["server", "☃", "well"]):
                with pytest.raises(EmptyInput, match="the query '☃' has no vector"):
                    await cache.of(queries, engine)

    run(ask)


def test_similarity_names_the_text_without_a_vector(model: Model) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for source, sentences, named in (
            ("☃", ["ink"], "source_sentence"),
            ("ink", ["ink", "☃"], "text 1"),
        ):
            body = {"inputs": {"source_sentence": source, "sentences": sentences}}
            reply = await client.post("/similarity", json=body)
            assert reply.status_code == 400
            assert reply.json()["error"].startswith(f"{named} has no token that the model knows")

    run_client(ask, model)


def test_document_with_a_passage_that_has_no_vector_is_named(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_embedding, "PORTION_TEXTS", 2)
    documents = [Document("a", "ink"), Document("b", "well"), Document("c", "ink " * 9 + "☃" * 9)]
    rules = ChunkRules(9, 0)

    async def write() -> None:
        async with running(model) as engine:
            chunked = await chunk_documents(documents, rules, engine)
            assert [each.texts[-1] for each in chunked] == ["ink", "well", "☃☃☃☃☃☃☃☃☃"]
            assert len(await embed_chunks(chunked[:2], engine)) == 2
            with pytest.raises(EmptyInput, match="document 'c' has a passage .*: '☃☃☃☃☃☃☃☃☃'"):
                await embed_chunks(chunked, engine)

    run(write)


def test_text_of_too_many_characters_is_cut_and_named(model: Model) -> None:
    text = "ink" + " " * 600 + "server"
    assert embed(model, ["ink", text]).truncated == [1]
    kept = embed(model, [text], keep="end").vectors
    np.testing.assert_array_equal(kept, embed(model, ["server"]).vectors)
    with pytest.raises(TextTooLong, match="text 0 has 609 characters, more than the 512"):
        embed(model, [text], truncate=False)


def test_inspection_describes_a_table(tmp_path: Path) -> None:
    for folder, part in (
        (write_model2vec(tmp_path / "a"), "an export would write about 0 MB"),
        (write_static_embedding(tmp_path / "b"), "it can be exported; its cost is not known"),
    ):
        status, said = inspected(folder)
        assert status == 0 and part in said
        assert "family: static" in said and "table: " in said and "pooling mean" in said


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    yield from lone_hub(monkeypatch)


def test_table_comes_from_a_hub(hub: StandInHub, tmp_path: Path) -> None:
    source = write_static_embedding(tmp_path / "source")
    hub.files = files_in(source)
    from export.source.hubs.hub import fetch

    fetch(MODEL, tmp_path / "model", endpoint=hub.url)
    assert read_checkpoint(tmp_path / "model").family.name == "static"
