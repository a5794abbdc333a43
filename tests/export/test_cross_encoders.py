"""Cross-encoders: a folder becomes an artifact that gives a pair the score of the original."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tokenizers import Tokenizer as RustTokenizer

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CorruptFile, DisagreesWithCheckpoint, ShapeMismatch, UnsupportedModel
from export.families.bert.encoder import BertWriter
from export.families.bert.shape import BertShape
from export.graph import GraphWriter
from export.onnx_file import open_graph, serialize
from export.pipeline import export
from export.settings import Settings
from export.texts import pairs
from export.verification.order import check_order, kendall_tau
from export.verification.verify import DEFAULTS, Thresholds
from server.inference.encoder import INPUT_IDS, POSITION_IDS, SessionEncoder, pack
from server.inference.manifest import MANIFEST_FILE, TextRules, parse_manifest
from server.inference.model import Model
from server.inference.tokenizer import Tokenizer
from server.types import Ids, Packing, Vectors
from tests.support.checkpoints import change_json, change_tensors, refusal
from tests.support.cross_encoders import ReferenceCrossEncoder, write_cross_encoder
from tests.support.encoders import float_encoder, one_by_one
from tests.support.exports import change
from tests.support.toys import VOCABULARY, toy_texts, write_toy_checkpoint, write_toy_texts

TEXTS = toy_texts(24, seed=3)
PAIRS = [*zip(TEXTS[:12], TEXTS[12:], strict=True), ("", "墨"), ("墨 ", ""), ("墨" * 70, "池" * 70)]


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    assert checkpoint.scoring is not None
    settings, offset = checkpoint.settings, checkpoint.scoring.second_text_offset
    rules = TextRules(settings.lower_case, settings.max_tokens, second_text_offset=offset)
    return Tokenizer(checkpoint.tokenizer_json, rules)


def scores(checkpoint: Checkpoint) -> Vectors:
    """Return the scores of PAIRS in float32, before activation, one by one."""
    ids = tokenizer_of(checkpoint).encode_pairs(PAIRS).ids
    return one_by_one(float_encoder(checkpoint), ids)[:, 0]


def expected_of_bert(folder: Path, max_tokens: int = 64) -> list[float]:
    """Return the same by the reference and the tokenizers library."""
    reference = ReferenceCrossEncoder(folder)
    library = RustTokenizer.from_file(str(folder / "tokenizer.json"))
    library.enable_truncation(max_tokens)
    types = reference.config["type_vocab_size"] > 1
    found = []
    for pair in PAIRS:
        encoding = library.encode(*pair)
        kinds = np.array(encoding.type_ids) * types
        found.append(reference.score(np.array(encoding.ids), kinds))
    return found


# --- the graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"token_types": 1}, {"layers": 1}, {"heads": 1}])
def test_bert_gives_the_scores_of_the_reference(options: dict[str, Any], tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path, **options)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.scoring is not None
    types = options.get("token_types", 2) > 1
    assert checkpoint.scoring.second_text_offset == (len(VOCABULARY) if types else 0)
    np.testing.assert_allclose(scores(checkpoint), expected_of_bert(folder), atol=2e-6)


def test_types_of_the_second_text_change_the_score(tmp_path: Path) -> None:
    """What a graph that left them out would show."""
    typed = scores(read_checkpoint(write_cross_encoder(tmp_path / "typed")))
    folder = write_cross_encoder(tmp_path / "plain")
    change_json(folder / "tokenizer_config.json", model_input_names=["input_ids"])
    plain = read_checkpoint(folder)
    assert plain.scoring is not None and plain.scoring.second_text_offset == 0
    assert np.abs(typed - scores(plain)).max() > 0.01


@pytest.mark.parametrize("kind", ["xlm-roberta", "roberta"])
def test_roberta_gives_the_scores_of_the_bert_it_was_made_from(kind: str, tmp_path: Path) -> None:
    """Its classifier is BERT's pooler and classifier under other names."""
    relative = read_checkpoint(write_cross_encoder(tmp_path / "relative", kind))
    checkpoint = read_checkpoint(folder := write_cross_encoder(tmp_path / "bert"))
    assert checkpoint.scoring is not None
    ids = tokenizer_of(relative).encode_pairs(PAIRS).ids
    reference = ReferenceCrossEncoder(folder)
    expected = [reference.score(row, np.zeros_like(row)) for row in ids]
    found = one_by_one(float_encoder(relative), ids)[:, 0]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_scores_in_batches_of_several_lengths_are_those_of_pairs_alone(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_cross_encoder(tmp_path))
    ids = sorted(tokenizer_of(checkpoint).encode_pairs(PAIRS).ids, key=len)[:6]
    encoder = float_encoder(checkpoint)
    together = encoder.encode(ids)
    assert together.shape == (6, 1) and len({*map(len, ids)}) > 2
    np.testing.assert_allclose(together, one_by_one(encoder, ids), atol=1e-6)


