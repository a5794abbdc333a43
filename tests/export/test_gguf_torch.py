"""GGUF files of the package gguf itself: its writer, its names of tensors, and its quantised types."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.checkpoint import read_checkpoint
from export.source.gguf.header import read_header
from export.source.gguf.networks import ARCHITECTURES
from export.source.gguf.tensors import stored_tensors
from tests.export.test_gguf import TEXTS, assert_same_vectors
from tests.support.decoder_toys import write_decoder
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.gated_toys import write_nomic
from tests.support.gguf_toys import F32, SETTINGS, gguf_of, stored_name, tokens_of
from tests.support.toys import write_toy_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_file_of_its_writer_gives_the_vectors_of_its_numbers(kind: str, tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path / "toy", hidden=64, intermediate=128)
    quantised = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "toy.gguf", "bert")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.CLS)
    writer.add_tokenizer_model("bert")
    settings = tokens_of(folder, 0)
    writer.add_token_list(settings["tokenizer.ggml.tokens"])
    writer.add_token_types(settings["tokenizer.ggml.token_type"])
    expected: dict[str, Any] = {}
    for name, array in load_file(folder / "model.safetensors").items():
        stored = stored_name("bert", name)
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(stored, array)
            expected[name] = array
            continue
        raw = gguf.quants.quantize(array, quantised)
        writer.add_tensor(stored, raw, raw_dtype=quantised)
        expected[name] = gguf.quants.dequantize(raw, quantised).reshape(array.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_checkpoint(tmp_path / "toy.gguf")
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name], array)
    if kind == "F32":
        assert_same_vectors(found, read_checkpoint(folder), 0.999999)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"])
def test_types_of_256_numbers_a_block_are_read(kind: str, tmp_path: Path) -> None:
    quantised = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantised]
    raw = np.random.default_rng(0).integers(0, 60, (8, 2 * size), dtype=np.uint8)
    folder = write_toy_checkpoint(tmp_path / "toy")
    file = gguf_of(folder, tmp_path / "toy.gguf", (int(quantised), lambda array: raw.tobytes()))
    header = read_header(file)
    placed = {"blk.0.ffn_up.weight": header.tensors["blk.0.ffn_up.weight"]}
    placed = {
        name: type(each)((8, 2 * block), each.kind, each.offset) for name, each in placed.items()
    }
    only = type(header)(header.settings, placed, header.end, header.size)
    (found,) = stored_tensors(file, only, ARCHITECTURES["bert"].names).values()
    np.testing.assert_array_equal(found.array(), gguf.quants.dequantize(raw, quantised))


def test_names_of_tensors_are_those_of_its_converter(tmp_path: Path) -> None:
    folders = {
        "bert": write_toy_checkpoint(tmp_path / "bert"),
        "nomic-bert": write_nomic(tmp_path / "nomic"),
        "qwen3": write_decoder(tmp_path / "qwen3"),
    }
    assert folders.keys() == SETTINGS.keys() == ARCHITECTURES.keys()
    for architecture, folder in folders.items():
        enum = {name: each for each, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
        names = gguf.get_tensor_name_map(enum, 8)
        for name in load_file(folder / "model.safetensors"):
            prefix = "model." if architecture == "qwen3" else ""
            expected = names.get_name(prefix + name, (".weight", ".bias"))
            assert stored_name(architecture, name) == expected, name


def test_file_is_what_its_reader_reads(tmp_path: Path) -> None:
    file = gguf_of(write_toy_checkpoint(tmp_path / "toy"), tmp_path / "toy.gguf", F32)
    theirs, own = gguf.GGUFReader(file), read_header(file)
    assert {each.name for each in theirs.tensors} == own.tensors.keys()
    for each in theirs.tensors:
        assert own.end + own.tensors[each.name].offset == each.data_offset
    for key, value in own.settings.items():
        found = theirs.get_field(key).contents()
        assert found == (pytest.approx(value) if isinstance(value, float) else value)
    encoder = float_encoder(read_checkpoint(file))
    assert one_by_one(encoder, token_ids(read_checkpoint(file), TEXTS)).any()
