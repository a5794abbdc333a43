"""Texts in, vectors out, for one model: tokenises, queues, waits; what dialects and the store call.

The engine lives on one event loop. Lanes deliver finished jobs to that loop, one wake-up a batch.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.batching import BatchLimits, Job
from server.config import Config
from server.cpu import cpu_budget
from server.encoder import Model
from server.errors import (
    EmptyInput,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    TextTooLong,
    TooManyTexts,
)
from server.lanes import Lanes
from server.manifest import Manifest
from server.metrics import Metrics, now
from server.types import Ids, InputType, Tokens, Vectors

# Characters tokenised before other requests get a turn on the loop: about 2 ms of work.
SLICE_CHARACTERS = 2048
# A single text larger than this is tokenised beside the loop: handing it to a thread costs 0.1 ms,
# and 10 MB without a space take seconds.
HUGE_CHARACTERS = 65_536
# A lone request of so many tokens is computed on the loop itself: waking a lane and being woken by it
# costs 0.3 to 0.6 ms where cores sleep in between, and such a text takes two or three in all. Others
# must not wait for it, so whoever shows up meanwhile sends everybody to the lanes for a while: with 16
# clients, one request in some hundred is computed on the loop. TURNS: of the loop, in which a request
# that came meanwhile is read, parsed and handed here.
LONE_TOKENS = 64
COMPANY_S = 0.25
TURNS = 4
# A short text is too little work for more: parts of 0.1 ms cost as much to hand out as to do.
MAX_WIDE_THREADS = 8


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one request.

    vectors: float32 (B, D), rows in the order of the texts. tokens: those of all texts, special
    tokens included, after truncation. truncated: indices of texts that lost their end.
    """

    vectors: Vectors
    tokens: int
    truncated: Sequence[int]


