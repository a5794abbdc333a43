"""A second task beside dense vectors: a toy scorer of pairs through self-test, registry and lanes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from export.errors import DisagreesWithCheckpoint
from export.verification.verify import Thresholds, verify
from server.errors import BadArtifact, ModelNotFound, TaskNotServed
from server.inference.comparison import SAME_SCORES, SCORES, USABLE_SCORES, VECTORS
from server.inference.encoder import SessionEncoder
from server.inference.model import Model
from server.inference.offline import encode_all
from server.inference.registry import check
from server.types import Ids, Packing, Vectors
from tests.support.engines import models_of, run
from tests.support.fakes import with_parts
from tests.support.scorers import PAIRS, expected_scores, moved, write_toy_scorer


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(write_toy_scorer(tmp_path_factory.mktemp("scorer") / "artifact"))


def pairs_of(scorer: Model) -> list[Ids]:
    return [scorer.tokenizer.encode_pair(*pair) for pair in PAIRS]


# --- self-test ------------------------------------------------------------------------------------


def test_scorer_opens_and_its_scores_are_compared_by_their_difference(scorer: Model) -> None:
    assert scorer.manifest.task == "score"
    assert scorer.self_test_results.shape == (len(PAIRS), 1)
    assert scorer.computes_the_same
    assert scorer.self_test_agreement == pytest.approx(1, abs=1e-6)


def test_scorer_of_other_scores_is_refused_though_any_two_have_cosine_1(tmp_path: Path) -> None:
    shift = 2 * (1 - USABLE_SCORES)
    folder = write_toy_scorer(tmp_path / "other", shift=shift)
    with pytest.raises(
        BadArtifact, match=f"1 minus the difference of scores.*{1 - shift:.4f}"
    ) as refusal:
        Model(folder)
    assert "1 减去得分之差" in refusal.value.chinese


def test_self_test_that_gives_nan_is_refused(
    toy_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN is neither more nor less than a limit."""
    encode = SessionEncoder.encode

    def spoilt(self: SessionEncoder, texts: Sequence[Ids]) -> Vectors:
        return encode(self, texts) * np.float32(np.nan)

    monkeypatch.setattr(SessionEncoder, "encode", spoilt)
    with pytest.raises(BadArtifact, match="agreement .* is nan"):
        Model(toy_artifact)


def test_slightly_other_scores_are_served_and_known(tmp_path: Path) -> None:
    shift = (1 - USABLE_SCORES) / 2
    model = Model(write_toy_scorer(tmp_path / "near", shift=shift))
    assert model.self_test_agreement == pytest.approx(1 - shift, abs=1e-5)
    assert model.self_test_agreement < SAME_SCORES and not model.computes_the_same


def test_model_of_an_unknown_task_is_refused(tmp_path: Path) -> None:
    folder = write_toy_scorer(tmp_path / "images", task="images")
    with pytest.raises(BadArtifact, match=r"Invalid enum value 'images' - at `\$\.task`"):
        Model(folder)


def test_zero_is_a_score_and_no_vector() -> None:
    zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    assert SCORES.is_sound(zero) and not VECTORS.is_sound(zero)
    assert not SCORES.is_sound(one * np.float32("nan"))
    assert VECTORS.agreement(one, one / np.float32(2)).tolist() == [1]
    assert SCORES.agreement(zero, one).tolist() == pytest.approx([1.5 - 1 / (1 + np.exp(-1))])


def test_scores_of_any_size_are_compared_as_probabilities() -> None:
    far = np.array([[-1000], [1000], [11]], np.float32)
    near = np.array([[-1010], [990], [12]], np.float32)
    assert SCORES.agreement(far, near).min() > 0.99998
    assert SCORES.agreement(far[:1], far[1:2]).tolist() == [0]
    # What a batch may change is measured before that, where it is not hidden.
    assert SCORES.distance(far, near).tolist() == pytest.approx([10 / 1010, 10 / 990, 1 / 12])


def test_pair_is_read_as_the_tokenizer_puts_it_together_and_cut(scorer: Model) -> None:
    first, second = "墨", "池" * 100
    ids = scorer.tokenizer.encode_pair(first, second)
    assert len(ids) == scorer.manifest.text.max_tokens
    alone = scorer.tokenizer.encode([first]).ids[0]
    assert ids[: len(alone)].tolist() == alone.tolist()


# --- registry -------------------------------------------------------------------------------------


