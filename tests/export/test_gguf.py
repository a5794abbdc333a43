"""GGUF files give the vectors of the checkpoint that they were made from; damaged ones are named as such."""

import json
import random
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import (
    CorruptFile,
    ExportError,
    MissingPackage,
    NoSuchModel,
    ShapeMismatch,
    UnsupportedModel,
)
from export.settings import Settings
from export.source.gguf.header import MAGIC, read_header
from export.source.gguf.tensors import widen_q8_0
from export.source.model import locate, read_model
from tests.export.test_inspection import inspected
from tests.support.checkpoints import change_json
from tests.support.damage import KINDS
from tests.support.decoder_toys import write_decoder
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.gated_toys import write_nomic
from tests.support.gguf_toys import F16, F32, Q8_0, as_q8_0, gguf_of, text, value
from tests.support.relatives import POSITIONS, write_relative
from tests.support.toys import toy_texts, write_toy_checkpoint

TEXTS = [*toy_texts(8, seed=8), "墨" * 100, "Search"]


def refused(
    path: Path, kind: type[ExportError], *parts: str, tokenizer: Path | None = None
) -> None:
    with pytest.raises(ExportError) as caught:
        read_checkpoint(path, tokenizer=tokenizer)
    error = caught.value
    assert type(error) is kind, error.english
    for part in parts:
        assert part in error.english
    assert any("\u4e00" <= letter <= "\u9fff" for letter in error.chinese)


