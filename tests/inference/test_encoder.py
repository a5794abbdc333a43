"""The encoder against itself, and the self-test that keeps a wrong model from serving."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.config import Config, ModelPlace, ModelPlaces
from server.errors import BadArtifact
from server.inference import speed
from server.inference.comparison import SAME_VECTORS, USABLE_VECTORS, row_cosines
from server.inference.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, file_sha256
from server.inference.model import Model
from server.inference.registry import opened
from server.types import Ids
from tests.support.encoders import batches
from tests.support.toys import toy_texts


@pytest.fixture
def folder(toy_artifact: Path, tmp_path: Path) -> Path:
    """A copy of the toy artifact that a test may damage."""
    return Path(shutil.copytree(toy_artifact, tmp_path / "artifact"))


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def replace(folder: Path, name: str, content: bytes) -> None:
    """Put another file in place, with its hash in the manifest: only loading shows that it is wrong."""
    (folder / name).write_bytes(content)
    edit(folder, lambda manifest: manifest["files"].update({name: file_sha256(folder / name)}))


def sorted_ids(model: Model, texts: list[str]) -> list[Ids]:
    return sorted(model.tokenizer.encode(texts).ids, key=len)


def test_batch_gives_the_vectors_of_its_texts_alone(toy_model: Model) -> None:
    ids = sorted_ids(toy_model, toy_texts(120))
    alone = np.concatenate([toy_model.encoder.encode([row]) for row in ids])
    for part in batches(toy_model.encoder.packing, ids):
        together = toy_model.encoder.encode(ids[part])
        assert together.dtype == np.float32
        np.testing.assert_allclose(together, alone[part], rtol=0, atol=1e-5)
    assert alone.shape == (120, 32)


def test_one_session_serves_several_threads_at_once(toy_model: Model) -> None:
    ids = sorted_ids(toy_model, toy_texts(200))
    alone = [toy_model.encoder.encode([row]) for row in ids]
    with ThreadPoolExecutor(4) as pool:
        crowded = list(pool.map(lambda row: toy_model.encoder.encode([row]), ids))
    np.testing.assert_array_equal(np.concatenate(crowded), np.concatenate(alone))


def test_opening_twice_gives_the_same_vectors(toy_artifact: Path, toy_model: Model) -> None:
    texts = toy_texts(20)
    np.testing.assert_array_equal(Model(toy_artifact).embed(texts), toy_model.embed(texts))


def test_wide_encoder_gives_the_same_vectors(toy_artifact: Path, toy_model: Model) -> None:
    wide = Model(toy_artifact, 2).wide
    assert wide is not None and toy_model.wide is None
    ids = sorted_ids(toy_model, toy_texts(50))
    alone = np.concatenate([toy_model.encoder.encode([row]) for row in ids])
    found = np.concatenate([wide.encode([row]) for row in ids])
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)


def test_wide_encoder_of_the_shipped_model_gives_the_same_vectors(shipped_artifact: Path) -> None:
    model = Model(shipped_artifact, 2)
    assert model.wide is not None
    random = np.random.default_rng(0)
    # Products of these lengths are shared out among threads in other pieces.
    for length in range(2, 81):
        text = [random.integers(1000, 8000, length)]
        alone, found = model.encoder.encode(text), model.wide.encode(text)
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5, err_msg=f"{length} tokens")


def test_exporting_machine_passes_its_own_self_test(toy_model: Model) -> None:
    assert toy_model.self_test_agreement >= SAME_VECTORS


def check_refused(folder: Path, *said: str) -> None:
    with pytest.raises(BadArtifact) as refusal:
        Model(folder)
    for word in (str(folder), *said):
        assert word in refusal.value.english
        assert word in refusal.value.chinese


def rotate(manifest: Any) -> None:
    test = manifest["self_test"][-1]
    test["vector"] = test["vector"][1:] + test["vector"][:1]


def swap_texts(manifest: Any) -> None:
    first, second = manifest["self_test"][:2]
    first["text"], second["text"] = second["text"], first["text"]


def shorten(manifest: Any) -> None:
    for test in manifest["self_test"]:
        test["vector"].pop()


def lie_about_the_dimension(manifest: Any) -> None:
    manifest["dimension"] = 64


def zero(manifest: Any) -> None:
    manifest["self_test"][0]["vector"] = [0.0] * 32


@pytest.mark.parametrize("change", [rotate, swap_texts, shorten, lie_about_the_dimension, zero])
def test_self_test_with_other_vectors_refuses(
    folder: Path, change: Callable[[Any], object]
) -> None:
    edit(folder, change)
    check_refused(folder, str(USABLE_VECTORS))


@pytest.mark.parametrize(
    ("similarity", "normalized", "warned"),
    [(None, True, False), ("dot", True, False), ("dot", False, True), ("manhattan", True, True)],
)
def test_model_whose_order_searches_do_not_follow_is_opened_with_a_warning(
    similarity: str | None,
    normalized: bool,
    warned: bool,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def change(manifest: Any) -> None:
        # An artifact of an earlier exporter does not state it.
        manifest.pop("similarity", None)
        manifest["normalized"] = normalized
        if similarity is not None:
            manifest["similarity"] = similarity

    edit(folder, change)
    (model,) = opened(Config(model=ModelPlaces([ModelPlace(folder, "law")]), lanes=1))
    assert model.manifest.similarity == (similarity or "cosine")
    said = [each.message for each in caplog.records if "may rank worse" in each.message]
    assert len(said) == warned
    assert all(
        each.startswith(f"law: this model was trained to compare vectors by {similarity}")
        for each in said
    )


def test_slightly_other_vectors_are_served_and_told(folder: Path) -> None:
    def bend(manifest: Any) -> None:
        for test in manifest["self_test"]:
            vector = np.array(test["vector"])
            noise = np.random.default_rng(0).standard_normal(len(vector)) * 0.015
            test["vector"] = (vector + noise).tolist()

    edit(folder, bend)
    assert USABLE_VECTORS < Model(folder).self_test_agreement < SAME_VECTORS


def test_model_of_other_weights_is_refused(folder: Path, toy_artifact: Path) -> None:
    def other_text_rules(manifest: Any) -> None:
        manifest["text"]["max_tokens"] = 4

    edit(folder, other_text_rules)
    check_refused(folder)


def test_model_that_cannot_compute_the_text_whose_time_is_measured_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The graph has positions for 64 tokens.
    def promise_more(manifest: Any) -> None:
        manifest["text"]["max_tokens"] = 128
        manifest["self_test"] = [min(manifest["self_test"], key=lambda test: len(test["text"]))]

    edit(folder, promise_more)
    monkeypatch.setattr(speed, "MEASURED_TOKENS", 100)
    check_refused(folder, MODEL_FILE)


def test_artifact_says_how_long_a_text_among_other_lengths_may_be(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update({"packed_tokens": 20}))
    encoder = Model(folder).encoder
    assert encoder.packing.longest == 20
    short, longer = np.zeros(20, np.int64), np.zeros(21, np.int64)
    assert encoder.encode([short, short[:9]]).shape == (2, 32)
    assert encoder.encode([longer, longer]).shape == (2, 32)
    with pytest.raises(ValueError, match="texts of 9, 21 tokens"):
        encoder.encode([longer, short[:9]])


def test_artifact_that_does_not_say_takes_any_lengths_together(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.pop("packed_tokens"))
    model = Model(folder)
    assert model.encoder.packing.longest == model.manifest.text.max_tokens


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
@pytest.mark.parametrize("content", [b"", b"{}", b"no such format", b"\xff" * 100])
def test_file_of_another_format_is_refused_by_name(folder: Path, name: str, content: bytes) -> None:
    replace(folder, name, content)
    check_refused(folder, name)


def test_tokenizer_with_ids_beyond_the_model_is_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / TOKENIZER_FILE).read_bytes())
    vocabulary = tokenizer["model"]["vocab"]
    for token in vocabulary:
        if not token.startswith("["):
            vocabulary[token] += 100_000
    replace(folder, TOKENIZER_FILE, json.dumps(tokenizer).encode())
    check_refused(folder)


def test_cosines_are_of_rows_and_a_zero_row_has_none() -> None:
    a = np.array([[3, 4], [1, 0], [0, 0]], dtype=np.float32)
    b = np.array([[6, 8], [0, 2], [1, 1]], dtype=np.float32)
    np.testing.assert_allclose(row_cosines(a, b), [1, 0, 0])
