"""Architectures that no family writes, from the folder to the served vector: `--via optimum`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.optimum import route
from export.optimum.trace import trace
from export.pipeline import export
from export.settings import Settings
from export.verification.verify import Thresholds
from server.inference.comparison import row_cosines
from server.inference.manifest import read_manifest
from server.inference.model import Model
from tests.support.optimum_toys import (
    MAX_TOKENS,
    SHAPE,
    WIDTH,
    Case,
    quietly,
    texts,
    write_checkpoint,
)

pytestmark = pytest.mark.torch
for name in ("optimum", "sentence_transformers", "torch"):
    pytest.importorskip(name)

RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
}
CASES = [
    # Steps that depend on a text's length, in branches: names inside an If.
    Case("deberta-v2", "mean", config={**SHAPE, **RELATIVE, "position_buckets": 16}),
    Case("deberta", "cls", config={**SHAPE, **RELATIVE}),
    Case("electra", "cls", config={**SHAPE, "embedding_size": 24}),
    Case("albert", "mean", config={**SHAPE, "embedding_size": 24}),
    Case("big_bird", "mean", config={**SHAPE, "attention_type": "original_full"}),
    Case("convbert", "max", config={**SHAPE, "embedding_size": WIDTH, "head_ratio": 2}),
    # embeddinggemma's network.
    Case(
        "gemma3_text",
        "mean",
        config={
            **SHAPE,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "use_bidirectional_attention": True,
        },
    ),
    Case("gpt2", "lasttoken", config={"n_embd": WIDTH, "n_layer": 2, "n_head": 4}),
    # bge-m3's network, which a family here writes: MAX_TOKENS + 2 positions from behind the padding token.
    Case("xlm-roberta", "cls"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, n_texts, seed in (("calibration", 60, 1), ("verification", 40, 3)):
        lines = [text for text in texts(n_texts, seed) if text]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def settings(folder: Path, files: Path, **options: Any) -> Settings:
    return Settings(
        str(folder),
        via="optimum",
        calibration=files / "calibration",
        verify_texts=files / "verification",
        **options,
    )


def expected_vectors(folder: Path, sentences: list[str]) -> Any:
    with quietly():
        from sentence_transformers import SentenceTransformer

        original = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        return original.encode(sentences, show_progress_bar=False, batch_size=1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_model_serves_what_sentence_transformers_computes(
    case: Case, files: Path, tmp_path: Path
) -> None:
    folder = write_checkpoint(case, tmp_path / "model")
    sentences = texts(30, seed=2)
    expected = expected_vectors(folder, sentences)
    for precision, least in (("fp32", 0.99999), ("int8", 0.98)):
        model = Model(export(settings(folder, files, precision=precision)))
        assert model.manifest.text.max_tokens == MAX_TOKENS
        ids = model.tokenizer.encode(sentences).ids
        alone = np.concatenate([model.encoder.encode([one]) for one in ids])
        assert row_cosines(alone, expected).min() >= least
        same = [one[:9] for one in ids if len(one) >= 9][:4]
        together = model.encoder.encode(same)
        np.testing.assert_allclose(
            np.concatenate([model.encoder.encode([one]) for one in same]), together, atol=1e-6
        )


def test_auto_traces_a_network_once(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, traced = write_checkpoint(CASES[3], tmp_path / "model"), []

    def counted(*given: Any, **options: Any) -> Any:
        traced.append(given)
        return trace(*given, **options)

    monkeypatch.setattr(route, "trace", counted)
    strict = Thresholds(mean=0.99999, minimum=0.9999)
    made = export(settings(folder, files, precision="auto", thresholds=strict))
    assert read_manifest(made).precision == "fp16"
    assert len(traced) == 1
