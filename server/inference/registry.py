"""Every served model: found by the name that a request gives, or by whose vectors a collection holds."""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from server.clock import now
from server.config import Config, ModelPlace
from server.errors import BadSettings, EmptyInput, ModelNotFound, TaskNotServed
from server.inference.encoder import SAME_VECTORS, Model
from server.inference.engine import Engine, lanes_for, wide_threads
from server.inference.lanes import LOOK_S
from server.inference.manifest import MANIFEST_FILE, parse_manifest
from server.telemetry.metrics import Metrics
from server.types import InputType

# Behind a name and a colon, for clients that can choose nothing but a model: what its texts are.
# Ollama's clients put "latest" there, which says nothing.
SUFFIXES: dict[str, InputType | None] = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "latest": None,
}

OTHER_VECTORS = (
    "%s: this CPU computes other int8 vectors than the exporting one (cosine %.4f); export again"
    " here, or with --weight-bits 7 for the same vectors on every CPU with AVX2."
    " 本机 CPU 的 int8 结果与导出时不同；请在本机重新导出，"
    "或用 --weight-bits 7 导出（带 AVX2 的 CPU 上一致）"
)

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """name: as it was asked for, without what says nothing. input_type: if the name said it."""

    name: str
    engine: Engine
    input_type: InputType | None


class ModelRegistry:
    """Owns the engines and the lanes that they share; close it once.

    The first model answers whoever names none. An id that two models share means the earlier one.
    """

    def __init__(
        self,
        models: Sequence[Model],
        config: Config,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._loop = loop
        self._lanes = lanes_for(config, metrics, loop)
        self.engines: list[Engine] = []
        self.serve(models, config.model_alias)
        self._look()

    def serve(self, models: Sequence[Model], alias: str) -> None:
        """Have these models answer from now on; raises BadSettings, and then nothing has changed.

        alias: another name for the first. A model that is not among them finishes what it was asked.
        """
        check(models)
        known = {engine.model: engine for engine in self.engines}
        self.engines = [
            known.pop(model) if model in known else self._engine(model) for model in models
        ]
        for engine in known.values():
            engine.retire()
        self.default = self.engines[0]
        self.alias = alias
        self._of_vectors = {engine.manifest.fingerprint: engine for engine in self.engines}
        self._choices: dict[str, Choice] = {}
        self.listed: list[str] = []
        self._metrics.model.clear()
        for engine in self.engines:
            manifest = engine.manifest
            labels = manifest.model_id, manifest.precision, manifest.fingerprint
            self._metrics.model.labels(*labels).set(1)
            self._name(engine, engine.model.name, alias if engine is self.default else "")
        self._choices[""] = Choice(self.listed[0], self.default, None)

    def _engine(self, model: Model) -> Engine:
        return Engine(model, self._config, self._metrics, self._loop, self._lanes)

    def _name(self, engine: Engine, name: str, alias: str) -> None:
        model_id = engine.manifest.model_id
        for each in filter(None, (name, model_id, alias)):
            self._add(each, engine, listed=True)
        self._add(model_id.rsplit("/", 1)[-1], engine, listed=False)

    def _add(self, name: str, engine: Engine, *, listed: bool) -> None:
        if name in self._choices:
            return
        self._choices[name] = Choice(name, engine, None)
        for suffix, input_type in SUFFIXES.items():
            full = name if input_type is None else f"{name}:{suffix}"
            self._choices.setdefault(f"{name}:{suffix}", Choice(full, engine, input_type))
        if listed:
            self.listed.append(name)
            if engine.manifest.text.query_instruction:
                self.listed.append(f"{name}:query")

    def choose(self, name: str) -> Choice:
        """The model of this name, the first for none; raises ModelNotFound."""
        found = self._choices.get(name)
        if found is None:
            raise ModelNotFound(
                f"the model {name!r} does not exist here; this server has"
                f" {', '.join(map(repr, self.listed))}",
                param="model",
            )
        return found

    def with_vectors(self, fingerprint: str) -> Engine | None:
        """The model that makes vectors of this kind, if it is served."""
        return self._of_vectors.get(fingerprint)

    def _look(self) -> None:
        """Look after lanes that hang, for as long as requests are taken."""
        if self._lanes.accepting:
            self._loop.call_later(LOOK_S, self._look)
            self._lanes.relieve(now())

    @property
    def sound(self) -> bool:
        """Whether every lane comes back from what it computes."""
        return self._lanes.sound

    @property
    def accepting(self) -> bool:
        """Whether new requests are taken: false once it is closing."""
        return self._lanes.accepting

    def check_accepting(self) -> None:
        """Raise ShuttingDown unless new requests are taken."""
        self._lanes.check_accepting()

    def check_ready(self) -> None:
        """Raise ShuttingDown or NotReady unless requests are taken and lanes are there to compute."""
        self._lanes.check_accepting()
        self._lanes.check_alive()

    @property
    def idle(self) -> bool:
        """Whether nothing is being computed and nothing waits."""
        return self._lanes.idle

    def rerank(self, query: str, texts: Sequence[str]) -> NoReturn:
        """Refused until a reranker can be loaded, after the request has been checked."""
        if not query:
            raise EmptyInput("query is empty")
        self.default.check(texts)
        raise TaskNotServed("no reranker is loaded; the served models embed texts")

    def close(self, by: float | None = None) -> None:
        """Finish accepted work before the moment `by`, else within the configured time; blocks."""
        self._lanes.close(self._config.shutdown_s if by is None else max(0.0, by - now()))


def opened(config: Config, served: Sequence[Model] = ()) -> list[Model]:
    """Every artifact that the settings name; raises BadArtifact or BadSettings.

    served: opened before; those whose artifact and name are as they were stay as they are.
    """
    threads = wide_threads(config)
    models = [
        _same(place, served) or Model(place.folder, threads, place.name) for place in config.model
    ]
    check(models)
    for model in models:
        if model not in served and model.self_test_cosine < SAME_VECTORS:
            log.warning(OTHER_VECTORS, model.name, model.self_test_cosine)
    return models


def _same(place: ModelPlace, served: Sequence[Model]) -> Model | None:
    """The served model that this artifact would make again."""
    if not served:
        return None
    manifest = parse_manifest(place.folder / MANIFEST_FILE)
    name = place.name or manifest.model_id
    # The manifest has the hash of every file.
    same = (model for model in served if model.manifest == manifest and model.name == name)
    return next(same, None)


def check(models: Sequence[Model]) -> None:
    """Raise BadSettings unless each has a name and vectors of its own."""
    for place, model in enumerate(models):
        for other in models[:place]:
            if model.manifest.fingerprint == other.manifest.fingerprint:
                raise BadSettings(
                    "{model_name!r} is given twice as a model",
                    model_name=model.name,
                )
            if model.name == other.name:
                raise BadSettings(
                    "two models are called {model_name!r}; give one another name with --model NAME=FOLDER",
                    model_name=model.name,
                )