def test_first_model_of_a_task_serves_requests_that_name_none(
    toy_model: Model, scorer: Model
) -> None:
    async def test() -> None:
        async with models_of(scorer, toy_model) as models:
            assert models.choose("").engine.model is toy_model
            assert models.choose("", "dense").name == "toy"
            assert models.choose("", "score").engine.model is scorer
            assert models.choose("toy-scorer", "score").engine.model is scorer
            assert models.default.model is toy_model
            assert models.listed == ["toy", "toy:query"]
            assert models.with_vectors(scorer.manifest.fingerprint) is None

    run(test)


def test_model_of_another_task_is_not_served_and_an_unknown_one_not_found(
    toy_model: Model, scorer: Model
) -> None:
    async def test() -> None:
        async with models_of(toy_model, scorer) as models:
            with pytest.raises(
                TaskNotServed, match="'toy-scorer' gives scores of pairs, not dense"
            ):
                models.choose("toy-scorer")
            with pytest.raises(TaskNotServed, match="'toy' gives dense vectors, not scores"):
                models.choose("toy", "score")
            with pytest.raises(TaskNotServed, match="no served model gives sparse weights"):
                models.choose("", "sparse")
            with pytest.raises(ModelNotFound, match="'toy-scorer'"):
                models.choose("gpt", "score")

    run(test)


def test_server_of_rerankers_alone_has_no_model_of_vectors(scorer: Model) -> None:
    async def test() -> None:
        check([scorer])
        async with models_of(scorer) as models:
            assert models.first.engine.model is scorer
            assert models.find("").engine.model is scorer
            assert models.find("toy-scorer").engine.model is scorer
            assert models.listed == [] and models.all_listed == ["toy-scorer"]
            with pytest.raises(TaskNotServed, match="no embedding model is served"):
                models.choose("")
            with pytest.raises(TaskNotServed, match="no embedding model is served"):
                _ = models.default
            with pytest.raises(ModelNotFound, match="this server has 'toy-scorer'"):
                models.find("gpt")

    run(test)


# --- lanes ----------------------------------------------------------------------------------------


def test_scores_and_vectors_share_the_lanes(toy_model: Model, scorer: Model) -> None:
    async def test() -> None:
        async with models_of(toy_model, scorer) as models:
            ids = pairs_of(scorer) * 20
            engine = models.choose("", "score").engine
            texts = ["墨池", "笔", "search"] * 20
            job, embedded = await asyncio.gather(engine.compute(ids), models.default.embed(texts))
            np.testing.assert_allclose(np.stack(job.results), expected_scores(ids), atol=1e-6)
            assert embedded.vectors.shape == (60, 32)

    run(test)


def test_results_need_not_be_arrays(toy_model: Model, scorer: Model) -> None:
    """Lanes carry whatever the model gives: here weights by token id."""

    class Weights:
        packing = Packing(groups=1, longest=16)

        def encode(self, texts: Sequence[Ids]) -> list[dict[int, int]]:
            return [{int(token): len(ids) for token in ids} for ids in texts]

    async def test() -> None:
        ids = pairs_of(scorer)
        model = with_parts(scorer, encoder=Weights(), wide=None)
        async with models_of(toy_model, model) as models:
            job = await models.choose("", "score").engine.compute(ids)
        assert job.results == encode_all(Weights(), ids) == Weights().encode(ids)

    run(test)


# --- export ---------------------------------------------------------------------------------------


class Shifted:
    """Gives another encoder's scores, all `shift` higher."""

    def __init__(self, model: Model, shift: float) -> None:
        self.packing = model.encoder.packing
        self._encoder, self._shift = model.encoder, shift

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        logits = self._encoder.encode(texts)
        return np.array([[moved(float(each), self._shift)] for each in logits[:, 0]], np.float32)


def test_artifact_of_scores_is_verified_by_their_difference(scorer: Model) -> None:
    ids, texts = pairs_of(scorer), [" / ".join(pair) for pair in PAIRS]
    limits = Thresholds(mean=0.99, minimum=0.98)

    def verified(shift: float) -> float:
        served = Shifted(scorer, shift)
        found = verify(scorer.encoder, served, texts, ids, 16, limits, comparison=SCORES)
        return found.minimum

    assert verified(0.0) == 1
    assert verified(0.005) == pytest.approx(0.995, abs=1e-5)
    with pytest.raises(
        DisagreesWithCheckpoint, match="1 minus the difference of scores to the float32"
    ):
        verified(0.05)
