"""A graph too large for one file goes into two, which the server loads and checks like one."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy import bundle
from export import build, onnx_file
from export.errors import CannotWrite
from export.onnx_file import WEIGHTS_FILE, OnnxFile, open_graph, serialize
from export.pipeline import export
from export.settings import Settings
from server.config import Config, ModelPlaces
from server.doctor.facts import gather
from server.errors import BadArtifact
from server.inference.comparison import SAME_VECTORS
from server.inference.encoder import SessionEncoder
from server.inference.manifest import MODEL_FILE, TOKENIZER_FILE, read_manifest
from server.inference.model import Model
from tests.support.encoders import one_by_one, random_ids, toy_network
from tests.support.exports import change, toy_settings
from tests.support.toys import toy_texts

# Far below the toy's weights, so that they go into a second file.
SMALL = 10_000


def toy_graph(folder: Path) -> onnx.ModelProto:
    network = toy_network(folder).network()
    return network.whole(network.float_linears(), int8_embeddings=False)


def test_graph_within_the_limit_is_one_file(tmp_path: Path) -> None:
    model = toy_graph(tmp_path)
    assert serialize(model) == OnnxFile(model.SerializeToString(deterministic=True))


def test_large_graph_is_two_files_that_compute_the_same(tmp_path: Path) -> None:
    network = toy_network(tmp_path).network()
    linears = network.float_linears()
    packing = network.packing(linears)
    one = serialize(network.whole(linears, int8_embeddings=False))
    two = serialize(network.whole(linears, int8_embeddings=False), largest=SMALL)
    assert two.files().keys() == two.sha256().keys() == {MODEL_FILE, WEIGHTS_FILE}
    assert len(two.model) < len(one.model) / 2 and two.size > len(one.model)
    texts = random_ids(3, 9)
    with two.opened() as path:
        encoder = SessionEncoder(path, packing)
    # The files are gone; the session does not need them any more.
    assert not os.path.exists(path)
    expected = one_by_one(SessionEncoder(one.model, packing), texts)
    assert np.array_equal(one_by_one(encoder, texts), expected)


def test_large_graph_is_the_same_two_files_each_time(tmp_path: Path) -> None:
    first, second = (serialize(toy_graph(tmp_path), largest=SMALL) for _ in range(2))
    assert first.sha256() == second.sha256()


def test_weights_begin_at_whole_pages_and_small_tensors_stay(tmp_path: Path) -> None:
    two = serialize(toy_graph(tmp_path), largest=SMALL)
    moved = 0
    for tensor in onnx.load_from_string(two.model).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == WEIGHTS_FILE
            assert int(entries["offset"]) % onnx_file.ALIGNMENT == 0
            moved += int(entries["length"])
        else:
            assert len(tensor.raw_data) < onnx_file.LEAST_OUTSIDE
    assert moved == pytest.approx(two.size - len(two.model), rel=0.9)


def test_calibration_opens_a_graph_of_any_size(tmp_path: Path) -> None:
    ids = random_ids(1, 9)[0][None]
    (expected,) = open_graph(toy_graph(tmp_path), 1).run(None, {"input_ids": ids})
    (found,) = open_graph(toy_graph(tmp_path), 1, largest=SMALL).run(None, {"input_ids": ids})
    assert np.array_equal(found, expected)


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = serialize(toy_graph(tmp_path), largest=SMALL)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CannotWrite, match="No space left"), two.opened():
        pass


# --- as an artifact -------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return change(toy_settings(tmp_path), precision="fp32")


@pytest.fixture
def artifact(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A float32 artifact of two files, exported as one beyond protobuf's limit would be."""
    monkeypatch.setattr(build, "serialize", lambda model: serialize(model, largest=SMALL))
    return export(settings)


def test_artifact_of_two_files_is_served(artifact: Path, settings: Settings) -> None:
    manifest = read_manifest(artifact)
    assert manifest.files.keys() == {MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE}
    assert {path.name for path in artifact.iterdir()} == {*manifest.files, "manifest.json"}
    model = Model(artifact, wide_threads=2)
    assert model.self_test_agreement > SAME_VECTORS
    assert model.wide is not None
    texts = toy_texts(5, seed=3)
    ids = list(model.tokenizer.encode(texts).ids)
    assert np.abs(one_by_one(model.wide, ids) - model.embed(texts)).max() < 1e-5


def test_bundle_and_doctor_count_both_files(artifact: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in bundle.artifact_files(artifact)}
    assert sizes.keys() == {path.name for path in artifact.iterdir()}
    facts = gather(Config(model=ModelPlaces.of([str(artifact)])))
    assert facts.artifacts[0].bytes == sizes[MODEL_FILE] + sizes[WEIGHTS_FILE]


def test_damaged_or_missing_weights_are_found_at_start(artifact: Path) -> None:
    content = bytearray((artifact / WEIGHTS_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (artifact / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(BadArtifact, match=f"{WEIGHTS_FILE} is damaged"):
        Model(artifact)
    (artifact / WEIGHTS_FILE).unlink()
    with pytest.raises(BadArtifact, match=f"{WEIGHTS_FILE} cannot be read"):
        Model(artifact)


def test_artifact_of_two_files_is_current_and_gives_way_to_one(
    artifact: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (artifact / "manifest.json").stat().st_mtime_ns
    export(settings)
    assert (artifact / "manifest.json").stat().st_mtime_ns == before
    two = read_manifest(artifact).fingerprint
    monkeypatch.setattr(build, "serialize", serialize)
    export(change(settings, force=True))
    assert {path.name for path in artifact.iterdir()} == {
        MODEL_FILE,
        TOKENIZER_FILE,
        "manifest.json",
    }
    assert read_manifest(artifact).fingerprint != two
