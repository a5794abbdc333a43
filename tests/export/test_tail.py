"""Dense layers and normalisations behind the pooling: written in their order, or refused by name."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from safetensors.numpy import load_file, save_file

from export.checkpoint import read_checkpoint
from export.errors import CorruptFile, ExportError, NoSuchModel, ShapeMismatch, UnsupportedModel
from export.pipeline import export
from export.quantisation.quantise import quantize
from export.settings import Settings
from export.source.folder import ModelFolder
from export.source.model import locate, read_model
from export.source.modules import read_modules
from export.source.tail import Dense as ReadDense
from export.source.tail import Normalize, read_tail, tail_width
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.manifest import read_manifest
from server.inference.model import Model
from tests.support.checkpoints import change_json, refusal, write_safetensors
from tests.support.decoder_toys import write_decoder
from tests.support.dense_layers import (
    GELU,
    RELU,
    SIGMOID,
    TANH,
    Dense,
    Step,
    apply_steps,
    write_steps,
)
from tests.support.encoders import float_encoder, random_ids
from tests.support.gated_toys import write_nomic
from tests.support.reference_bert import ReferenceBert
from tests.support.toys import write_json, write_toy_checkpoint, write_toy_texts

NORMALIZE, DROPOUT = "Normalize", "Dropout"
# As published models have them, and every activation, with and without a bias.
TAILS: dict[str, list[Step]] = {
    "stella, conan": [Dense(56)],
    "acge": [Dense(56), NORMALIZE],
    "LaBSE": [Dense(32, TANH), NORMALIZE],
    "distiluse": [Dense(16, TANH)],
    "gtr, sentence-t5": [Dense(24, bias=False), NORMALIZE],
    "embeddinggemma": [Dense(96, bias=False), Dense(32, bias=False), NORMALIZE],
    "normalised before": [NORMALIZE, Dense(20, TANH)],
    "normalised twice between": [NORMALIZE, NORMALIZE, Dense(20), NORMALIZE],
    "normalised twice behind": [Dense(20), NORMALIZE, NORMALIZE],
    "activations": [Dense(40, RELU), DROPOUT, Dense(40, GELU), NORMALIZE, Dense(9, SIGMOID, False)],
    "one number": [Dense(1)],
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_checkpoint(tmp_path_factory.mktemp("network"), pooling="mean")


@pytest.fixture
def folder(network: Path, tmp_path: Path) -> Path:
    """Return a toy with the tail of LaBSE."""
    shutil.copytree(network, tmp_path / "toy")
    return write_steps(tmp_path / "toy", [Dense(32, TANH), NORMALIZE])


@pytest.mark.parametrize("steps", TAILS.values(), ids=TAILS)
def test_vectors_are_those_of_a_reference_in_numpy(
    steps: list[Step], network: Path, tmp_path: Path
) -> None:
    folder = write_steps(shutil.copytree(network, tmp_path / "toy"), steps)
    checkpoint = read_checkpoint(folder)
    reference = ReferenceBert(folder)
    reference.normalize = False
    # Of several lengths in one batch, which lie packed in one row.
    texts = [*random_ids(2, 9), *random_ids(1, 5), *random_ids(1, 12)]
    found = float_encoder(checkpoint).encode(texts)
    pooled = np.concatenate([reference.embed(ids[None]) for ids in texts])
    expected = apply_steps(folder, pooled)
    assert found.shape == expected.shape == (4, checkpoint.outline.dimension)
    assert checkpoint.network().dimension == checkpoint.outline.dimension
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((found - expected) / lengths).max() < 1e-5
    assert checkpoint.settings.normalize == (steps[-1] == NORMALIZE)


def test_every_pooling_and_family_has_the_tail(tmp_path: Path) -> None:
    steps: list[Step] = [Dense(24, TANH), NORMALIZE]
    plain: list[Step] = []
    folders = [
        *(write_toy_checkpoint(tmp_path / each, pooling=each) for each in ("cls", "max")),
        write_decoder(tmp_path / "decoder", "qwen3"),
        write_nomic(tmp_path / "gated"),
    ]
    for folder in folders:
        width = json.loads((folder / "1_Pooling/config.json").read_text())[
            "word_embedding_dimension"
        ]
        texts = [*random_ids(2, 7), *random_ids(1, 4)]
        write_steps(folder, plain)
        pooled = float_encoder(read_checkpoint(folder)).encode(texts)
        write_steps(folder, steps, width=width)
        checkpoint = read_checkpoint(folder)
        found = float_encoder(checkpoint).encode(texts)
        expected = apply_steps(folder, pooled.astype(np.float64))
        assert checkpoint.network().dimension == checkpoint.outline.dimension == 24
        assert row_cosines(found, expected.astype(np.float32)).min() > 0.999999
        assert found.shape == (3, 24)


def test_row_of_zeros_stays_zero_when_it_is_normalised(folder: Path) -> None:
    write_steps(folder, [Dense(8, RELU), NORMALIZE])
    weights = folder / "2_Dense" / "model.safetensors"
    tensors = load_file(weights)
    tensors["linear.bias"][:] = -1000
    save_file(tensors, weights)
    assert not float_encoder(read_checkpoint(folder)).encode(random_ids(2, 5)).any()


def test_normalisation_alone_leaves_the_graph_as_it_was(network: Path) -> None:
    checkpoint = read_checkpoint(network)
    assert (checkpoint.settings.tail, checkpoint.settings.normalize) == ((), True)
    graph = checkpoint.network().whole(checkpoint.network().float_linears(), int8_embeddings=False)
    last = graph.graph.node[-1]
    assert (last.op_type, *last.input, *last.output) == ("LpNormalization", "pooled", "embedding")


def test_tail_is_read_in_the_order_of_the_list(folder: Path) -> None:
    write_steps(folder, [NORMALIZE, Dense(8, TANH, False), DROPOUT, NORMALIZE])
    settings = read_checkpoint(folder).settings
    assert settings.tail == (Normalize(), ReadDense("3_Dense", 32, 8, False, "Tanh"))
    assert settings.normalize


def test_layer_in_a_folder_that_two_modules_name_is_applied_twice(folder: Path) -> None:
    write_steps(folder, [Dense(32, TANH), Dense(32, TANH)])
    path = folder / "modules.json"
    path.write_text(path.read_text().replace("3_Dense", "2_Dense"))
    checkpoint, texts = read_checkpoint(folder), random_ids(2, 6)
    reference = ReferenceBert(folder)
    expected = apply_steps(folder, reference.embed(np.stack(texts)))
    assert np.abs(float_encoder(checkpoint).encode(texts) - expected).max() < 1e-5


# --- the artifact ---------------------------------------------------------------------------------


def test_artifact_states_the_width_and_the_similarity(folder: Path, tmp_path: Path) -> None:
    write_steps(folder, [Dense(40, TANH)])
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    texts = write_toy_texts(tmp_path / "texts", 25)
    out = export(
        Settings(
            source=str(folder),
            out=tmp_path / "out",
            calibration=texts,
            verify_texts=texts,
            matryoshka=(36,),
            max_tokens=12,
            precision="fp32",
        )
    )
    manifest = read_manifest(out)
    assert (manifest.dimension, manifest.normalized) == (40, False)
    assert manifest.matryoshka_dimensions == [36]
    assert (manifest.similarity, manifest.cosine_orders) == ("dot", False)
    # The self-test's texts have several lengths.
    assert Model(out).self_test_agreement > 0.999999


def test_int8_graph_keeps_the_layer_in_float32(tmp_path: Path) -> None:
    folder = write_steps(write_toy_checkpoint(tmp_path / "toy", layers=1), [Dense(40, TANH)])
    network = read_checkpoint(folder).network()
    ids = [each for length in range(3, 9) for each in random_ids(2, length)]
    linears = quantize(network, ids, weight_bits=8, threads=1).linears
    graph = network.whole(linears, int8_embeddings=True)
    found = SessionEncoder(graph.SerializeToString(), network.packing(linears)).encode(ids[:6])
    expected = float_encoder(read_checkpoint(folder)).encode(ids[:6])
    assert row_cosines(found, expected).min() > 0.999
    constants = {each.name: each for each in graph.graph.initializer}
    stored = constants["2_Dense/linear.weight"]
    assert stored.data_type == TensorProto.FLOAT
    weight = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
    assert np.array_equal(numpy_helper.to_array(stored), weight.T)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_files_of_a_layer_are_in_the_identity(folder: Path, file: str) -> None:
    before = read_checkpoint(folder).sha256
    path = folder / "2_Dense" / file
    if file == "config.json":
        path.write_text(path.read_text() + " ")
    else:
        tensors = load_file(path)
        tensors["linear.weight"][0, 0] += 1
        save_file(tensors, path)
    assert read_checkpoint(folder).sha256 != before


def test_the_route_of_optimum_refuses_what_it_would_drop(folder: Path) -> None:
    settings = Settings(source=str(folder), via="optimum")
    with pytest.raises(UnsupportedModel, match="--via optimum writes no Dense layers"):
        read_model(locate(settings), settings)
    write_steps(folder, [NORMALIZE, DROPOUT, NORMALIZE])
    assert read_model(locate(settings), settings).settings.normalize


# --- similarity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("similarity", "normalize", "noted"),
    [
        ("cosine", False, False),
        (None, False, False),
        ("dot", True, False),
        ("euclidean", True, False),
        ("dot", False, True),
        ("euclidean", False, True),
        ("manhattan", True, True),
    ],
)
def test_similarity_that_searches_do_not_rank_by_is_noted(
    similarity: str | None, normalize: bool, noted: bool, folder: Path
) -> None:
    write_steps(folder, [NORMALIZE] if normalize else [])
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": similarity})
    settings = read_checkpoint(folder).settings
    assert settings.similarity == (similarity or "cosine")
    assert [str(note).split(":")[0] for note in settings.notes] == (
        [f"similarity_fn_name is {similarity}"] if noted else []
    )


@pytest.mark.parametrize("similarity", ["Cosine", "dot_score", 7, ["dot"], {"a": 1}, "x" * 9999])
def test_similarity_that_is_not_known_is_refused(similarity: Any, folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": similarity})
    error = refusal(folder, UnsupportedModel, "similarity_fn_name is", "euclidean")
    assert len(error.english) < 300


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "part"),
    [
        ({"in_features": 31}, ShapeMismatch, "in_features is 31, but the layer reads rows of 32"),
        ({"in_features": ...}, CorruptFile, "in_features is None, not a whole number"),
        ({"in_features": True}, CorruptFile, "in_features is True, not a whole number"),
        ({"out_features": 31}, ShapeMismatch, "has shape (32, 32); config.json asks for (31, 32)"),
        ({"out_features": 0}, CorruptFile, "out_features 0 is outside 1 to 65536"),
        ({"out_features": 10**400}, CorruptFile, "is outside 1 to 65536"),
        ({"out_features": 1e30}, CorruptFile, "is outside 1 to 65536"),
        ({"out_features": 31.5}, CorruptFile, "out_features is 31.5, not a whole number"),
        ({"bias": 1}, CorruptFile, "bias is 1, not true or false"),
        ({"bias": False}, ShapeMismatch, "holds the tensor 'linear.bias'"),
        ({"activation_function": ...}, UnsupportedModel, "activation_function is None"),
        ({"activation_function": "torch.nn.modules.activation.SiLU"}, UnsupportedModel, "Sigmoid"),
        ({"activation_function": "os.system"}, UnsupportedModel, "'os.system'"),
        ({"activation_function": "torch.nn.Tanh\n"}, UnsupportedModel, "activation_function is"),
        ({"activation_function": ["torch.nn.Tanh"]}, UnsupportedModel, "activation_function is"),
        ({"init_weight": [[1]]}, UnsupportedModel, "has the key 'init_weight', which is not known"),
        ({"module_input_name": "token_embeddings"}, UnsupportedModel, "only sentence_embedding"),
        ({"module_output_name": "other"}, UnsupportedModel, "module_output_name is 'other'"),
        ({"module_output_name": {}}, UnsupportedModel, "module_output_name is {}"),
        ({"use_residual": True}, UnsupportedModel, "use_residual adds the layer's input"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_layer_that_cannot_be_written_exactly_is_refused(
    values: dict[str, Any], kind: type[ExportError], part: str, folder: Path
) -> None:
    change_json(folder / "2_Dense" / "config.json", **values)
    error = refusal(folder, kind, "2_Dense", part)
    assert len(error.english) < 600


def test_keys_of_newer_versions_are_read_where_they_mean_the_default(folder: Path) -> None:
    before = read_checkpoint(folder).settings
    change_json(
        folder / "2_Dense" / "config.json",
        module_input_name="sentence_embedding",
        module_output_name=None,
        use_residual=False,
    )
    write_json(folder / "3_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    assert read_checkpoint(folder).settings == before
    change_json(folder / "3_Normalize" / "config.json", module_input_name="token_embeddings")
    refusal(folder, UnsupportedModel, "3_Normalize/config.json: module_input_name")


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    path = folder / "2_Dense" / "model.safetensors"
    whole = load_file(path)
    changes: list[tuple[dict[str, Any], type[ExportError], str]] = [
        ({}, ShapeMismatch, "tensor 2_Dense/linear.weight is missing"),
        (whole | {"linear.bias": np.zeros((32, 1), np.float32)}, ShapeMismatch, "(32, 1)"),
        (whole | {"more": np.zeros(1, np.float32)}, ShapeMismatch, "holds the tensor 'more'"),
        (whole | {"linear.bias": np.full(32, np.nan, np.float32)}, CorruptFile, "NaN"),
        (whole | {"linear.bias": np.zeros(32, np.int8)}, UnsupportedModel, "int8"),
    ]
    for tensors, kind, part in changes:
        save_file(tensors, path)
        refusal(folder, kind, part)
    write_safetensors(path, {"linear.weight": ("F32", (1 << 40, 1 << 40), b"1234")})
    refusal(folder, CorruptFile, "cannot be read as safetensors")
    path.unlink()
    refusal(folder, NoSuchModel, "2_Dense has no model.safetensors")
    (path.parent / "pytorch_model.bin").write_bytes(b"pickle")
    refusal(folder, NoSuchModel, "2_Dense has only pytorch_model.bin; add --allow-pickle")
    (path.parent / "model.safetensors.index.json").write_text("{}")
    refusal(folder, NoSuchModel, "2_Dense has only pytorch_model.bin; add --allow-pickle")


def test_network_that_holds_a_tensor_of_the_layers_name_does_not_replace_it(folder: Path) -> None:
    expected = float_encoder(read_checkpoint(folder)).encode(random_ids(1, 5))
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"2_Dense/linear.weight": np.ones((32, 32), np.float32)},
        folder / "model.safetensors",
    )
    found = float_encoder(read_checkpoint(folder)).encode(random_ids(1, 5))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("place", ["", "1_Pooling"])
def test_layer_needs_a_folder_of_its_own(place: str, folder: Path) -> None:
    path = folder / "modules.json"
    path.write_text(path.read_text().replace('"2_Dense"', json.dumps(place)))
    refusal(folder, UnsupportedModel, "and Dense the same folder", repr(place))


def test_layer_behind_a_link_out_of_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "2_Dense").rename(tmp_path / "elsewhere")
    (folder / "2_Dense").symlink_to(tmp_path / "elsewhere")
    refusal(folder, UnsupportedModel, "'2_Dense', a link that leaves the model's folder")


def test_random_damage_to_the_settings_of_a_layer_is_an_error_that_names_its_file(
    folder: Path,
) -> None:
    choose, path = random.Random(5), folder / "2_Dense" / "config.json"
    whole = json.loads(path.read_text())
    values: tuple[Any, ...] = (
        None,
        -1,
        0,
        2**63,
        1e308,
        "",
        "32",
        [],
        {},
        [[[]]],
        True,
        "torch.nn.Tanh",
        "\x1b[2J",
    )
    refused = 0
    for _ in range(60):
        damaged = dict(whole)
        for _ in range(choose.randint(1, 3)):
            damaged[choose.choice([*whole, "use_residual", "module_input_name"])] = choose.choice(
                values
            )
        path.write_text(json.dumps(damaged))
        try:
            read_tail_of(folder)
        except ExportError as error:
            assert "2_Dense" in error.english and len(error.english) < 400
            assert error.english.isprintable()
            refused += 1
    assert refused > 40


def read_tail_of(folder: Path) -> None:
    files = ModelFolder(folder)
    tail_width(read_tail(files, read_modules(files)), 32)
