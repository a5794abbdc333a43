"""Tiny random networks of other architectures than BERT, against sentence-transformers itself."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from export.errors import (
    BadTexts,
    DisagreesWithCheckpoint,
    ExportError,
    MissingPackage,
    ShapeMismatch,
    UnsupportedModel,
)
from export.families.family import OUTPUT
from export.optimum import contract, mask, trace
from export.optimum.route import OptimumGraphs, build_with_optimum
from export.source.folder import ModelFolder
from export.source.json_file import read_json, size
from export.source.modules import Modules, read_modules
from export.source.sentence_settings import SentenceSettings, read_settings
from export.source.tokenizer_file import read_tokenizer
from server.inference.encoder import INPUT_IDS
from server.inference.manifest import TextRules
from server.inference.runtime import open_session
from server.inference.tokenizer import Tokenizer
from tests.support.optimum_toys import (
    SHAPE,
    WIDTH,
    Case,
    quietly,
    texts,
    write_checkpoint,
)

PACKAGES = ("torch", "transformers", "optimum", "sentence_transformers")
missing = [name for name in PACKAGES if find_spec(name) is None]


def needs_optimum(test: Any) -> Any:
    skip = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
    return pytest.mark.torch(skip(test))


Vectors = npt.NDArray[np.float32]

DISTILBERT = Case(
    "distilbert",
    "mean",
    config={"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "initializer_range": 0.2},
)
ROBERTA = Case("roberta", "cls")
CASES = [
    DISTILBERT,
    ROBERTA,
    Case("xlm-roberta", "mean", normalize=False),
    Case("mpnet", "max"),
    Case("electra", "cls", config={**SHAPE, "embedding_size": 24}),
    Case("albert", "mean", config={**SHAPE, "embedding_size": 24}),
    Case("bert", "cls"),
]


def settings_of(folder: Path) -> SentenceSettings:
    config = read_json(folder / "config.json")
    files, positions = ModelFolder(folder), size(config, "max_position_embeddings", 512)
    return read_settings(files, read_modules(files), positions)


def token_ids(folder: Path, sentences: Sequence[str]) -> Sequence[npt.NDArray[np.int64]]:
    rules = TextRules(lower_case=False, max_tokens=settings_of(folder).max_tokens)
    return Tokenizer(read_tokenizer(ModelFolder(folder), Modules()), rules).encode(sentences).ids


def build(folder: Path, precision: str, **options: Any) -> OptimumGraphs:
    calibration = token_ids(folder, texts(60, seed=1))
    return build_with_optimum(
        folder, settings_of(folder), calibration, precision=precision, threads=2, **options
    )


def embed(model: onnx.ModelProto, ids: Sequence[npt.NDArray[np.int64]]) -> Vectors:
    session = open_session(model.SerializeToString(), 1)
    return np.concatenate([session.run([OUTPUT], {INPUT_IDS: one[None]})[0] for one in ids])


def cosines(a: Vectors, b: Vectors) -> Vectors:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / norms, np.float32)


def check_contract(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model)
    (given,), (made,) = model.graph.input, model.graph.output
    assert (given.name, given.type.tensor_type.elem_type) == (INPUT_IDS, onnx.TensorProto.INT64)
    assert [dim.dim_param for dim in given.type.tensor_type.shape.dim] == ["batch", "tokens"]
    assert (made.name, made.type.tensor_type.elem_type) == (OUTPUT, onnx.TensorProto.FLOAT)


def check_batches(model: onnx.ModelProto, ids: Sequence[npt.NDArray[np.int64]]) -> None:
    """Check that a text's vector is the same alone, in a batch, and in another place of the batch."""
    session = open_session(model.SerializeToString(), 1)
    batch = np.stack([one[:9] for one in ids if len(one) >= 9][:6])
    together = session.run([OUTPUT], {INPUT_IDS: batch})[0]
    turned = session.run([OUTPUT], {INPUT_IDS: batch[::-1]})[0]
    np.testing.assert_allclose(turned[::-1], together, atol=1e-6)
    np.testing.assert_allclose(embed(model, list(batch)), together, atol=1e-6)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def checkpoint(case: Case, root: Path) -> Path:
    folder = root / str(case)
    return folder if folder.exists() else write_checkpoint(case, folder)


# --- what is exported ----------------------------------------------------------------------------


@needs_optimum
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vectors_equal_those_of_sentence_transformers(case: Case, checkpoints: Path) -> None:
    folder = checkpoint(case, checkpoints)
    sentences = texts(40, seed=2)
    with quietly():
        from sentence_transformers import SentenceTransformer

        original = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        expected = original.encode(sentences, show_progress_bar=False, batch_size=8)
    ids = token_ids(folder, sentences)

    said: list[str] = []
    graphs = build(folder, "int8", progress=said.append)
    assert said == ["trace", "calibrate", "quantise"]
    assert graphs.hidden == expected.shape[1] == WIDTH
    for model, least in ((graphs.float_model, 0.99999), (graphs.served_model, 0.97)):
        found = embed(model, ids)
        check_contract(model)
        check_batches(model, ids)
        assert found.dtype == np.float32
        assert cosines(found, expected).min() >= least
        lengths = np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5 if least > 0.99 or case.normalize else 0.1)
    assert "attention_mask" not in {
        name for node in graphs.float_model.graph.node for name in node.input
    }


