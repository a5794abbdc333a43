"""What computes a model, and what is said of it: the kernels, or ONNX Runtime and why."""

import _ctypes
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from server.config import Config, ModelPlace, ModelPlaces
from server.inference import registry
from server.inference.kernels import choice, library, sources
from server.inference.kernels.choice import KERNELS, RUNTIME
from server.inference.kernels.encoder import open_network
from server.inference.kernels.library import open_library
from server.inference.model import Model
from server.messages.message import chinese_of
from tests.inference.kernels.conftest import exported, opened


@pytest.fixture(autouse=True)
def kernels(cls_artifact: Path) -> None:
    opened(cls_artifact)


def check_runtime(model: Model, why: str) -> None:
    """Check that ONNX Runtime computes a model, and that the reason is said in both languages."""
    assert model.computed_by == RUNTIME and model.reason is not None
    said = model.computed_by_words
    assert why in said.english and said.english.startswith("computed by ONNX Runtime")
    assert chinese_of(model.reason.template) != model.reason.template
    assert np.isfinite(model.embed(["a text"])).all()


def test_kernels_compute_what_they_know(cls_artifact: Path) -> None:
    model = Model(cls_artifact, 2)
    assert (model.computed_by, model.reason) == (KERNELS, None)
    assert model.computed_by_words.english == "computed by the kernels"
    assert model.wide is not None and model.computes_the_same


def test_network_of_one_layer_is_computed(tmp_path: Path) -> None:
    artifact = exported(tmp_path, layers=1, hidden=64, heads=2, intermediate=128)
    texts = ["墨池", "a longer text about ink"]
    found, expected = (Model(artifact, kernels=each).embed(texts) for each in (True, False))
    assert Model(artifact).computed_by == KERNELS
    assert (found * expected).sum(axis=1).min() > 0.999


def test_setting_turns_them_off(cls_artifact: Path) -> None:
    check_runtime(Model(cls_artifact, kernels=False), "--kernels is off")


def test_network_that_they_do_not_know_is_computed_by_onnx_runtime(toy_artifact: Path) -> None:
    check_runtime(Model(toy_artifact), "4 heads in rows of 32")


def test_task_that_they_do_not_have_is_computed_by_onnx_runtime(scorer_artifact: Path) -> None:
    model = Model(scorer_artifact)
    assert model.computed_by == RUNTIME
    assert "vectors only, not score" in model.computed_by_words.english


def test_cpu_without_an_instruction_set_is_told(
    cls_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = sources.NEEDS.keys() - {"avx512_vnni"}
    monkeypatch.setattr(library, "cpu_features", lambda: features)
    check_runtime(Model(cls_artifact), "no avx512_vnni")


@pytest.fixture
def other_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of a library, which is not there yet, instead of the compiled one."""
    path = tmp_path / "kernels.so"
    monkeypatch.setattr("server.inference.kernels.encoder.open_library", lambda: open_library(path))
    return path


def test_kernels_that_are_not_compiled_are_told(cls_artifact: Path, other_library: Path) -> None:
    check_runtime(Model(cls_artifact), "not compiled; run `make kernels`")


def test_library_of_another_system_is_told(cls_artifact: Path, other_library: Path) -> None:
    other_library.write_bytes(b"\x7fELF of another machine")
    check_runtime(Model(cls_artifact), "another system")


def test_library_of_other_sources_is_told(
    cls_artifact: Path, other_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(sources.LIBRARY, other_library)
    monkeypatch.setattr(library, "digest", lambda: "0" * 32)
    check_runtime(Model(cls_artifact), "other sources")


def test_library_that_is_not_of_the_kernels_is_told(
    cls_artifact: Path, other_library: Path
) -> None:
    shutil.copy(_ctypes.__file__, other_library)
    check_runtime(Model(cls_artifact), "other sources")


def test_kernels_that_give_other_results_than_the_self_test_are_not_used(
    cls_artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a fault of theirs would show: here, a bias that only they read is another one."""

    def wrong(path: Path, folder: Path = cls_artifact) -> object:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.name == "encoder.layer.0.output.dense.bias":
                array = numpy_helper.to_array(tensor) + np.float32(3)
                array[::2] -= 6
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        changed = folder.parent / "changed.onnx"
        onnx.save(model, changed)
        return open_network(changed)

    monkeypatch.setattr(choice, "open_network", wrong)
    model = Model(cls_artifact)
    check_runtime(model, "other results than its self-test (cosine ")
    assert model.self_test_agreement > 0.999
    assert "other results" in caplog.text


def test_amx_is_measured_against_them(cls_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "cpu_features", lambda: {choice.AMX})
    rates = iter([2.0, 1.0, 1.0, 2.0])
    monkeypatch.setattr(choice, "measured_rate", lambda *_: next(rates))
    assert Model(cls_artifact).computed_by == KERNELS
    check_runtime(Model(cls_artifact), "AMX")


def test_log_says_what_computes_each_model_once(
    cls_artifact: Path, toy_artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "server.inference.registry")
    places = ModelPlaces([ModelPlace(cls_artifact, "known"), ModelPlace(toy_artifact, "toy")])
    config = Config(model=places)
    served = registry.opened(config)
    assert "known: computed by the kernels" in caplog.messages
    assert any(line.startswith("toy: computed by ONNX Runtime, not") for line in caplog.messages)
    caplog.clear()
    assert registry.opened(config, served) == served and not caplog.messages
    # Another choice opens them again.
    others = registry.opened(Config(model=places, kernels="off"), served)
    assert [model.computed_by for model in others] == [RUNTIME, RUNTIME]
