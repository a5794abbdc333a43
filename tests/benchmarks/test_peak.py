"""The CPU's peak is measured by a program that is compiled here, and what a batch needs is counted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.encode import shares
from benchmarks.peak import NoPeak, Peak, measure, total
from benchmarks.work import Network, Work, network
from export.families.bert.attention import LONG
from server.config import DEFAULT_MODEL
from server.inference.manifest import read_manifest
from server.system.cpu import cpu_features, int8_instruction_set

PEAK = Peak(int8_gops=400.0, fp32_gflops=100.0, int8_set="avx512_vnni", fp32_set="avx512f")
SMALL = Network(layers=4, hidden=512, intermediate=2048, first_row=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
@pytest.mark.skipif("avx2" not in cpu_features(), reason="the loops need AVX2")
def test_the_peak_is_measured_with_the_instructions_that_the_cpu_has() -> None:
    found = measure([1, 2])
    assert found.keys() == {1, 2}
    for peak in found.values():
        # Four int8 products take the place of one float32 product; two where they are added in pairs.
        assert 1.2 < peak.int8_gops / peak.fp32_gflops < 8
        assert peak.int8_set in (int8_instruction_set(cpu_features()), "avx512_vnni")
        assert peak.fp32_set == ("avx512f" if "avx512f" in cpu_features() else "avx2")


@pytest.mark.parametrize(
    ("compiler", "message"), [("no-such-cc", "is not installed"), ("false", "does not compile")]
)
def test_without_a_compiler_there_is_no_peak(compiler: str, message: str) -> None:
    with pytest.raises(NoPeak, match=message):
        measure([1], compiler)


def test_several_threads_peaks_are_added() -> None:
    one = "int8 avx2 200.5\nfp32 avx2 100.0\n"
    assert total([one, one]) == Peak(401.0, 200.0, "avx2", "avx2")


@pytest.mark.parametrize("printed", ["", "int8 avx2 1\n"])
def test_a_cpu_without_a_loop_has_no_peak(printed: str) -> None:
    with pytest.raises(NoPeak, match="no loop for this CPU"):
        total([printed])


def test_operations_are_those_counted_by_hand() -> None:
    # Three whole layers of 6.29 million operations per token, and the last one's keys and values; its
    # query, output and feed-forward once per text.
    square, wide = 512 * 512, 512 * 2048
    layer = 2 * (4 * square + 2 * wide)
    token, text = 3 * layer + 2 * 2 * square, 2 * (2 * square + 2 * wide)
    assert token == pytest.approx(19.9e6, rel=0.01)
    found = SMALL.work([16, 30])
    assert found.weights == 46 * token + 2 * text
    assert found.attention == 4 * 512 * (3 * (16**2 + 30**2) + 16 + 30)


def test_attention_of_long_texts_counts_as_int8_but_from_a_first_row() -> None:
    long = replace(SMALL, int8_above=30)
    assert long.work([16, 30]) == SMALL.work([16, 30])
    found = long.work([31])
    assert found.int8_attention == 4 * 512 * 3 * 31**2
    assert found.attention == 4 * 512 * 31
    assert found.bound_s(PEAK, int8=True) < SMALL.work([31]).bound_s(PEAK, int8=True)


def test_without_the_shortcut_all_layers_are_equal() -> None:
    whole = Network(layers=4, hidden=512, intermediate=2048, first_row=False)
    assert whole.work([1]).weights == pytest.approx(25.2e6, rel=0.01)
    assert whole.work([64]).weights == 64 * whole.work([1]).weights


def test_shares_are_of_the_peak_that_the_precision_has() -> None:
    work = Work(weights=200e9, attention=25e9)
    int8 = shares(work, 1.0, PEAK, int8=True)
    assert (int8["gops"], int8["gops_share"], int8["peak_share"]) == (200, 0.5, 0.75)
    assert int8["peak"]["instructions"] == "avx512_vnni"
    fp32 = shares(work, 4.0, PEAK, int8=False)
    assert (fp32["gops"], fp32["gops_share"], fp32["peak_share"]) == (50, 0.5, 0.562)
    assert fp32["peak"]["instructions"] == "avx512f"


def test_the_shape_is_that_of_the_checkpoint_around_the_artifact(tmp_path: Path) -> None:
    if not (DEFAULT_MODEL / "manifest.json").exists():
        pytest.skip("the shipped model is not exported: make export")
    manifest = read_manifest(DEFAULT_MODEL)
    expected = replace(SMALL, int8_above=LONG - 1)
    assert network(DEFAULT_MODEL, manifest) == expected
    assert network(tmp_path / "onnx-int8", manifest) is None
    config = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert network(tmp_path / "onnx-int8", manifest) == replace(
        expected, layers=1, hidden=8, intermediate=16
    )
