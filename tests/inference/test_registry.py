"""Several models in one server: their names, and their equal shares of the lanes."""

import asyncio
import gc
import time
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from server.clock import now
from server.config import Config, ModelPlace, ModelPlaces
from server.errors import BadSettings, InferenceFailed, ModelNotFound, TaskNotServed
from server.inference.batching import BatchLimits, Job
from server.inference.lanes import Lanes
from server.inference.model import Model
from server.inference.registry import ModelRegistry, check, opened
from server.telemetry.metrics import Metrics
from server.types import Ids, VectorEncoder, Vectors
from tests.support.clients import serving
from tests.support.fakes import PATIENCE_S, Echo, Gated, eventually, with_parts

LIMITS = BatchLimits(64, 64, 1 << 20, 1 << 20, bulk_patience_s=60.0)


def named(model: Model, model_id: str, **changes: Any) -> Model:
    """The same network under another id, with vectors of another kind."""
    manifest = msgspec.structs.replace(
        model.manifest, model_id=model_id, fingerprint=f"of {model_id}", **changes
    )
    return with_parts(model, manifest=manifest)


class Negative:
    """Gives the same vectors with the other sign, which shows whose they are."""

    def __init__(self, encoder: VectorEncoder) -> None:
        self._encoder = encoder
        self.packing = encoder.packing

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        return -self._encoder.encode(texts)


@pytest.fixture
def two(toy_model: Model) -> list[Model]:
    other = named(toy_model, "someone/other")
    return [toy_model, with_parts(other, encoder=Negative(toy_model.encoder), wide=None)]


# --- names ----------------------------------------------------------------------------------------


def models_of(models: Sequence[Model], **settings: Any) -> ModelRegistry:
    served: list[ModelRegistry] = []

    async def make() -> None:
        served.append(
            ModelRegistry(models, Config(**settings), Metrics(), asyncio.get_running_loop())
        )

    asyncio.run(make())
    served[0].close()
    return served[0]


@pytest.mark.parametrize(
    ("asked", "place", "name", "input_type"),
    [
        ("", 0, "toy", None),
        ("toy", 0, "toy", None),
        ("toy:latest", 0, "toy", None),
        ("toy:query", 0, "toy:query", "query"),
        ("toy:passage", 0, "toy:passage", "document"),
        ("ada", 0, "ada", None),
        ("ada:document", 0, "ada:document", "document"),
        ("someone/other", 1, "someone/other", None),
        ("other:query", 1, "other:query", "query"),
    ],
)
def test_name_says_which_model_and_what_the_texts_are(
    two: list[Model], asked: str, place: int, name: str, input_type: str | None
) -> None:
    models = models_of(two, model_alias="ada")
    choice = models.choose(asked)
    assert choice == (name, models.engines[place], input_type)


@pytest.mark.parametrize("asked", ["gpt", "toy:", "toy:x", ":query", "Toy", "other:query:query"])
def test_other_names_are_refused_with_those_that_are_there(two: list[Model], asked: str) -> None:
    with pytest.raises(ModelNotFound, match=r"'toy', 'toy:query', 'someone/other'"):
        models_of(two).choose(asked)


@pytest.mark.parametrize(
    ("asked", "name", "input_type"),
    [
        ("BAAI/toy", "BAAI/toy", None),
        ("BAAI/toy:latest", "BAAI/toy", None),
        ("any-one/toy:query", "any-one/toy:query", "query"),
    ],
)
def test_model_whose_id_has_no_organisation_is_found_with_any(
    two: list[Model], asked: str, name: str, input_type: str | None
) -> None:
    models = models_of(two)
    assert models.choose(asked) == (name, models.engines[0], input_type)


