"""Models of any size: weights stay in their files, large graphs go to two files, texts may be long."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from benchmarks.models.checkpoint import write_checkpoint
from benchmarks.models.published import BY_NAME, Published
from export.checkpoint import read_checkpoint
from export.errors import ShapeMismatch
from export.families.embeddings import quantize_rows
from export.families.linears import Linears
from export.graph import GraphWriter
from export.onnx_file import LEAST_OUTSIDE, WEIGHTS_FILE, large_graph, serialize
from export.pipeline import export
from export.quantisation.quantise import quantize
from export.source import tensors
from export.source.sentence_settings import limited
from export.source.tensors import check_tensors
from server.inference.encoder import SessionEncoder
from server.inference.manifest import MODEL_FILE
from server.inference.model import Model
from server.inference.runtime import open_session
from tests.support.checkpoints import change_tensors
from tests.support.encoders import one_by_one, random_ids, token_ids, toy_network
from tests.support.exports import change, toy_settings
from tests.support.toys import toy_texts

SMALL = 10_000
ROOT = Path(__file__).parents[2]


# --- weights --------------------------------------------------------------------------------------


def test_float32_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    read = toy_network(tmp_path).tensors["embeddings.word_embeddings.weight"]
    assert not read.flags.owndata and not read.flags.writeable
    assert read.dtype == np.float32


def test_weights_are_read_after_their_file_is_gone(tmp_path: Path) -> None:
    checkpoint = toy_network(tmp_path)
    before = checkpoint.tensors["embeddings.LayerNorm.weight"].copy()
    (checkpoint.folder / "model.safetensors").unlink()
    assert np.array_equal(checkpoint.tensors["embeddings.LayerNorm.weight"], before)


def test_weights_are_checked_and_read_in_a_part_of_their_size(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 6, "hidden_size": 256, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 1024, "vocab_size": 8000, "max_position_embeddings": 66}
    model = Published("toy", {**BY_NAME["bge-m3"].config, **sizes}, "cls", 64)
    folder = write_checkpoint(tmp_path / "model", model)
    size = (folder / "model.safetensors").stat().st_size
    checkpoint = read_checkpoint(folder)
    tracemalloc.start()
    try:
        check_tensors(checkpoint.tensors, checkpoint.shape.tensors())
        linears = checkpoint.network().float_linears()
        assert all(linears[name].weight.any() for name in linears)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A layer's six matrices have 3.1 MB.
    assert peak < size / 2


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_linear_layers_are_read_a_layer_at_a_time(kind: type, tmp_path: Path) -> None:
    folder = toy_network(tmp_path, layers=3).folder

    def narrow(stored: dict[str, np.ndarray]) -> None:
        for name in stored:
            stored[name] = stored[name].astype(kind)

    change_tensors(folder, narrow)
    linears = read_checkpoint(folder).network().float_linears()
    first = linears["encoder.layer.0.intermediate.dense"]
    assert linears["encoder.layer.0.intermediate.dense"] is first
    assert linears["encoder.layer.1.intermediate.dense"].weight.dtype == np.float32
    again = linears["encoder.layer.0.intermediate.dense"]
    assert again is not first
    assert np.array_equal(again.weight, first.weight)


def test_words_are_quantised_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    table[7] = 0
    whole = quantize_rows(table)
    monkeypatch.setattr(tensors, "PART", 7 * 24)
    assert [len(part) for part in tensors.in_parts(table)] == [7] * 7 + [1]
    rows, scale = quantize_rows(table)
    assert np.array_equal(rows, whole[0]) and np.array_equal(scale, whole[1])


# --- graphs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_graph_whose_constants_go_to_a_file_computes_the_same(
    precision: str, tmp_path: Path
) -> None:
    checkpoint = toy_network(tmp_path)
    network = checkpoint.network()
    linears: Linears = network.float_linears()
    if precision == "int8":
        ids = token_ids(checkpoint, toy_texts(20))
        linears = quantize(network, ids, weight_bits=8, threads=1).linears
    one = serialize(network.whole(linears, int8_embeddings=precision == "int8"))
    with large_graph(largest=SMALL):
        model = network.whole(linears, int8_embeddings=precision == "int8")
        # Before it is serialised: no more than `largest` is in memory at any time.
        assert all(len(tensor.raw_data) < LEAST_OUTSIDE for tensor in model.graph.initializer)
        two = serialize(model)
    with large_graph(largest=SMALL):
        again = serialize(network.whole(linears, int8_embeddings=precision == "int8"))
    assert two.files().keys() == {MODEL_FILE, WEIGHTS_FILE}
    assert two.sha256() == again.sha256()
    texts = random_ids(3, 9)
    with two.opened() as path:
        encoder = SessionEncoder(path, network.packing(linears))
    expected = one_by_one(SessionEncoder(one.model, network.packing(linears)), texts)
    assert np.array_equal(one_by_one(encoder, texts), expected)


def test_small_graph_is_the_same_file_with_and_without_room_for_more(tmp_path: Path) -> None:
    network = toy_network(tmp_path).network()
    plain = serialize(network.whole(network.float_linears(), int8_embeddings=False))
    with large_graph():
        assert plain == serialize(network.whole(network.float_linears(), int8_embeddings=False))


def test_constants_of_a_subgraph_may_be_in_the_file() -> None:
    numbers = np.arange(1000, dtype=np.float32)

    def graph() -> onnx.ModelProto:
        writer = GraphWriter()
        given = writer.input("given", TensorProto.FLOAT, [1000])
        yes = writer.constant("yes", np.array([True]))
        output = writer.branch(
            yes,
            lambda inner: inner.node("Add", [given, inner.floats("inner", numbers)], "sum"),
            lambda inner: inner.node("Identity", [given], "same"),
            "output",
            share_constants=False,
        )
        return writer.model("branches", {output: [1000]})

    with large_graph(largest=0):
        file = serialize(graph())
    with file.opened() as path:
        session = open_session(path, 1)
    assert np.array_equal(session.run(None, {"given": numbers})[0], 2 * numbers)
    assert len(file.model) < numbers.nbytes


def test_scratch_files_are_removed_with_the_graph(tmp_path: Path) -> None:
    network = toy_network(tmp_path).network()
    with large_graph(largest=SMALL):
        file = serialize(network.whole(network.float_linears(), int8_embeddings=False))
    with file.opened() as path:
        folder = Path(str(path)).parent
    assert folder.is_dir()
    del file
    assert not folder.exists()


# --- long texts -----------------------------------------------------------------------------------

ATTEND = """
import resource, numpy as np
from onnx import TensorProto
from export.graph import CONTRIB, GraphWriter
from server.inference.runtime import open_session
writer = GraphWriter()
names = [writer.input(name, TensorProto.FLOAT, [1, "tokens", 64]) for name in "qkv"]
writer.node("MultiHeadAttention", names, "context", CONTRIB, num_heads=16)
session = open_session(writer.model("m", {"context": [1, "tokens", 64]}).SerializeToString(), 1)
tokens = np.ones((1, 2048, 64), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run(None, dict.fromkeys(names, tokens))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_attention_of_a_long_text_needs_no_memory_for_all_its_scores() -> None:
    """The scores of 2,048 tokens and 16 heads would be 270 MB; the runtime computes them in tiles."""
    done = subprocess.run(
        [sys.executable, "-c", ATTEND], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60_000


def test_shorter_maximum_is_what_texts_are_cut_to(tmp_path: Path) -> None:
    settings = change(toy_settings(tmp_path), precision="fp32")
    whole = Model(export(change(settings, out=tmp_path / "whole")))
    short = Model(export(change(settings, max_tokens=16, out=tmp_path / "short")))
    assert short.manifest.text.max_tokens == 16
    assert len(short.tokenizer.encode(["墨" * 50]).ids[0]) == 16
    texts = ["墨池", "search 向量"]
    assert np.array_equal(short.embed(texts), whole.embed(texts))
    assert short.manifest.fingerprint != whole.manifest.fingerprint


@pytest.mark.parametrize("asked", [-1, 0, 2, 65, 10**9])
def test_maximum_that_the_model_cannot_read_is_refused(asked: int, tmp_path: Path) -> None:
    settings = toy_network(tmp_path).settings
    with pytest.raises(ShapeMismatch, match=f"--max-tokens {asked} is outside 3 to 64") as caught:
        limited(settings, asked)
    assert "超出" in caught.value.chinese
    assert limited(settings, 64) == limited(settings, None) == settings
