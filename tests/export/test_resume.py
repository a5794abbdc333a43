"""Calibration starts a layer's graph from an activation that it knows, and finds the same numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from export.families.family import HIDDEN
from export.onnx_file import open_graph
from export.quantisation import quantise, ranges
from export.quantisation.quantise import quantize
from export.quantisation.resume import Passes, resume
from tests.support.encoders import token_ids, toy_network
from tests.support.gated_toys import write_modernbert
from tests.support.toys import toy_texts


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_graph_computes_the_same_from_a_known_activation(family: str, tmp_path: Path) -> None:
    checkpoint = (
        toy_network(tmp_path)
        if family == "bert"
        else read_checkpoint(write_modernbert(tmp_path / "model"))
    )
    network = checkpoint.network()
    floats = network.float_linears()
    rows = np.random.default_rng(0).standard_normal((1, 9, network.dimension)).astype(np.float32)
    for index, layer in enumerate(network.layers):
        whole, output = network.layer(floats, index)
        expected = open_graph(whole, 1).run([output], {HIDDEN: rows})[0]
        known = {HIDDEN: rows}
        for site in layer.sites:
            part, name = network.layer(floats, index, until=site.name)
            if name not in known:
                known[name] = _run(resume(part, _widths(known)), name, known)
            assert np.allclose(_run(part, name, {HIDDEN: rows}), known[name], atol=1e-6)
        resumed = resume(network.layer(floats, index)[0], _widths(known))
        assert len(resumed.graph.node) < len(whole.graph.node)
        assert np.allclose(_run(resumed, output, known), expected, atol=1e-6)


def _widths(known: dict[str, Any]) -> dict[str, int]:
    return {name: array.shape[-1] for name, array in known.items()}


def _run(model: Any, output: str, known: dict[str, Any]) -> Any:
    session = open_graph(model, 1)
    feeds = {each.name: known[each.name] for each in session.get_inputs()}
    return session.run([output], feeds)[0]


def test_what_calibration_knows_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = toy_network(tmp_path)
    ids = token_ids(checkpoint, toy_texts(20))
    usual = quantize(checkpoint.network(), ids, weight_bits=8, threads=1)

    class Forgetful(Passes):
        def run(self, model: Any, output: str, *, keep: bool = False) -> Any:
            return super().run(model, output)

    monkeypatch.setattr(quantise, "Passes", Forgetful)
    again = quantize(checkpoint.network(), ids, weight_bits=8, threads=1)
    assert usual.report == again.report
    assert _numbers(usual.linears.values()) == _numbers(again.linears.values())


def _numbers(linears: Any) -> Sequence[bytes]:
    return [linear.weight.tobytes() + linear.bias.tobytes() for linear in linears]


def test_large_sites_of_a_model_of_long_texts_are_searched_on_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = toy_network(tmp_path)
    ids = token_ids(checkpoint, toy_texts(20))
    searched: list[int] = []
    search = ranges.search

    def count(rows: Any, *others: Any, **options: Any) -> Any:
        searched.append(len(rows.sampled))
        return search(rows, *others, **options)

    monkeypatch.setattr(quantise, "search", count)
    monkeypatch.setattr(quantise, "SPARING_WORK", 1e6)
    quantize(checkpoint.network(), ids, weight_bits=8, threads=1)
    usual = [*searched]
    searched.clear()
    quantize(checkpoint.network(), ids, weight_bits=8, threads=1, sparing=True)
    # The first site has three matrices of 32 x 32.
    assert searched[0] == -(-usual[0] // -(-usual[0] * 3 * 32 * 32 // 1_000_000))
    assert searched[0] < usual[0]