@pytest.mark.parametrize(
    "asked", ["else/other", "/toy", "a/b/toy", "BAAI/ada", "BAAI/law", "BAAI/toy:x", "BAAI/"]
)
def test_organisation_is_no_way_to_a_model_of_another_one_nor_to_an_alias(
    two: list[Model], asked: str
) -> None:
    renamed = with_parts(two[0], _name="law")
    with pytest.raises(ModelNotFound):
        models_of([renamed, two[1]], model_alias="ada").choose(asked)


def test_first_model_may_have_several_aliases(two: list[Model]) -> None:
    models = models_of(two, model_alias="ada, text-embedding-3-small,a/b")
    for name in ("ada", "text-embedding-3-small", "a/b", "ada:latest"):
        assert models.choose(name).engine is models.engines[0]
    assert models.choose("a/b:query") == ("a/b:query", models.engines[0], "query")
    assert models.alias == "ada"
    assert models.listed[2:6] == [
        "ada",
        "ada:query",
        *(f"text-embedding-3-small{s}" for s in SHOWN),
    ]


SHOWN = ("", ":query")


def test_any_name_is_the_first_models_only_where_that_was_asked_for(two: list[Model]) -> None:
    models = models_of(two, model_alias="ada,*")
    first, other = models.engines
    for name in ("gpt", "someone/gpt", "toy:x", "OTHER"):
        assert models.choose(name) == (name, first, None)
    assert models.choose("gpt:query") == ("gpt:query", first, "query")
    assert models.choose("gpt:latest") == ("gpt", first, None)
    # Names of served models still mean those, and other tasks have no such name.
    assert models.choose("other").engine is other and models.choose("ada").engine is first
    assert "*" not in models.listed and models.alias == "ada"
    with pytest.raises(TaskNotServed):
        models.choose("gpt", "score")


def test_case_matters_unless_the_caller_says_otherwise(two: list[Model]) -> None:
    models = models_of([named(two[0], "Toy"), two[1]])
    assert models.choose("toy:QUERY", any_case=True).input_type == "query"
    assert models.choose("TOY:latest", any_case=True).name == "Toy"
    with pytest.raises(ModelNotFound):
        models.choose("TOY")
    with pytest.raises(ModelNotFound):
        models.choose("toys", any_case=True)


def test_model_of_the_organisation_that_is_asked_for_wins(toy_model: Model) -> None:
    of_someone = named(toy_model, "someone/toy")
    models = models_of([toy_model, of_someone])
    assert models.choose("someone/toy").engine.model is of_someone
    assert models.choose("else/toy").engine.model is toy_model


def test_models_without_an_instruction_do_not_list_a_name_for_queries(toy_model: Model) -> None:
    rules = msgspec.structs.replace(toy_model.manifest.text, query_instruction="")
    assert models_of([named(toy_model, "plain", text=rules)]).listed == ["plain"]


def test_collections_find_their_model_by_their_vectors(two: list[Model]) -> None:
    models = models_of(two)
    assert models.with_vectors("of someone/other") is models.engines[1]
    assert models.with_vectors("unheard of") is None


def test_models_of_one_name_or_one_kind_of_vectors_are_refused(toy_model: Model) -> None:
    with pytest.raises(BadSettings, match="'toy' and 'toy' are one artifact"):
        check([toy_model, toy_model])
    same = msgspec.structs.replace(named(toy_model, "x").manifest, fingerprint="another")
    with pytest.raises(BadSettings, match="two models are called 'x'.*NAME=FOLDER"):
        check([named(toy_model, "x"), with_parts(toy_model, manifest=same)])


def test_artifacts_are_opened_under_the_names_that_are_given(toy_artifact: Path) -> None:
    config = Config(model=ModelPlaces([ModelPlace(toy_artifact, "law")]), lanes=1)
    (model,) = opened(config)
    assert models_of([model]).listed == ["law", "law:query", "toy", "toy:query"]
    with pytest.raises(BadSettings, match="'a' and 'b' are one artifact, given twice"):
        opened(Config(model=ModelPlaces.of([f"a={toy_artifact}", f"b={toy_artifact}"])))


