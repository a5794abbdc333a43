"""Sparse weights and token vectors of a checkpoint, beside a readable reference."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export import inspection
from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.families import word_head
from export.onnx_file import serialize
from export.pipeline import export
from export.settings import Settings
from export.source.folder import ModelFolder
from export.source.model import examine
from server.inference.comparison import COMPARISONS, SUMMARY
from server.inference.encoder import SessionEncoder, open_encoder
from server.inference.results import ResultForm
from server.messages.terminal import Terminal
from server.types import Ids, Task
from tests.support.biased_toys import write_mpnet, write_t5
from tests.support.checkpoints import change_json, change_tensors
from tests.support.decoder_toys import write_decoder
from tests.support.encoders import batches, token_ids
from tests.support.gated_toys import write_modernbert
from tests.support.many_vectors import (
    COLBERT_WIDTH,
    ReferenceRows,
    export_toy,
    write_toy_m3,
    write_toy_splade,
)
from tests.support.toys import VOCABULARY, toy_texts, write_json, write_toy_checkpoint

TEXTS = [*toy_texts(12, seed=5), "池" * 100, "墨"]


@pytest.fixture(scope="module")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_m3(tmp_path_factory.mktemp("m3") / "toy-m3", max_tokens=48)


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splade") / "toy-splade"
    return write_toy_splade(folder, hidden=64, layers=1, max_tokens=24)


def opened(checkpoint: Checkpoint) -> SessionEncoder:
    network = checkpoint.network()
    linears = network.float_linears()
    model = serialize(network.whole(linears, int8_embeddings=False)).model
    return open_encoder(model, network.packing(linears), 1, checkpoint.outline.form)


def results(folder: Path, task: Task | None) -> tuple[list[Ids], list[Any]]:
    """Return the token ids of TEXTS, and their results in batches of several lengths."""
    checkpoint = read_checkpoint(folder, task=task)
    encoder, ids = opened(checkpoint), sorted(token_ids(checkpoint, TEXTS), key=len)
    found: list[Any] = []
    for batch in batches(encoder.packing, ids):
        found.extend(encoder.encode(ids[batch]))
    return ids, found


def as_dict(weights: Any) -> dict[int, float]:
    return dict(zip(weights.ids.tolist(), weights.weights.tolist(), strict=True))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_token_has_its_last_hidden_state(pooling: str, tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path / "toy", max_tokens=48, pooling=pooling)
    reference = ReferenceRows(folder)
    for ids, found in zip(*results(folder, "token_vectors"), strict=True):
        np.testing.assert_allclose(found, reference.rows(ids), atol=1e-4)


AS_IS: dict[str, Any] = {"pooling": "mean", "normalize": False}
WRITERS: dict[str, Callable[[Path], Path]] = {
    "modernbert": lambda folder: write_modernbert(folder, folder_options=AS_IS),
    "decoder": lambda folder: write_decoder(folder, **AS_IS),
    "mpnet": lambda folder: write_mpnet(folder, folder_options=AS_IS),
    "t5": lambda folder: write_t5(folder, folder_options=AS_IS),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_mean_of_token_vectors_is_the_dense_vector_in_every_family(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = write(tmp_path / "toy")
    for vectors, dense in zip(
        results(folder, "token_vectors")[1], results(folder, "dense")[1], strict=True
    ):
        assert len(vectors) > 2
        np.testing.assert_allclose(vectors.mean(axis=0), dense, atol=1e-4)


def test_colbert_head_gives_vectors_of_all_tokens_but_the_first(m3: Path) -> None:
    reference = ReferenceRows(m3)
    for ids, found in zip(*results(m3, "token_vectors"), strict=True):
        assert found.shape == (len(ids) - 1, COLBERT_WIDTH)
        np.testing.assert_allclose(found, reference.colbert(ids), atol=1e-5)


def test_sparse_head_gives_the_largest_weight_of_each_word(m3: Path) -> None:
    reference = ReferenceRows(m3)
    for ids, found in zip(*results(m3, "sparse"), strict=True):
        assert as_dict(found) == pytest.approx(reference.lexical_weights(ids), abs=1e-4)


def test_dense_export_of_such_a_model_is_that_without_heads(m3: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(m3)
    assert checkpoint.outline.task == "dense" and checkpoint.headed is None
    (note,) = checkpoint.outline.kind.notes
    assert "--task sparse" in note.english


def test_what_a_model_does_not_give_is_refused(m3: Path, tmp_path: Path) -> None:
    plain = write_toy_checkpoint(tmp_path / "plain")
    with pytest.raises(UnsupportedModel, match="--task may be dense, token_vectors here"):
        read_checkpoint(plain, task="sparse")
    with pytest.raises(UnsupportedModel, match="--task may be dense, token_vectors, sparse here"):
        read_checkpoint(m3, task="score")


def test_inspect_says_what_a_task_would_give(
    m3: Path, splade: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, arguments, parts in (
        (m3, ["--task", "sparse"], ("gives: sparse weights", "pooling none")),
        (m3, ["--task", "token_vectors"], ("gives: one vector per token",)),
        (splade, [], ("kind: SPLADE model", "gives: sparse weights", "pooling max")),
    ):
        assert (
            inspection.run(Terminal("en", sys.stdout, sys.stdout), [str(folder), *arguments]) == 0
        )
        said = capsys.readouterr().out
        assert all(part in said for part in parts), said
        assert "note:" not in said


def test_options_of_dense_vectors_are_refused_for_other_tasks(splade: Path) -> None:
    with pytest.raises(UnsupportedModel, match="not of the task sparse; leave out --via"):
        examine(ModelFolder(splade), Settings(str(splade), via="optimum"))
    with pytest.raises(UnsupportedModel, match="--matryoshka shortens dense vectors"):
        export(Settings(str(splade), matryoshka=(16,)))


def changed_head(folder: Path, change: Any) -> Path:
    path = folder / "sparse_linear.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return folder


def test_wrong_heads_are_refused(tmp_path: Path) -> None:
    folder = write_toy_m3(tmp_path / "wide")
    changed_head(folder, lambda tensors: tensors.update(bias=np.zeros(2, np.float32)))
    with pytest.raises(ShapeMismatch, match=r"sparse_linear.bias has shape \(2,\)"):
        read_checkpoint(folder, task="sparse")
    for width in (0, 100_000):
        tensors = {"weight": np.ones((width, 32), np.float32), "bias": np.ones(width, np.float32)}
        save_file(tensors, folder / "colbert_linear.safetensors")
        with pytest.raises(ShapeMismatch, match="colbert_linear.weight has shape"):
            read_checkpoint(folder, task="token_vectors")
    (folder / "sparse_linear.safetensors").rename(folder / "sparse_linear.pt")
    with pytest.raises(NoSuchModel, match="has only sparse_linear.pt; add --allow-pickle"):
        read_checkpoint(folder, task="sparse")


def test_rows_that_do_not_fit_the_texts_are_noticed() -> None:
    form = ResultForm("token_vectors", by_token=True)
    texts: Sequence[Ids] = [np.arange(3), np.arange(2)]
    with pytest.raises(ValueError, match="4 rows for 5 tokens"):
        form.results(np.zeros((4, 8), np.float32), texts)


# --- SPLADE ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "activation", "logarithms", "tile"),
    [
        ("max", "relu", 1, 7),
        ("sum", "relu", 1, 7),
        ("max", "log1p_relu", 2, word_head.TILE),
    ],
)
def test_splade_gives_a_weight_for_each_word(
    pooling: str,
    activation: str,
    logarithms: int,
    tile: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(word_head, "TILE", tile)
    folder = write_toy_splade(
        tmp_path / "splade", pooling=pooling, activation=activation, max_tokens=48
    )
    reference = ReferenceRows(folder)
    shares = []
    for ids, found in zip(*results(folder, None), strict=True):
        expected = reference.words(ids, pooling, logarithms)
        weights = np.zeros(len(expected))
        weights[found.ids] = found.weights
        np.testing.assert_allclose(weights, expected, atol=1e-4)
        shares.append(np.mean(expected > 0))
    assert 0.2 < np.mean(shares) < 0.8


def test_folder_without_modules_is_splade_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_toy_splade(tmp_path / "splade", max_tokens=48)
    expected = results(folder, None)[1]
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    change_json(folder / "tokenizer_config.json", model_max_length=48)
    with pytest.raises(UnsupportedModel, match="add --task sparse for SPLADE"):
        read_checkpoint(folder)
    found = read_checkpoint(folder, task="sparse")
    assert found.outline.task == "sparse" and len(expected) == len(TEXTS)


def test_other_modules_of_sparse_models_are_refused(tmp_path: Path) -> None:
    folder = write_toy_splade(tmp_path / "splade")
    change_json(folder / "1_SpladePooling" / "config.json", pooling_strategy="mean")
    with pytest.raises(UnsupportedModel, match="pooling_strategy 'mean'.* is not written"):
        read_checkpoint(folder)
    for wrong in ({"relu": 1}, ["relu"]):
        change_json(
            folder / "1_SpladePooling" / "config.json",
            pooling_strategy="max",
            activation_function=wrong,
        )
        with pytest.raises(UnsupportedModel, match="is not written"):
            read_checkpoint(folder)
    routed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
    write_json(folder / "modules.json", routed)
    with pytest.raises(UnsupportedModel, match="in one way"):
        read_checkpoint(folder)


def test_bias_that_the_weights_have_twice_must_be_one(tmp_path: Path) -> None:
    folder = write_toy_splade(tmp_path / "splade")

    def add(shift: float) -> None:
        def change(tensors: dict[str, Any]) -> None:
            bias = tensors["cls.predictions.bias"]
            tensors["cls.predictions.decoder.bias"] = bias + np.float32(shift)

        change_tensors(folder, change)

    add(0)
    read_checkpoint(folder)
    add(1)
    with pytest.raises(CorruptFile, match="has the bias of the words twice|have the bias"):
        read_checkpoint(folder)


# --- int8 and the whole export --------------------------------------------------------------------


def test_artifact_of_splade_states_what_it_gives(splade: Path) -> None:
    model = export_toy(splade, None)
    manifest = model.manifest
    assert (manifest.task, manifest.pooling, manifest.groups) == ("sparse", "max", 1)
    assert manifest.dimension == len(VOCABULARY)
    assert model.computes_the_same
    assert {len(test.vector) for test in manifest.self_test} == {SUMMARY}


def test_words_of_splade_in_int8_are_close(splade: Path) -> None:
    """The table of words is in int8 too."""
    network = read_checkpoint(splade).network()
    floats = network.float_linears()
    form = read_checkpoint(splade).outline.form
    exact, int8 = (
        open_encoder(
            serialize(network.whole(floats, int8_embeddings=int8)).model,
            network.packing(floats),
            1,
            form,
        )
        for int8 in (False, True)
    )
    ids = token_ids(read_checkpoint(splade), TEXTS)
    comparison = COMPARISONS["sparse"]
    agreement = [
        float(
            comparison.agreement(*comparison.rows(int8.encode([row])[0], exact.encode([row])[0]))[0]
        )
        for row in ids
    ]
    assert 0.999 < min(agreement) < 1