def test_embeddings_of_a_packed_batch_are_those_of_pairs_alone_to_the_last_bit(
    tmp_path: Path,
) -> None:
    """What rounds them would make large differences of small ones."""
    checkpoint = read_checkpoint(write_cross_encoder(tmp_path, hidden=384, heads=12, layers=1))
    assert isinstance(checkpoint.shape, BertShape)
    ids = sorted(tokenizer_of(checkpoint).encode_pairs(PAIRS).ids, key=len)[:6]

    def embeddings(packed: bool, feeds: dict[str, Ids]) -> Vectors:
        graph = GraphWriter()
        graph.input(INPUT_IDS, TensorProto.INT64, ["rows", "columns"])
        graph.optional_input(POSITION_IDS, np.zeros(1, np.int64), ["columns"])
        settings, tensors = checkpoint.settings, checkpoint.tensors
        assert isinstance(checkpoint.shape, BertShape)
        writer = BertWriter(checkpoint.shape, settings, tensors, {}, graph, packed=packed)
        output = writer.embeddings(int8=True)
        session = open_graph(graph.model("embeddings", {output: ["rows", "columns", 384]}), 1)
        found: Vectors = session.run([output], feeds)[0][0]
        return found

    whole = pack(ids, Packing(groups=8, longest=64), 1)
    together = embeddings(True, {name: whole[name] for name in (INPUT_IDS, POSITION_IDS)})
    alone = [embeddings(False, {INPUT_IDS: row[None]}) for row in ids]
    np.testing.assert_array_equal(together, np.concatenate(alone))


# --- what a folder says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, "sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "identity",
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        (
            {
                "sentence_transformers": {
                    "activation_fn": "torch.nn.modules.activation.Sigmoid",
                    "version": "5.1.0",
                },
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            "sigmoid",
        ),
        # Code from elsewhere is not run, by sentence-transformers either.
        ({"sentence_transformers": {"activation_fn": "mine.Identity"}}, "sigmoid"),
    ],
)
def test_activation_is_what_sentence_transformers_would_take(
    config: dict[str, object], activation: str, tmp_path: Path
) -> None:
    folder = write_cross_encoder(tmp_path)
    change_json(folder / "config.json", **config)
    scoring = read_checkpoint(folder).scoring
    assert scoring is not None and scoring.activation == activation


def test_other_activations_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    tanh = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    change_json(folder / "config.json", sentence_transformers=tanh)
    refusal(folder, UnsupportedModel, "ion.Tanh", "Sigmoid, Identity")
    change_json(folder / "config.json", sentence_transformers={"activation_fn": 3})
    refusal(folder, CorruptFile, "3, not the name of a class")


