"""Every served model: found by name and task, or by the vectors that a collection holds."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server.clock import now
from server.config import ANY_NAME, Config, ModelPlace, aliases_in
from server.errors import BadSettings, ModelNotFound, ShuttingDown, TaskNotServed, shown
from server.inference.answers import Scored
from server.inference.capacity import wide_threads
from server.inference.engine import Engine, lanes_for
from server.inference.lanes import LOOK_S
from server.inference.manifest import MANIFEST_FILE, parse_manifest
from server.inference.model import Model
from server.inference.tokenizer import Kept
from server.telemetry.metrics import Metrics
from server.types import InputType, Pair, Task

# After a name and a colon, for clients that can choose nothing but a model: the kind of their texts.
# Ollama's clients put "latest" there, which means nothing here.
SUFFIXES: dict[str, InputType | None] = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "latest": None,
}

# The kinds of results, as messages name them.
GIVES: dict[Task, str] = {
    "dense": "dense vectors",
    "token_vectors": "one vector per token",
    "sparse": "sparse weights",
    "score": "scores of pairs",
}
# Why a task is not done where no model of it is served, and what to do.
MISSING: dict[Task, str] = {
    "dense": "no embedding model is served, so there are no vectors; serve one too: --model FOLDER",
    "score": "no reranker is loaded; serve one besides the model of vectors: --model FOLDER",
    "sparse": "no served model gives sparse weights; export one with --task sparse, and serve it besides the"
    " model of vectors: --model FOLDER",
    "token_vectors": "no served model gives one vector per token; export one with --task token_vectors, and"
    " serve it besides the model of vectors: --model FOLDER",
}
OTHER_RESULTS = (
    "%s: this CPU computes other int8 results than the exporting one (%s %.4f); export again"
    " here, or with --weight-bits 7 for the same results on every CPU with AVX2"
)
OTHER_ORDER = (
    "%s: this model was trained to compare vectors by %s, but searches in collections compare by cosine and"
    " may rank worse; vectors for other databases are not affected"
)

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """A model that a request has named.

    name: as the request gave it, without a suffix that means nothing. input_type: if the name states it.
    """

    name: str
    engine: Engine
    input_type: InputType | None


class _Names:
    """The models of one task by every name that a request may give.

    choices: by name, with and without suffix; "" is the first model. listed: the names to show.
    """

    def __init__(self) -> None:
        self.choices: dict[str, Choice] = {}
        self.listed: list[str] = []
        # Models whose id names no organisation, by the id with and without suffix.
        self._without_organisation: dict[str, Choice] = {}
        self._lower_case: dict[str, Choice] = {}
        # The engine for every name that is not known, where the operator allows that.
        self._any: Engine | None = None

    def add(self, engine: Engine, aliases: Sequence[str]) -> None:
        model_id = engine.manifest.model_id
        for name in (engine.model.name, model_id, *aliases):
            if name == ANY_NAME:
                self._any = engine
                continue
            self._add(name, engine, listed=True)
        self._add(model_id.rsplit("/", 1)[-1], engine, listed=False)
        self.choices.setdefault("", Choice(self.listed[0], engine, None))
        if "/" not in model_id:
            for name, choice in _with_suffixes(model_id, engine):
                self._without_organisation.setdefault(name, choice)

    def _add(self, name: str, engine: Engine, *, listed: bool) -> None:
        if name in self.choices:
            return
        for full, choice in _with_suffixes(name, engine):
            self.choices.setdefault(full, choice)
            self._lower_case.setdefault(full.lower(), choice)
        if listed:
            self.listed.append(name)
            if engine.manifest.text.query_instruction:
                self.listed.append(f"{name}:query")

    def find(self, name: str, *, any_case: bool = False) -> Choice | None:
        """Return the model of this name, which may have an organisation before it.

        any_case: capitals and small letters do not matter.
        """
        if (found := self.choices.get(name)) is not None:
            return found
        organisation, _, model_id = name.partition("/")
        found = self._without_organisation.get(model_id) if organisation else None
        if found is not None:
            return found._replace(name=f"{organisation}/{found.name}")
        return self._lower_case.get(name.lower()) if any_case else None

    def of_any_name(self, name: str) -> Choice | None:
        """Return the choice of an unknown name, which may end in a suffix; None where none is allowed."""
        if self._any is None:
            return None
        plain = name.rpartition(":")[0]
        choices = dict(_with_suffixes(plain, self._any))
        return choices.get(name) or Choice(name, self._any, None)


def _with_suffixes(name: str, engine: Engine) -> Iterator[tuple[str, Choice]]:
    """Yield a name without and with each suffix, and what it chooses."""
    yield name, Choice(name, engine, None)
    for suffix, input_type in SUFFIXES.items():
        shown = name if input_type is None else f"{name}:{suffix}"
        yield f"{name}:{suffix}", Choice(shown, engine, input_type)


class ModelRegistry:
    """Owns the engines and the lanes that they share; close it once.

    The first model of a task answers requests for the task that name none. An id that two models share
    means the earlier one. A request may put an organisation before the id of a model that has none:
    BAAI/bge-small-zh-v1.5 is found where bge-small-zh-v1.5 is served, but not where
    someone/bge-small-zh-v1.5 is. With the alias "*" any other name is the first model's of the task too.

    first: the first model of dense vectors, or where there is none, the first model. listed: the names of all
    models of dense vectors. alias: the first alias, or empty.
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
        # Whether the server stops soon: it is not ready, and connections close after their next answers.
        self.draining = False
        self.serve(models, config.model_alias)
        self._look()

    def serve(self, models: Sequence[Model], aliases: str) -> None:
        """Serve these models from now on; raises BadSettings, and then nothing has changed.

        aliases: other names for the first, with commas. A model that is not among them finishes its pending requests.
        """
        check(models)
        known = {engine.model: engine for engine in self.engines}
        self.engines = [
            known.pop(model) if model in known else self._engine(model) for model in models
        ]
        for engine in known.values():
            engine.retire()
        names = aliases_in(aliases)
        only_any = [name for name in names if name == ANY_NAME]
        self.alias = next((name for name in names if name != ANY_NAME), "")
        self._of_vectors = {
            engine.manifest.fingerprint: engine
            for engine in self.engines
            if engine.manifest.task == "dense"
        }
        self._names = {task: _Names() for task in GIVES}
        self._metrics.model.clear()
        for place, engine in enumerate(self.engines):
            manifest = engine.manifest
            labels = manifest.model_id, manifest.precision, manifest.fingerprint
            self._metrics.model.labels(*labels, engine.model.computed_by).set(1)
            of_task = self._names[manifest.task]
            others = names if place == 0 else () if of_task.listed else only_any
            of_task.add(engine, others)
        self.first = self._first()
        self.listed = self._names["dense"].listed

    def _first(self) -> Choice:
        """Return the first model of dense vectors, or where there is none, the first model."""
        task = "dense" if self._of_vectors else self.engines[0].manifest.task
        return self._names[task].choices[""]

    @property
    def default(self) -> Engine:
        """The first model of dense vectors; raises TaskNotServed where none is served."""
        return self.choose("").engine

    def _engine(self, model: Model) -> Engine:
        return Engine(model, self._config, self._metrics, self._loop, self._lanes)

    def choose(self, name: str, task: Task = "dense", *, any_case: bool = False) -> Choice:
        """Return the model of this name, or the first of the task for an empty name.

        any_case: capitals and small letters of the name do not matter.

        Raises TaskNotServed where no such model does this task, and ModelNotFound for an unknown name.
        """
        names = self._names[task]
        if (found := names.find(name, any_case=any_case)) is not None:
            return found
        for other, known in self._names.items():
            if name and known.find(name) is not None:
                way = f"{names.listed[0]!r} gives them" if names.listed else MISSING[task]
                raise TaskNotServed(
                    f"the model {shown(name)} gives {GIVES[other]}, not {GIVES[task]}; {way}",
                    param="model",
                )
        if (found := names.of_any_name(name)) is not None:
            return found
        if not names.listed:
            raise TaskNotServed(MISSING[task], param="model")
        raise ModelNotFound(
            f"the model {shown(name)} does not exist here; this server has"
            f" {', '.join(map(repr, names.listed))}",
            param="model",
        )

    @property
    def all_listed(self) -> list[str]:
        """Return the names of all models, whatever their task: those of vectors first."""
        return list(dict.fromkeys(name for each in self._names.values() for name in each.listed))

    def find(self, name: str) -> Choice:
        """Return the model of this name, whatever its task; raises ModelNotFound.

        An empty name means the first model of dense vectors, or where there is none, the first model.
        """
        if not name:
            return self.first
        for names in self._names.values():
            if (found := names.find(name)) is not None:
                return found
        return self.choose(name, self.first.engine.manifest.task)

    async def score(
        self,
        name: str,
        pairs: Sequence[Pair],
        *,
        truncate: bool = True,
        keep: Kept = "beginning",
        instruction: str = "",
    ) -> tuple[Choice, Scored]:
        """Return the model of scores of this name, and what it gives the pairs; raises as `Engine.score`.

        A wrong request is refused for what is wrong with it, also where no model could answer it.
        """
        self.engines[0].check_pairs(pairs)
        choice = self.choose(name, "score")
        scored = await choice.engine.score(
            pairs, truncate=truncate, keep=keep, instruction=instruction
        )
        return choice, scored

    def with_vectors(self, fingerprint: str) -> Engine | None:
        """Return the model whose vectors have this fingerprint, if it is served."""
        return self._of_vectors.get(fingerprint)

    def _look(self) -> None:
        """Replace lanes that hang, for as long as requests are taken."""
        if self._lanes.accepting:
            self._loop.call_later(LOOK_S, self._look)
            self._lanes.relieve(now())

    @property
    def sound(self) -> bool:
        """Return whether no lane hangs."""
        return self._lanes.sound

    @property
    def accepting(self) -> bool:
        """Return whether new requests are taken; false once the registry is closing."""
        return self._lanes.accepting

    def check_accepting(self) -> None:
        """Raise ShuttingDown unless new requests are taken."""
        self._lanes.check_accepting()

    def drain(self) -> None:
        """Be no longer ready, and go on taking requests: the server stops soon."""
        self.draining = True

    def check_ready(self) -> None:
        """Raise ShuttingDown or NotReady unless the server stays, requests are taken, and every lane lives."""
        if self.draining:
            raise ShuttingDown("the server is stopping", retry_after_s=5)
        self._lanes.check_accepting()
        self._lanes.check_alive()

    @property
    def idle(self) -> bool:
        """Return whether nothing is being computed and nothing waits."""
        return self._lanes.idle

    def close(self, by: float | None = None) -> None:
        """Finish accepted work before the moment `by`, or within the configured time; blocks."""
        self._lanes.close(self._config.shutdown_s if by is None else max(0.0, by - now()))