class Engine:
    """Serves one model on the loop it is given, by lanes that others may share."""

    def __init__(
        self,
        model: Model,
        config: Config,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        lanes: Lanes,
    ) -> None:
        self._model = model
        self._config = config
        self._metrics = metrics
        self._loop = loop
        self._looking = False
        self._company_until = 0.0
        self._lanes = lanes
        self._tenant = lanes.admit(
            model.encoder,
            BatchLimits(
                batch_tokens=config.batch_tokens,
                interactive_tokens=config.interactive_tokens,
                interactive_queue_tokens=config.interactive_queue_tokens,
                bulk_queue_tokens=config.bulk_queue_tokens,
            ),
            model.wide,
        )
        manifest = model.manifest
        metrics.model.labels(manifest.model_id, manifest.precision, manifest.fingerprint).set(1)

    @property
    def manifest(self) -> Manifest:
        return self._model.manifest

    @property
    def max_texts(self) -> int:
        """How many texts `embed` takes at once."""
        return self._config.max_texts

    async def embed(
        self,
        texts: Sequence[str],
        input_type: InputType = "document",
        *,
        truncate: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:
        """Embed texts in order; raises a CallerError, Overloaded, ShuttingDown or InferenceFailed.

        dimensions: cut vectors to this size and normalise them again, if the model allows it.

        Cancelling the caller abandons the job: what has not been computed yet never will be.
        """
        self._check(texts)
        self._check_dimensions(dimensions)
        # No text has less than one token.
        self._check_room(len(texts), len(texts))
        try:
            tokens = await self._tokenize(texts, input_type)
            self._check_truncation(tokens, allowed=truncate)
            job = await self._compute(tokens.ids)
        except asyncio.CancelledError:
            self._metrics.abandoned.inc()
            raise
        self._count(tokens, job)
        return Embedded(cut(job.vectors, dimensions), job.tokens, tokens.truncated)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a whole, without special tokens; from any thread."""
        return self._model.tokenizer.count(texts)

    # --- the steps of a request -------------------------------------------------------------------

    def _check(self, texts: Sequence[str]) -> None:
        if not texts:
            raise EmptyInput("no texts: the list is empty")
        if len(texts) > self._config.max_texts:
            raise TooManyTexts(
                f"{len(texts)} texts in one request, at most {self._config.max_texts} are allowed"
            )
        for index, text in enumerate(texts):
            if not text:
                raise EmptyInput(f"text {index} is empty")

    def _check_dimensions(self, dimensions: int | None) -> None:
        manifest = self.manifest
        if dimensions in (None, manifest.dimension, *manifest.matryoshka_dimensions):
            return
        sizes = sorted({*manifest.matryoshka_dimensions, manifest.dimension})
        raise InvalidRequest(
            f"dimensions {dimensions} is not available; {manifest.model_id} gives"
            f" {', '.join(map(str, sizes))}",
            param="dimensions",
        )

    def _check_truncation(self, tokens: Tokens, *, allowed: bool) -> None:
        if tokens.truncated and not allowed:
            raise TextTooLong(
                f"text {tokens.truncated[0]} has more than the {self.manifest.text.max_tokens}"
                " tokens that the model reads; shorten it or allow truncation"
            )

    def _check_room(self, texts: int, tokens: int) -> None:
        """Refuse what could not be queued now, before more of it is tokenised."""
        try:
            self._lanes.check_room(self._tenant, texts, tokens)
        except (Overloaded, RequestTooLarge):
            self._metrics.refused.inc()
            raise

    async def _tokenize(self, texts: Sequence[str], input_type: InputType) -> Tokens:
        started = now()
        try:
            return await self._slice_and_tokenize(texts, input_type)
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"a text is not valid Unicode: {error.reason}") from None
        finally:
            self._metrics.tokenize_seconds.observe(now() - started)

    async def _slice_and_tokenize(self, texts: Sequence[str], input_type: InputType) -> Tokens:
        encode = self._model.tokenizer.encode
        if sum(map(len, texts)) <= SLICE_CHARACTERS:
            return encode(texts, input_type)
        ids: list[Ids] = []
        truncated: list[int] = []
        found = 0
        for begin, end in _slices(texts):
            self._check_room(len(texts), found + len(texts) - begin)
            part = texts[begin:end]
            if sum(map(len, part)) > HUGE_CHARACTERS:
                tokens = await asyncio.to_thread(encode, part, input_type)
            else:
                tokens = encode(part, input_type)
            ids += tokens.ids
            found += sum(map(len, tokens.ids))
            truncated += (begin + index for index in tokens.truncated)
            await asyncio.sleep(0)
        return Tokens(ids, truncated)

    async def _compute(self, ids: Sequence[Ids]) -> Job:
        waiter: asyncio.Future[None] = self._loop.create_future()
        vectors = np.empty((len(ids), self.manifest.dimension), dtype=np.float32)
        job = Job(ids, vectors, waiter, arrived=now())
        if self._seems_alone(job) and self._lanes.run_here(self._tenant, job):
            await self._look_around()
        else:
            await self._wait_for_lanes(job, waiter)
        if job.error is not None:
            raise job.error
        return job

    def _seems_alone(self, job: Job) -> bool:
        if self._looking:
            self._company_until = job.arrived + COMPANY_S
        return (
            len(job.ids) == 1 and job.tokens <= LONE_TOKENS and job.arrived >= self._company_until
        )

    async def _look_around(self) -> None:
        """Let requests in that came while the loop was busy computing; they find that it was."""
        self._looking = True
        try:
            for _ in range(TURNS):
                await asyncio.sleep(0)
        finally:
            self._looking = False

    async def _wait_for_lanes(self, job: Job, waiter: "asyncio.Future[None]") -> None:
        try:
            self._lanes.submit(self._tenant, job)
        except (Overloaded, RequestTooLarge):
            self._metrics.refused.inc()
            raise
        try:
            await waiter
        except asyncio.CancelledError:
            job.abandoned = True
            raise

    def _count(self, tokens: Tokens, job: Job) -> None:
        metrics = self._metrics
        metrics.texts.inc(len(tokens.ids))
        metrics.tokens.inc(job.tokens)
        if tokens.truncated:
            metrics.truncated.inc(len(tokens.truncated))
        if job.started is not None and job.finished is not None:
            metrics.queue_seconds.observe(job.started - job.arrived)
            metrics.infer_seconds.observe(job.finished - job.started)


def lanes_for(config: Config, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> Lanes:
    """Lanes that deliver to this loop, one wake-up for all jobs that a batch finished."""

    def deliver(jobs: Sequence[Job]) -> None:
        # A closed loop has nobody left to be answered.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, jobs)

    return Lanes(metrics, deliver, lane_count(config))


def lane_count(config: Config) -> int:
    return config.lanes or cpu_budget()


def wide_threads(config: Config) -> int:
    """Threads of the encoder that serves a lone request: those of all lanes, within reason."""
    return min(lane_count(config), MAX_WIDE_THREADS)


def cut(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` columns with unit norm again; float32 (B, D) -> (B, dimensions)."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    return unit(vectors[:, :dimensions])


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to unit L2 norm; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12))


def _resolve(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.waiter.done():
            job.waiter.set_result(None)


def _slices(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Consecutive ranges of about SLICE_CHARACTERS characters, each at least one text."""
    bounds, begin, size = [], 0, 0
    for index, text in enumerate(texts):
        if size and size + len(text) > SLICE_CHARACTERS:
            bounds.append((begin, index))
            begin, size = index, 0
        size += len(text)
    return [*bounds, (begin, len(texts))]