@pytest.mark.parametrize(
    "labels",
    [{"id2label": {"0": "no", "1": "yes"}}, {"id2label": ..., "num_labels": 2}, {"id2label": ...}],
)
def test_model_of_several_labels_is_refused(labels: dict[str, object], tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    change_json(folder / "config.json", **labels)
    refusal(folder, UnsupportedModel, "with 2 labels", "a reranker, which has one label")


def test_number_of_labels_counts_where_they_have_no_names(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    change_json(folder / "config.json", id2label=..., num_labels=1)
    assert read_checkpoint(folder).scoring is not None


def test_folder_with_modules_holds_an_encoder_of_texts(tmp_path: Path) -> None:
    folder = write_toy_checkpoint(tmp_path)
    change_json(folder / "config.json", architectures=["BertForSequenceClassification"])
    assert read_checkpoint(folder).scoring is None


def test_missing_head_is_named(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    change_tensors(folder, lambda tensors: tensors.pop("bert.pooler.dense.weight"))
    refusal(folder, ShapeMismatch, "pooler.dense.weight", "is missing")


def test_head_of_several_outputs_is_named(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    two = np.zeros((2, 32), np.float32)
    change_tensors(folder, lambda tensors: tensors.update({"classifier.weight": two}))
    refusal(folder, ShapeMismatch, "classifier.weight", "(2, 32)", "(1, 32)")


def test_more_than_two_types_are_refused(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"]["pair"][3]["Sequence"]["type_id"] = 2
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    refusal(folder, UnsupportedModel, "types [0, 1, 2]")


def test_model_too_short_for_two_texts_is_refused(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    change_json(folder / "tokenizer_config.json", model_max_length=4)
    refusal(folder, ShapeMismatch, "3 special tokens around every pair", "4 tokens")


# --- the order ------------------------------------------------------------------------------------


def test_kendall_tau_counts_the_pairs_in_the_same_order() -> None:
    first = np.array([1, 2, 3, 4], np.float32)
    assert kendall_tau(first, first * 10) == 1
    assert kendall_tau(-first, first) == -1
    assert kendall_tau(np.array([1, 2, 4, 3], np.float32), first) == pytest.approx(4 / 6)
    # What the reference does not tell apart does not count; what the other does not, counts as half.
    assert kendall_tau(np.array([1, 2], np.float32), np.array([1, 1], np.float32)) == 1
    assert kendall_tau(np.array([1, 1, 2], np.float32), first[:3]) == pytest.approx(2 / 3)


def test_other_orders_are_refused_though_the_scores_agree() -> None:
    expected = np.linspace(-8, -7.9, 16, dtype=np.float32)[:, None]
    found = expected[::-1].copy()
    with pytest.raises(DisagreesWithCheckpoint, match="Kendall's tau of -1.000 .needs 0.9"):
        check_order(found, expected, 8, DEFAULTS["score"].order)
    agreement = check_order(expected, expected, 8, 0.9)
    assert (agreement.mean, agreement.minimum, agreement.queries) == (1, 1, 2)


def test_nan_is_no_agreement() -> None:
    expected = np.zeros((8, 1), np.float32)
    expected[0] = 1
    with pytest.raises(DisagreesWithCheckpoint):
        check_order(np.full((8, 1), np.nan, np.float32), expected, 8, -1)


# --- pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("怎么修？先看说明书。再打电话。", "怎么修？"),
        ("Is it late? No, it is not.", "Is it late?"),
        ("one two three four", "one two"),
        ("墨", "墨"),
        ("墨池笔纸", "墨池"),
        ("3.5 is a number here", "3.5 is a"),
    ],
)
def test_query_is_the_beginning_of_a_text(text: str, query: str) -> None:
    assert pairs.query_of(text) == query


@pytest.mark.parametrize("n_texts", [1, 2, 7, 20, 190])
def test_every_query_has_as_many_candidates(n_texts: int) -> None:
    texts = toy_texts(n_texts, seed=8)
    found = pairs.to_verify(texts)
    assert len(found) % pairs.CANDIDATES == 0 and found
    for first in range(0, len(found), pairs.CANDIDATES):
        queries = {query for query, _ in found[first : first + pairs.CANDIDATES]}
        assert len(queries) == 1
    assert len(pairs.to_calibrate(texts)) == 2 * n_texts


# --- a whole export -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("cross-encoder")
    return Settings(
        source=str(write_cross_encoder(folder / "toy-reranker", layers=1)),
        calibration=write_toy_texts(folder / "calibration.txt", 40),
        verify_texts=write_toy_texts(folder / "verification.txt", 20, seed=1),
    )


@pytest.fixture(scope="module")
def artifact(settings: Settings) -> Path:
    return export(settings)


def test_int8_artifact_scores_pairs_and_its_manifest_says_how_well(artifact: Path) -> None:
    model = Model(artifact)
    manifest = model.manifest
    assert (manifest.task, manifest.dimension, manifest.activation) == ("score", 1, "sigmoid")
    assert manifest.text.second_text_offset == len(VOCABULARY)
    assert not manifest.text.query_instruction and not manifest.text.lower_case
    assert manifest.agreement.mean > 0.99 and manifest.order is not None
    assert manifest.order.mean > 0.9 and manifest.order.queries == 16
    assert manifest.monotonous_agreement is not None
    assert model.computes_the_same and all(test.second is not None for test in manifest.self_test)
    # Also in batches of several lengths, whose shapes have the width of one number.
    ids: list[Ids] = sorted(model.tokenizer.encode_pairs(PAIRS).ids, key=len)[:6]
    alone = one_by_one(model.encoder, ids)
    np.testing.assert_allclose(model.encoder.encode(ids), alone, atol=1e-5)


def test_int8_scores_are_near_those_of_the_reference(artifact: Path) -> None:
    model = Model(artifact)
    found = one_by_one(model.encoder, model.tokenizer.encode_pairs(PAIRS).ids)[:, 0]
    expected = np.array(expected_of_bert(artifact.parent), np.float32)
    assert np.abs(found - expected).max() < 0.2
    assert kendall_tau(found, expected) > 0.85


def test_export_is_up_to_date_the_second_time(settings: Settings, artifact: Path) -> None:
    before = (artifact / MANIFEST_FILE).stat().st_mtime_ns
    assert export(settings) == artifact
    assert (artifact / MANIFEST_FILE).stat().st_mtime_ns == before


def test_another_activation_is_another_model(settings: Settings, artifact: Path) -> None:
    before = parse_manifest(artifact / MANIFEST_FILE).fingerprint
    folder = Path(settings.source)
    changed = change(settings, precision="fp32", out=folder.parent / "fp32")
    try:
        sigmoid = parse_manifest(export(changed) / MANIFEST_FILE)
        identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
        change_json(folder / "config.json", sentence_transformers=identity)
        other = parse_manifest(export(changed) / MANIFEST_FILE)
    finally:
        change_json(folder / "config.json", sentence_transformers=...)
    assert other.activation == "identity" and other.agreement.mean == 1
    assert len({before, sigmoid.fingerprint, other.fingerprint}) == 3


def test_instructions_and_sizes_are_refused(settings: Settings) -> None:
    with pytest.raises(UnsupportedModel, match="take no instruction"):
        export(change(settings, query_instruction="query: "))
    with pytest.raises(UnsupportedModel, match="--matryoshka shortens dense vectors"):
        export(change(settings, matryoshka=(16,)))
    with pytest.raises(
        UnsupportedModel, match="exports models of vectors; this is a cross-encoder"
    ):
        export(change(settings, via="optimum"))


def test_orders_that_disagree_stop_an_export(settings: Settings, tmp_path: Path) -> None:
    impossible = Thresholds(mean=0, minimum=0, order=1.0)
    with pytest.raises(DisagreesWithCheckpoint, match="Kendall's tau of 0"):
        export(change(settings, thresholds=impossible, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_graph_of_the_largest_ids_runs(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_cross_encoder(tmp_path, layers=1))
    network = checkpoint.network()
    linears = network.float_linears()
    model = serialize(network.whole(linears, int8_embeddings=True)).model
    encoder = SessionEncoder(model, network.packing(linears))
    ids = np.array([0, len(VOCABULARY) - 1, len(VOCABULARY), 2 * len(VOCABULARY) - 1])
    assert np.isfinite(encoder.encode([ids])).all()