def assert_same_vectors(found: Checkpoint, expected: Checkpoint, least: float) -> None:
    ids = token_ids(expected, TEXTS)
    assert all(map(np.array_equal, ids, token_ids(found, TEXTS)))
    vectors = one_by_one(float_encoder(found), ids)
    assert (vectors * one_by_one(float_encoder(expected), ids)).sum(axis=1).min() >= least


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT as a folder, and beside it as a file in F32."""
    folder = write_toy_checkpoint(tmp_path_factory.mktemp("gguf") / "toy", layer_norm_epsilon=1e-12)
    gguf_of(folder, folder.parent / "toy.gguf")
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.mark.parametrize(
    ("store", "pooling", "least"),
    [(F32, "mean", 0.999999), (F16, "cls", 0.99999), (Q8_0, "cls", 0.999)],
)
def test_bert_gives_the_vectors_of_its_checkpoint(
    store: Any, pooling: str, least: float, tmp_path: Path
) -> None:
    folder = write_toy_checkpoint(tmp_path / "toy", pooling=pooling)
    found = read_checkpoint(gguf_of(folder, tmp_path / "toy.gguf", store))
    expected = read_checkpoint(folder)
    assert found.shape == expected.shape and found.settings.normalize
    assert_same_vectors(found, expected, least)


def test_quantised_rows_are_what_they_say() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    rows[0, :32] = 0
    raw = np.frombuffer(as_q8_0(rows), np.uint8)
    assert np.abs(widen_q8_0(raw).reshape(rows.shape) - rows).max() < np.abs(rows).max() / 200


def test_nomic_and_qwen3_give_the_vectors_of_their_checkpoints(tmp_path: Path) -> None:
    for folder in (write_nomic(tmp_path / "nomic"), write_decoder(tmp_path / "qwen3")):
        file = gguf_of(folder, tmp_path / f"{folder.name}.gguf")
        assert_same_vectors(
            read_checkpoint(file, tokenizer=folder), read_checkpoint(folder), 0.999999
        )


def test_xlm_roberta_is_a_bert_whose_positions_begin_at_the_first_row(tmp_path: Path) -> None:
    folder = write_relative(tmp_path / "xlm", "xlm-roberta")
    tensors = {
        name.removeprefix("roberta."): each
        for name, each in load_file(folder / "model.safetensors").items()
    }
    tensors[POSITIONS] = tensors[POSITIONS][2:]
    as_bert = shutil.copytree(folder, tmp_path / "bert")
    save_file(tensors, as_bert / "model.safetensors")
    change_json(as_bert / "config.json", model_type="bert", max_position_embeddings=64)
    file = gguf_of(as_bert, tmp_path / "xlm.gguf", tokenizer__ggml__model="t5")
    found = read_checkpoint(file, tokenizer=folder)
    assert_same_vectors(found, read_checkpoint(folder), 0.999999)


def test_rules_of_the_tokenizers_folder_count_up_to_the_length_of_the_file(
    toy: Path, tmp_path: Path
) -> None:
    file = gguf_of(toy, tmp_path / "x.gguf", bert__context_length=50)
    for tokenizer in (toy, toy / "tokenizer.json"):
        settings = read_checkpoint(file, tokenizer=tokenizer).settings
        assert (settings.lower_case, settings.max_tokens) == (True, 50)
    alone = shutil.copy(toy / "tokenizer.json", tmp_path / "own.json")
    checkpoint = read_checkpoint(file, tokenizer=Path(alone))
    assert not checkpoint.settings.lower_case
    # Its normaliser is as it is stored.
    assert json.loads(checkpoint.tokenizer_json)["normalizer"]["lowercase"] is False


def test_tokenizer_is_rebuilt_where_the_file_says_enough_of_it(toy: Path, tmp_path: Path) -> None:
    words = list(read_header(toy.parent / "toy.gguf").settings["tokenizer.ggml.tokens"])
    for changes, part in (
        ({"model": "t5"}, "a tokenizer of the kind t5"),
        ({"tokens": [*words[:-1], "▁Ink"]}, "upper-case letters or accents"),
        ({"tokens": [*words[:-1], "▁é"]}, "upper-case letters or accents"),
        ({"tokens": ["<unk>" if each == "[UNK]" else each for each in words]}, "special tokens of"),
    ):
        given: dict[str, Any] = {f"tokenizer__ggml__{key}": each for key, each in changes.items()}
        refused(gguf_of(toy, tmp_path / "changed.gguf", **given), UnsupportedModel, part, "with --")
    # The original one decides everything.
    file = gguf_of(toy, tmp_path / "t5.gguf", tokenizer__ggml__model="t5")
    for tokenizer in (toy, toy / "tokenizer.json"):
        assert read_checkpoint(file, tokenizer=tokenizer).tokenizer_json
    twice = [*words[:-1], words[-2]]
    file = gguf_of(toy, tmp_path / "twice.gguf", tokenizer__ggml__tokens=twice)
    refused(file, CorruptFile, "stands twice")
    refused(toy, UnsupportedModel, "--tokenizer is for a GGUF file", tokenizer=toy)
    refused(file, NoSuchModel, "neither tokenizer.json nor", tokenizer=tmp_path)


def test_kinds_of_tokens_that_make_no_words_are_refused(toy: Path, tmp_path: Path) -> None:
    wrong = [3] * len(read_header(toy.parent / "toy.gguf").settings["tokenizer.ggml.tokens"])
    file = gguf_of(toy, tmp_path / "x.gguf", tokenizer__ggml__token_type=wrong)
    refused(file, CorruptFile, "stands twice")


def test_tokenizer_of_another_model_is_refused(toy: Path, tmp_path: Path) -> None:
    """It has as many tokens, and two of them changed places."""
    described = json.loads((toy / "tokenizer.json").read_text())
    places = described["model"]["vocab"]
    one, other = list(places)[-2:]
    places[one], places[other] = places[other], places[one]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(described))
    refused(
        toy.parent / "toy.gguf",
        ShapeMismatch,
        f"is '{other}' in it, and",
        "give the tokenizer of the model",
        tokenizer=path,
    )


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q_norm.weight", "blk.2.attn_q.bias", "rope_freqs.weight"]
)
def test_tensor_that_the_network_would_be_written_without_is_refused(
    name: str, toy: Path, tmp_path: Path
) -> None:
    """llama.cpp computes with it, or refuses the file."""
    tensor = {name: np.ones(32, np.float32)}
    refused(
        gguf_of(toy, tmp_path / "x.gguf", more=tensor), UnsupportedModel, "is not read, nor are"
    )
    pooler = {"cls.weight": np.ones((32, 32), np.float32)}
    assert read_checkpoint(gguf_of(toy, tmp_path / "cls.gguf", more=pooler))


def test_layers_that_the_settings_leave_out_are_named(toy: Path, tmp_path: Path) -> None:
    refused(gguf_of(toy, tmp_path / "x.gguf", bert__block_count=1), UnsupportedModel, "layer.1.")


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        # llama.cpp scales by a factor whose kind is left out, and reads an older name.
        ("rope__scaling__factor", 4.0, "scaled by linear"),
        ("rope__scale_linear", 4.0, "scaled by linear"),
        ("rope__dimension_count", 8, "rope.dimension_count is 8, and only 16"),
        ("attention__value_length", 8, "attention.value_length is 8, and only 16"),
        ("attention__sliding_window", 8, "attention.sliding_window (8) is not read"),
        ("logit_scale", 2.0, "the setting qwen3.logit_scale (2.0) is not read"),
    ],
)
def test_setting_that_changes_vectors_is_refused(
    key: str, value: Any, part: str, decoder: Path, tmp_path: Path
) -> None:
    file = gguf_of(decoder, tmp_path / "x.gguf", **{f"qwen3__{key}": value})
    refused(file, UnsupportedModel, part, tokenizer=decoder)


def test_setting_that_changes_nothing_is_read(decoder: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "qwen3__rope__scaling__type": "none",
        "qwen3__rope__dimension_count": 16,
        "qwen3__attention__value_length": 16,
        "qwen3__attention__sliding_window": 0,
        "qwen3__vocab_size": 512,
    }
    assert read_checkpoint(gguf_of(decoder, tmp_path / "x.gguf", **changes), tokenizer=decoder)


@pytest.mark.parametrize(
    ("changes", "kind", "part"),
    [
        ({"general__architecture": "llama"}, UnsupportedModel, "'llama' is not read, only"),
        ({"general__type": "adapter"}, UnsupportedModel, "of the type adapter"),
        ({"split__count": 3}, UnsupportedModel, "one of 3 parts"),
        ({"bert__pooling_type": 4}, UnsupportedModel, "pooling_type 4 gives no vector"),
        ({"bert__pooling_type": ...}, UnsupportedModel, "pooling_type None"),
        ({"bert__pooling_type": True}, UnsupportedModel, "pooling_type True"),
        ({"tokenizer__ggml__tokens": ["a"]}, CorruptFile, "has 1 tokens, and the embeddings"),
        ({"bert__pooling_type": [2]}, UnsupportedModel, "pooling_type [2]"),
        ({"general__architecture": [7]}, UnsupportedModel, "'[7]' is not read"),
        ({"bert__context_length": float("inf")}, CorruptFile, "bert.context_length is inf"),
        ({"bert__block_count": "x" * 5000}, CorruptFile, "bert.block_count is 'xxx"),
        (
            {"bert__attention__layer_norm_epsilon": float("nan")},
            CorruptFile,
            "layer_norm_epsilon is nan",
        ),
        ({"bert__attention__causal": True}, UnsupportedModel, "attention.causal True"),
        ({"bert__embedding_length": ...}, CorruptFile, "bert.embedding_length is None"),
        ({"bert__block_count": 10**6}, CorruptFile, "num_hidden_layers"),
        ({"bert__feed_forward_length": 63}, ShapeMismatch, "intermediate.dense"),
        ({"general__alignment": 0}, CorruptFile, "alignment"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_honoured_are_refused(
    changes: dict[str, Any], kind: type[ExportError], part: str, toy: Path, tmp_path: Path
) -> None:
    refused(gguf_of(toy, tmp_path / "x.gguf", **changes), kind, part)


def test_other_quantised_types_need_the_package(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf.constants", None)
    file = gguf_of(toy, tmp_path / "q4_k.gguf", (12, lambda array: b""))
    refused(file, MissingPackage, "quantised as type 12", "install the gguf extra")


# --- hostile files --------------------------------------------------------------------------------


def head(*parts: bytes, tensors: int = 0, settings: int = 1) -> bytes:
    return MAGIC + struct.pack("<IQQ", 3, tensors, settings) + b"".join(parts)


HUGE = struct.pack("<Q", 2**62)
HOSTILE = {
    "empty": (b"", "no whole GGUF file"),
    "other": (b"PK\x03\x04" * 9, "does not begin with GGUF"),
    "short": (b"GGUF\x03", "ends too early"),
    "many settings": (head(settings=2**60), "more entries"),
    "many tensors": (head(tensors=2**60), "more entries"),
    "long name": (head(HUGE), "a text in it is longer"),
    "long text": (head(text("a") + struct.pack("<I", 8) + HUGE), "a text in it is longer"),
    "long list of nothing": (head(text("a") + struct.pack("<II", 9, 0) + HUGE), "lists are longer"),
    "list beyond the end": (
        head(text("a") + struct.pack("<IIQ", 9, 10, 3_000_000)),
        "ends too early",
    ),
    "nested lists": (head(text("a") + struct.pack("<IIQ", 9, 9, 5)), "unknown type"),
    "unknown type": (head(text("a") + struct.pack("<I", 77)), "unknown type"),
    "not UTF-8": (head(struct.pack("<Q", 1) + b"\xff"), "not UTF-8"),
    "one name twice": (head(text("a") + value(1), text("a") + value(2), settings=2), "one name"),
    "no dimensions": (head(text("t") + struct.pack("<I", 0), tensors=1, settings=0), "shape"),
    "many dimensions": (head(text("t") + struct.pack("<I", 2**31), tensors=1, settings=0), "shape"),
    "huge dimensions": (
        head(text("t") + struct.pack("<I2Q", 2, 2**40, 2**40), tensors=1, settings=0),
        "shape",
    ),
}


@pytest.mark.parametrize(("content", "part"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_head_is_refused_before_it_costs_memory(
    content: bytes, part: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=part):
        read_header(path)


def test_other_versions_and_byte_orders_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for version in (struct.pack("<I", 1), struct.pack(">I", 3)):
        path.write_bytes(MAGIC + version + bytes(16))
        with pytest.raises(UnsupportedModel, match="of GGUF, or another byte order"):
            read_header(path)


def test_file_that_was_cut_names_a_tensor(toy: Path, tmp_path: Path) -> None:
    content = (toy.parent / "toy.gguf").read_bytes()
    path = tmp_path / "x.gguf"
    path.write_bytes(content[:-5000])
    refused(path, CorruptFile, "reaches beyond the end of the file")


def test_tensors_that_overlap_are_refused(toy: Path, tmp_path: Path) -> None:
    content = bytearray((toy.parent / "toy.gguf").read_bytes())
    name = text("position_embd.weight")
    place = content.index(name) + len(name) + struct.calcsize("<I2QI")
    struct.pack_into("<Q", content, place, 0)
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    refused(path, CorruptFile, "lies inside another")


def test_damage_is_an_error_of_the_export_or_leaves_a_sound_model(
    toy: Path, tmp_path: Path
) -> None:
    content, choose = (toy.parent / "toy.gguf").read_bytes(), random.Random(5)
    path, refusals = tmp_path / "x.gguf", 0
    for _ in range(20):
        path.write_bytes(choose.choice(KINDS)(bytearray(content), choose) or b"")
        try:
            read_checkpoint(path)
        except ExportError:
            refusals += 1
    assert refusals > 5


# --- the command line -----------------------------------------------------------------------------


def test_file_is_a_source_of_its_own_name_with_notes(toy: Path) -> None:
    settings = Settings(str(toy.parent / "toy.gguf"))
    place = locate(settings)
    assert (place.model_id, place.outputs) == ("toy", Path("models/toy"))
    source = read_model(place, settings)
    normalised, rebuilt = (note.english for note in source.notes)
    assert "do not say whether vectors are normalised" in normalised
    assert "rebuilt from the GGUF file" in rebuilt and source.settings.normalize
    # Vectors of single tokens are not normalised.
    (note,) = read_model(place, replace(settings, task="token_vectors")).notes
    assert "rebuilt" in note.english
    # The tokenizer beside it is a part of the model's identity.
    given = replace(settings, tokenizer=toy)
    assert len(read_model(place, given).notes) == 1
    assert read_model(place, given).sha256 != source.sha256


def test_inspection_reads_a_file(toy: Path) -> None:
    status, said = inspected(toy.parent / "toy.gguf")
    assert status == 0
    for part in (
        "family: bert",
        "2 layers of width 32",
        "up to 64 tokens; pooling cls; normalised",
    ):
        assert part in said
    status, said = inspected(toy.parent / "toy.gguf", f"--tokenizer={toy}")
    assert status == 0 and "rebuilt" not in said


def test_optimum_reads_no_file(toy: Path) -> None:
    settings = Settings(str(toy.parent / "toy.gguf"), via="optimum")
    with pytest.raises(UnsupportedModel, match="--via optimum reads no GGUF file"):
        read_model(locate(settings), settings)


def test_model_that_a_file_names_has_its_instruction(toy: Path, tmp_path: Path) -> None:
    url = "https://huggingface.co/BAAI/bge-small-en-v1.5"
    file = gguf_of(toy, tmp_path / "x.gguf", general__source__repo_url=url)
    settings = Settings(str(file))
    source = read_model(locate(settings), settings)
    assert source.instructions(settings).query.startswith("Represent this sentence")


def test_folder_with_such_files_alone_names_the_way(toy: Path, tmp_path: Path) -> None:
    gguf_of(toy, tmp_path / "x.gguf")
    refused(tmp_path, UnsupportedModel, "x.gguf is a GGUF file, which is exported by its own path")
