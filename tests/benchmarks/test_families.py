"""Published shapes are those that the exporter reads, and rows of the table are kept and shown."""

import json
from pathlib import Path

import pytest

from benchmarks import families
from benchmarks.comparison import rerankers
from benchmarks.models.checkpoint import stored_shapes
from benchmarks.models.published import PUBLISHED, SMALL_LAYERS, Published
from benchmarks.rerank import Shape
from export import families as exported
from server.inference.model import Model

ROW = {
    "case": "families",
    "model": "bge-m3",
    "quick": True,
    "weights": "random",
    "parity": {"by": "sentence-transformers 5.1.2", "measure": "cosine", "value": 0.9999999},
    "agreement": {"mean": 0.99912, "minimum": 0.98},
    "batch_difference": 3.2e-07,
    "tokens_s_1x128": 1234.5,
    "tokens_s_16x16": 2345.6,
    "file_mb": 589.1,
    "export_peak_mb": 2736,
    "export_s": 801.5,
}


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_files_have_the_tensors_that_the_exporter_reads(model: Published) -> None:
    config = dict(model.smaller().config)
    family = exported.of(config)
    assert family.read_shape(config).positions >= model.smaller().max_tokens
    expected = family.read_shape(config).tensors()
    found = {
        family.tensor_name(name): size for name, size in stored_shapes(model.smaller()).items()
    }
    # The head of a cross-encoder is not among the family's own tensors.
    assert {name: tuple(size) for name, size in expected.items()}.items() <= found.items()
    assert len(family.read_shape(config).tensors()) < len(stored_shapes(model))
    assert SMALL_LAYERS in config.values()


def test_rows_are_kept_in_the_file_of_results_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert families.stored(path) == {}
    failed = {**ROW, "model": "other", "failed": "died"}
    lines = [{**ROW, "file_mb": 1.0}, ROW, failed, {"case": "encode"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert families.stored(path) == {("bge-m3", True): ROW}
    shown = families.table([ROW, {"model": "x", "parity": {"by": "tests"}, "failed": "died"}])
    head, rule, first, second = shown.splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert "cosine 0.9999999 | 0.9991 / 0.9800 | 3.2e-07 | 1,234 | 2,346 | 589 |" in first
    assert "| numpy | died |" in second


def test_passages_have_the_length_that_the_shape_says(toy_model: Model) -> None:
    pairs = rerankers.pairs_of(toy_model.tokenizer, Shape.of("6x40"))
    assert len({query for query, _ in pairs}) == 1
    counts = toy_model.tokenizer.count([passage for _, passage in pairs])
    assert all(20 <= count for count in counts) and len(set(counts)) > 1


def test_agreement_of_scores_is_a_difference_and_an_order() -> None:
    exact = {"scores": [0.0, 1.0, 2.0]}
    same = rerankers._agreement(exact, exact)
    assert same == {"difference_mean": 0, "difference_most": 0, "tau": 1}
    other = rerankers._agreement({"scores": [2.0, 1.0, 0.0]}, exact)
    assert other["tau"] == -1 and other["difference_most"] == pytest.approx(0.381, abs=1e-3)