@pytest.mark.parametrize("text", ["", "=a", "a=", "a:b=c"])
def test_a_place_that_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="NAME=FOLDER"):
        ModelPlace.of(text)


def test_two_places_of_one_name_are_refused() -> None:
    with pytest.raises(BadSettings, match="two models have the name 'a'"):
        Config(model=ModelPlaces.of(["a=x", "a=y"]))


# --- over HTTP ------------------------------------------------------------------------------------


def test_the_request_chooses_the_model_in_every_form(two: list[Model]) -> None:
    async def test() -> None:
        async with serving(two[0], others=two[1:]) as client:

            async def ask(path: str, body: dict[str, Any]) -> Any:
                reply = await client.post(path, json=body)
                assert reply.status_code == 200, reply.text
                return reply.json()

            first = (await ask("/embed", {"texts": ["墨池"]}))["vectors"]
            other = (await ask("/embed", {"texts": ["墨池"], "model": "other"}))["vectors"]
            np.testing.assert_allclose(np.array(other), -np.array(first), atol=1e-5)
            tei = await ask("/embed", {"inputs": ["墨池"], "model": "other"})
            assert tei == other
            openai = await ask("/v1/embeddings", {"input": ["墨池"], "model": "other"})
            assert [row["embedding"] for row in openai["data"]] == other
            as_query = await ask("/embed", {"texts": ["墨池"], "model": "other:query"})
            said = await ask("/embed", {"texts": ["墨池"], "model": "other", "input_type": "query"})
            assert as_query == said != {"vectors": other}
            # What the request says in so many words wins.
            both = {"texts": ["墨池"], "model": "other:query", "input_type": "document"}
            assert await ask("/embed", both) == {"vectors": other}

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_hub_id_of_a_served_model_is_accepted_in_every_form(two: list[Model]) -> None:
    async def test() -> None:
        async with serving(two[0], others=two[1:]) as client:

            async def ask(path: str, body: dict[str, Any]) -> Any:
                reply = await client.post(path, json=body)
                assert reply.status_code == 200, reply.text
                return reply.json()

            hub_id = "BAAI/toy"
            plain = (await ask("/embed", {"texts": ["墨池"]}))["vectors"]
            assert (await ask("/embed", {"texts": ["墨池"], "model": hub_id}))["vectors"] == plain
            openai = await ask("/v1/embeddings", {"input": ["墨池"], "model": hub_id})
            assert openai["model"] == hub_id
            assert [row["embedding"] for row in openai["data"]] == plain
            assert (await client.get(f"/v1/models/{hub_id}")).json()["id"] == hub_id
            ollama = await ask("/api/embed", {"input": ["墨池"], "model": hub_id + ":latest"})
            np.testing.assert_allclose(ollama["embeddings"], plain, atol=1e-6)
            other = {"input": ["墨池"], "model": "else/other"}
            assert (await client.post("/v1/embeddings", json=other)).status_code == 404
            assert (await client.post("/api/embed", json=other)).status_code == 404

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


async def _reindexed(client: httpx.AsyncClient, name: str) -> Any:
    while True:
        stats = (await client.get(f"/collections/{name}/stats")).json()
        if stats["reindexing"] is None:
            return stats
        await asyncio.sleep(0.01)