def opened(config: Config, served: Sequence[Model] = ()) -> list[Model]:
    """Open every artifact that the settings name; raises BadArtifact or BadSettings.

    served: models that are open; those whose artifact and name have not changed are kept.
    """
    threads, kernels = wide_threads(config), config.kernels != "off"
    models = [
        _same(place, served, kernels=kernels)
        or Model(place.folder, threads, place.name, kernels=kernels)
        for place in config.model
    ]
    check(models)
    for model in models:
        if model in served:
            continue
        # A server says it (`cli/commands/serve`), and a command has other things to say.
        log.debug("%s: %s", model.name, model.computed_by_words.english)
        if not model.computes_the_same:
            measure = model.comparison.measure
            log.warning(OTHER_RESULTS, model.name, measure, model.self_test_agreement)
        if not model.manifest.cosine_orders:
            log.warning(OTHER_ORDER, model.name, model.manifest.similarity)
    return models


def _same(place: ModelPlace, served: Sequence[Model], *, kernels: bool) -> Model | None:
    """Return the served model that this artifact would give again."""
    if not served:
        return None
    manifest = parse_manifest(place.folder / MANIFEST_FILE)
    name = place.name or manifest.model_id
    # The manifest has the hash of every file.
    for model in served:
        if model.manifest == manifest and model.name == name and model.kernels == kernels:
            return model
    return None


def check(models: Sequence[Model]) -> None:
    """Raise BadSettings unless each has its own name and vectors.

    Models of different tasks may share a name: bge-m3 is one model for clients, and three artifacts.
    """
    for place, model in enumerate(models):
        for other in models[:place]:
            if model.manifest.fingerprint == other.manifest.fingerprint:
                raise BadSettings(
                    "models {first!r} and {second!r} are one artifact, given twice; leave out one --model",
                    first=other.name,
                    second=model.name,
                )
            if model.name == other.name and model.manifest.task == other.manifest.task:
                raise BadSettings(
                    "two models are called {name!r}; give one another name with --model NAME=FOLDER",
                    name=model.name,
                )