@needs_optimum
def test_int8_holds_its_weights_in_bytes(checkpoints: Path) -> None:
    folder = checkpoint(ROBERTA, checkpoints)
    graphs = build(folder, "int8")
    large = [
        tensor.data_type
        for tensor in graphs.served_model.graph.initializer
        if np.prod(tensor.dims) >= WIDTH * WIDTH
    ]
    # The words, and six matrices in each of two layers.
    assert large == [onnx.TensorProto.INT8] * 13
    sizes = [len(m.SerializeToString()) for m in (graphs.served_model, graphs.float_model)]
    assert sizes[0] < 0.5 * sizes[1]


@needs_optimum
def test_seven_bit_weights_stay_within_63(checkpoints: Path) -> None:
    graphs = build(checkpoint(DISTILBERT, checkpoints), "int8", weight_bits=7)
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in graphs.served_model.graph.initializer
        if tensor.name.endswith(".weight") and tensor.data_type == onnx.TensorProto.INT8
    ]
    assert len(weights) == 12
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 63


@needs_optimum
def test_float32_serves_the_reference(checkpoints: Path) -> None:
    graphs = build(checkpoint(DISTILBERT, checkpoints), "fp32")
    assert graphs.served_model is graphs.float_model


@needs_optimum
def test_the_same_checkpoint_gives_the_same_bytes(checkpoints: Path) -> None:
    folder = checkpoint(DISTILBERT, checkpoints)
    first, second = (
        build(folder, "int8").served_model.SerializeToString(deterministic=True) for _ in "12"
    )
    assert first == second


# --- what is refused -----------------------------------------------------------------------------


def refused(kind: type[ExportError], folder: Path, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        build(folder, "fp32", **options)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.chinese)
    return caught.value.english


@needs_optimum
def test_a_mask_that_cannot_be_taken_out_stays(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(DISTILBERT, checkpoints)
    expected = build(folder, "fp32").float_model
    without_mask = mask.without_mask

    def spoil(nodes: Any, constants: Any) -> Any:
        kept = without_mask(nodes, constants)
        pooled = next(node for node in kept if node.op_type == "ReduceMean")
        pooled.op_type = "ReduceMax"
        return kept

    monkeypatch.setattr(contract, "without_mask", spoil)
    masked = build(folder, "fp32").float_model
    assert "attention_mask" in {name for node in masked.graph.node for name in node.input}
    ids = token_ids(folder, texts(5, seed=3))
    np.testing.assert_allclose(embed(masked, ids), embed(expected, ids), atol=1e-5)


@needs_optimum
def test_a_graph_that_computes_something_else_is_refused(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(DISTILBERT, checkpoints)
    monkeypatch.setattr(contract, "TOLERANCE", -1.0)
    assert "computes other vectors" in refused(DisagreesWithCheckpoint, folder)


@needs_optimum
def test_a_missing_weight_is_named_and_not_made_up(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = write_checkpoint(DISTILBERT, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.layer.1.ffn.lin1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refused(ShapeMismatch, folder)
    assert "lacks 1 weights" in message and "transformer.layer.1.ffn.lin1.weight" in message


@needs_optimum
def test_a_pickle_is_read_only_when_allowed(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = write_checkpoint(DISTILBERT, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "optimum cannot export" in refused(UnsupportedModel, folder)
    assert build(folder, "fp32", allow_pickle=True).hidden == WIDTH


@needs_optimum
def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    folder = write_checkpoint(DISTILBERT, tmp_path / "model")
    config = read_json(folder / "config.json")
    auto_map = {"AutoConfig": "trap.TrapConfig", "AutoModel": "trap.Trap"}
    config |= {"model_type": "trap", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text("raise SystemExit('this code was run')")
    assert "optimum cannot export" in refused(UnsupportedModel, folder)


@needs_optimum
def test_an_architecture_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(DISTILBERT, tmp_path / "model")
    config = read_json(folder / "config.json") | {"model_type": "no-such-type"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "optimum cannot export" in refused(UnsupportedModel, folder)


@needs_optimum
@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("fnet", "optimum cannot export"),
        ("layoutlm", "asks for bbox besides token ids"),
        ("t5", "optimum cannot export"),
    ],
)
def test_an_architecture_that_cannot_be_served_is_refused(
    tmp_path: Path, model_type: str, expected: str
) -> None:
    folder = write_checkpoint(Case(model_type, "mean"), tmp_path / "model")
    assert expected in refused(UnsupportedModel, folder)


@needs_optimum
def test_weights_beyond_one_file_are_refused_before_tracing(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "MAX_MODEL_BYTES", 1000)
    assert "GB of float32 weights" in refused(UnsupportedModel, checkpoint(DISTILBERT, checkpoints))


@needs_optimum
def test_texts_longer_than_the_network_reads_are_refused(checkpoints: Path) -> None:
    folder = checkpoint(DISTILBERT, checkpoints)
    longer = replace(settings_of(folder), max_tokens=99)
    with pytest.raises(UnsupportedModel, match=r"a text of 99 tokens: .*smaller --max-tokens"):
        build_with_optimum(
            folder, longer, token_ids(folder, texts(60, seed=1)), precision="fp32", threads=1
        )


@needs_optimum
def test_texts_too_short_to_compare_on_are_refused(checkpoints: Path) -> None:
    folder = checkpoint(DISTILBERT, checkpoints)
    short = [np.array([0, 2], np.int64)]
    with pytest.raises(BadTexts, match="no calibration text has 3 tokens"):
        build_with_optimum(folder, settings_of(folder), short, precision="fp32", threads=1)


def test_without_the_packages_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    nothing = SentenceSettings("mean", True, 8, False, {}, None)
    with pytest.raises(MissingPackage, match="cannot import torch: install the export-any extra"):
        build_with_optimum(tmp_path, nothing, [], precision="fp32", threads=1)