def test_collections_of_both_models_answer_side_by_side_and_can_change_over(
    two: list[Model],
) -> None:
    async def test() -> None:
        async with serving(two[0], others=two[1:]) as client:
            for name, model in (("mine", "toy"), ("yours", "other")):
                made = await client.post("/collections", json={"name": name, "model": model})
                assert made.status_code == 201
                documents = [{"id": text, "text": text} for text in ("墨池", "笔架")]
                path = f"/collections/{name}"
                added = await client.post(f"{path}/documents", json={"documents": documents})
                assert added.json()["stored"] == 2
                hits = (await client.post(f"{path}/search", json={"query": "墨池"})).json()["hits"]
                assert hits[0]["id"] == "墨池"
            # Without a word its own model stays.
            await client.post("/collections/yours/reindex", json={})
            assert (await _reindexed(client, "yours"))["fingerprint"] == "of someone/other"
            asked = await client.post("/collections/yours/reindex", json={"model": "toy"})
            assert asked.status_code == 202
            changed = await _reindexed(client, "yours")
            assert changed["fingerprint"] == two[0].manifest.fingerprint
            assert changed["reindex_error"] is None
            unknown = await client.post("/collections", json={"name": "x", "model": "gpt"})
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (
                404,
                "model_not_found",
            )

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_while_a_collection_changes_over_its_old_model_answers_text_queries(
    two: list[Model],
) -> None:
    gate = Gated(two[0].encoder)
    first = with_parts(two[0], encoder=gate, wide=None)

    async def test() -> None:
        # Two lanes will stand still with a document each.
        async with serving(first, others=two[1:], lanes=3) as client:
            await client.post("/collections", json={"name": "c", "model": "other"})
            documents = [{"id": text, "text": text} for text in ("墨池", "笔架")]
            await client.post("/collections/c/documents", json={"documents": documents})
            await client.post("/collections/c/reindex", json={"model": "toy"})
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            reply = await client.post("/collections/c/search", json={"query": "笔架"})
            assert reply.json()["hits"][0]["id"] == "笔架"
            assert (await client.get("/collections/c")).json()["reindexing"] is not None
            gate.open()
            await _reindexed(client, "c")

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


# --- at the lanes ---------------------------------------------------------------------------------


def job_of(texts: int, length: int = 32) -> Job:
    ids = [np.full(length, 1, dtype=np.int64)] * texts
    return Job(ids, None, time.perf_counter())


