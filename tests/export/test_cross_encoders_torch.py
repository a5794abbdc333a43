"""Cross-encoders beside sentence-transformers' own CrossEncoder; one is trained here, so that order means something."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.pipeline import export
from export.settings import Settings
from export.verification.order import check_order
from export.verification.verify import DEFAULTS
from server.inference.comparison import sigmoid
from server.inference.model import Model
from server.types import Vectors
from tests.support.checkpoints import change_json
from tests.support.cross_encoders import HEADS, write_cross_encoder
from tests.support.encoders import one_by_one
from tests.support.toys import toy_texts, write_toy_texts

pytestmark = pytest.mark.torch

TEXTS = toy_texts(30, seed=9)
PAIRS = [
    *zip(TEXTS[:15], TEXTS[15:], strict=True),
    ("墨池", " 笔 墨 "),
    ("", "墨"),
    ("[MASK] 墨 [SEP] 池", "search [SEP]"),
    ("search " * 60, "墨" * 70),
    ("墨", "池" * 90),
]


def scores_of_library(folder: Path) -> Vectors:
    from sentence_transformers import CrossEncoder

    return np.asarray(CrossEncoder(str(folder), device="cpu").predict(PAIRS), np.float32)


def activated(model: Model) -> Vectors:
    """Return the scores of PAIRS as the server gives them."""
    logits = one_by_one(model.encoder, model.tokenizer.encode_pairs(PAIRS).ids)[:, 0]
    return sigmoid(logits) if model.manifest.activation == "sigmoid" else logits


def with_identity(folder: Path) -> None:
    identity = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.1.0"}
    change_json(folder / "config.json", sentence_transformers=identity)


def with_old_key(folder: Path) -> None:
    identity = "torch.nn.modules.linear.Identity"
    change_json(folder / "config.json", sbert_ce_default_activation_function=identity)


def with_foreign_activation(folder: Path) -> None:
    change_json(folder / "config.json", sentence_transformers={"activation_fn": "mine.Tanh"})


def without_types(folder: Path) -> None:
    names = ["input_ids", "attention_mask"]
    change_json(folder / "tokenizer_config.json", model_input_names=names)


def without_length_limit(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", model_max_length=...)


def as_written(folder: Path) -> None:
    del folder


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        *((kind, as_written) for kind in HEADS),
        ("bert", with_identity),
        ("bert", with_old_key),
        ("bert", with_foreign_activation),
        ("bert", without_types),
        ("bert", without_length_limit),
    ],
)
def test_float_artifact_gives_the_scores_of_the_library(
    kind: str, changed: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = write_cross_encoder(tmp_path / "model", kind)
    changed(folder)
    made = export(
        Settings(
            source=str(folder),
            precision="fp32",
            out=tmp_path / "artifact",
            calibration=write_toy_texts(tmp_path / "calibration.txt", 20),
            verify_texts=write_toy_texts(tmp_path / "verification.txt", 20, seed=1),
        )
    )
    assert np.abs(activated(Model(made)) - scores_of_library(folder)).max() <= 1e-4


# --- a trained one --------------------------------------------------------------------------------

STEPS = 400
TOPICS = (
    "墨池笔纸砚书画",
    "山水云雨风花鸟",
    "学生老师医院银行公司",
    "数据模型向量搜索文档",
    "春夏秋冬早晚冷热",
)


def generated(number: int, seed: int) -> list[tuple[str, str, float]]:
    """Return queries, candidates, and how much of a candidate is about the query: 0 to 1."""
    choose = random.Random(seed)
    found = []
    for _ in range(number):
        topic, other = choose.sample(TOPICS, 2)
        share = choose.choice((0.0, 0.0, 0.25, 0.5, 0.75, 1.0))
        length = choose.randint(8, 28)
        candidate = [
            choose.choice(topic if place < share * length else other) for place in range(length)
        ]
        choose.shuffle(candidate)
        query = "".join(choose.choices(topic, k=choose.randint(2, 5)))
        found.append((query, "".join(candidate), share))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small cross-encoder for a minute or less: BERT, 3 layers of 96, on generated pairs."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("trained")
    shape: dict[str, Any] = {"layers": 3, "hidden": 96, "heads": 6, "intermediate": 192}
    write_cross_encoder(folder / "random", max_tokens=64, **shape)
    torch.manual_seed(0)
    # Its threads would wait for each other longer than they compute.
    torch.set_num_threads(1)
    encoder = CrossEncoder(str(folder / "random"), device="cpu")
    # As small as training begins with; the random numbers of a toy are too large to learn from.
    encoder.model.apply(encoder.model._init_weights)
    weights = [each for each in encoder.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    pairs = generated(32 * STEPS, seed=0)
    encoder.model.eval()  # Without dropout: it is short.
    for step in range(STEPS):
        batch = pairs[32 * step : 32 * (step + 1)]
        read = encoder.tokenizer(
            [query for query, _, _ in batch],
            [candidate for _, candidate, _ in batch],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        wanted = torch.tensor([share for _, _, share in batch])
        logits = encoder.model(**read).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.model.eval()
    encoder.save_pretrained(str(folder / "trained"))
    return folder / "trained"


def test_int8_keeps_the_order_of_a_trained_cross_encoder(trained: Path) -> None:
    from sentence_transformers import CrossEncoder

    texts = [candidate for _, candidate, _ in generated(300, seed=1)]
    for name, chosen in (("calibration", texts[:200]), ("verification", texts[200:])):
        (trained / f"{name}.txt").write_text("\n".join(chosen), encoding="utf-8")
    model = Model(
        export(
            Settings(
                source=str(trained),
                calibration=trained / "calibration.txt",
                verify_texts=trained / "verification.txt",
            )
        )
    )
    # Queries that neither training nor calibration saw, with ten candidates each.
    choose = random.Random(2)
    asked = [
        ("".join(choose.choices(choose.choice(TOPICS), k=4)), candidate)
        for _, candidate, _ in generated(300, seed=3)
    ]
    asked = [(asked[place // 10 * 10][0], candidate) for place, (_, candidate) in enumerate(asked)]
    exact = CrossEncoder(str(trained), device="cpu")
    expected = np.asarray(exact.predict(asked), np.float32)
    found = one_by_one(model.encoder, model.tokenizer.encode_pairs(asked).ids)
    differences = np.abs(sigmoid(found)[:, 0] - expected)
    # It has learned something: its scores lie apart.
    assert np.percentile(expected, 95) - np.percentile(expected, 5) > 0.3
    assert differences.mean() < 0.01 and differences.max() < 0.1
    logits = np.log(expected / (1 - expected))[:, None]
    kept = check_order(found, logits, 10, DEFAULTS["score"].order)
    # Measured (2026-11-29): 0.994, and differences of 0.001 in the mean and 0.035 at most.
    assert kept.mean > 0.95
    # The best candidate stays the best, or nearly so.
    rows, exact_rows = found.reshape(-1, 10), logits.reshape(-1, 10)
    best = np.take_along_axis(exact_rows, rows.argmax(axis=1)[:, None], axis=1)[:, 0]
    lost = 1 / (1 + np.exp(-exact_rows.max(axis=1))) - 1 / (1 + np.exp(-best))
    assert lost.max() < 0.05