class Noted(Echo):
    """Notes whose batch it was."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self._name, self._log = name, log

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        self._log.append(self._name)
        time.sleep(0.002)
        return super().encode(texts)


def test_bulk_work_of_two_models_takes_turns_and_a_query_of_either_goes_first() -> None:
    order: list[str] = []
    delivered: list[Job] = []
    gate = Gated(Noted("first", order))
    lanes = Lanes(Metrics(), delivered.extend, 1)
    a = lanes.admit(gate, LIMITS)
    b = lanes.admit(Noted("b", order), LIMITS)
    c = lanes.admit(Noted("c", order), LIMITS)
    # Holds the only lane until all the others wait.
    lanes.submit(a, job_of(1))
    lanes.wake()
    assert gate.entered.wait(PATIENCE_S)
    lanes.submit(b, job_of(20))
    lanes.submit(c, job_of(20))
    lanes.submit(c, job_of(1))
    gate.open()
    lanes.close(PATIENCE_S)
    assert len(delivered) == 4
    assert order[:2] == ["first", "c"]
    # A batch has two of these texts, so ten batches each; neither runs far ahead.
    bulk = order[2:]
    assert (bulk.count("b"), bulk.count("c")) == (10, 10)
    # By time, so that a batch that the machine held up counts for more.
    assert {bulk[:8].count("b"), bulk[:8].count("c")} <= {2, 3, 4, 5, 6}


def test_a_model_that_comes_back_from_a_rest_claims_nothing_for_it() -> None:
    lanes = Lanes(Metrics(), lambda _: None, 1)
    busy, rested = lanes.admit(Echo(), LIMITS), lanes.admit(Echo(), LIMITS)
    busy.used_s = lanes._level_s = 100.0
    lanes.submit(rested, job_of(1))
    lanes.close(PATIENCE_S)
    assert rested.used_s >= 100.0


# --- replaced while they serve --------------------------------------------------------------------


def test_replaced_model_finishes_what_it_was_asked_and_is_let_go(toy_model: Model) -> None:
    async def replace() -> None:
        gate = Gated(toy_model.encoder)
        old = with_parts(toy_model, encoder=gate, wide=None)
        new = with_parts(named(toy_model, "new"), encoder=Negative(toy_model.encoder), wide=None)
        models = ModelRegistry([old], Config(lanes=1), Metrics(), asyncio.get_running_loop())
        asked = asyncio.create_task(models.choose("toy").engine.embed(["墨池", "笔"]))
        await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
        queued = asyncio.create_task(models.choose("").engine.embed(["墨"]))
        await asyncio.sleep(0)
        models.serve([new], "alias")
        assert models.listed[0] == "new" and models.choose("alias").engine is models.default
        with pytest.raises(ModelNotFound):
            models.choose("toy")
        gate.open()
        np.testing.assert_allclose(
            (await asked).vectors, toy_model.embed(["墨池", "笔"]), atol=1e-5
        )
        np.testing.assert_allclose((await queued).vectors, toy_model.embed(["墨"]), atol=1e-5)
        kept = weakref.ref(old)
        del old, asked, queued
        gc.collect()
        assert kept() is None, "while the lanes wait for work"
        after = await models.default.embed(["墨"])
        np.testing.assert_allclose(after.vectors, -toy_model.embed(["墨"]), atol=1e-5)
        await asyncio.to_thread(models.close)

    asyncio.run(replace())


def test_model_that_cannot_be_served_beside_the_others_changes_nothing(two: list[Model]) -> None:
    models = models_of(two)
    with pytest.raises(BadSettings):
        models.serve([two[0], two[0]], "")
    assert models.choose("someone/other").engine.model is two[1]
    models.close()


# --- a computation that hangs ---------------------------------------------------------------------


def test_request_whose_batch_hangs_is_answered_and_the_next_ones_are_served(
    toy_model: Model,
) -> None:
    class Once(Gated):
        """Holds only its first batch at the gate."""

        def encode(self, texts: Sequence[Ids]) -> Collection[Any]:
            return (
                toy_model.encoder.encode(texts) if self.entered.is_set() else super().encode(texts)
            )

    async def ask() -> None:
        gate = Once(toy_model.encoder)
        model = with_parts(toy_model, encoder=gate, wide=None)
        async with serving(model, lanes=1, hang_s=1) as client:
            try:
                hung = await client.post("/embed", json={"texts": ["墨池"]})
                assert hung.status_code == 500
                assert hung.json()["error"]["code"] == "inference_failed"
                after = await client.post("/embed", json={"texts": ["墨池"]})
                assert after.status_code == 200
                page = (await client.get("/metrics")).text
                assert "inkwell_hung_lanes_total 1.0" in page
            finally:
                gate.open()

    asyncio.run(ask())


def test_models_are_not_sound_while_a_lane_hangs(toy_model: Model) -> None:
    async def hang() -> None:
        gate = Gated(toy_model.encoder)
        model = with_parts(toy_model, encoder=gate, wide=None)
        config = Config(lanes=1, hang_s=1)
        models = ModelRegistry([model], config, Metrics(), asyncio.get_running_loop())
        assert models.sound
        with pytest.raises(InferenceFailed):
            await models.default.embed(["墨池"])
        assert not models.sound
        gate.open()
        await asyncio.to_thread(eventually, lambda: models.sound)
        await asyncio.to_thread(models.close)

    asyncio.run(hang())


def test_models_that_close_by_a_moment_wait_for_no_lane_beyond_it(toy_model: Model) -> None:
    async def close() -> None:
        gate = Gated(toy_model.encoder)
        model = with_parts(toy_model, encoder=gate, wide=None)
        config = Config(lanes=1, shutdown_s=3600)
        models = ModelRegistry([model], config, Metrics(), asyncio.get_running_loop())
        waiting = asyncio.create_task(models.default.embed(["墨", "池"]))
        await asyncio.to_thread(gate.entered.wait)
        await asyncio.to_thread(models.close, now())
        assert gate.texts == 0 and not waiting.done()
        gate.open()
        await waiting

    asyncio.run(close())
