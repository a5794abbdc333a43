"""Texts in, vectors out, for one model: tokenises, queues, waits; what dialects and the store call.

The engine lives on one event loop. Lanes deliver finished jobs to that loop, one wake-up a batch.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np

from server.clock import now
from server.config import Config
from server.errors import (
    EmptyInput,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    TextTooLong,
    TooManyTexts,
)
from server.inference.batching import BatchLimits, Job
from server.inference.cpu_provenance import Origin, origin_here
from server.inference.encoder import Model
from server.inference.lanes import Lanes
from server.inference.manifest import Manifest
from server.inference.tokenizer import Kept, Token
from server.system.cpu import cpu_budget
from server.telemetry import spans, usage
from server.telemetry.metrics import Metrics
from server.types import Ids, InputType, Tokens, Vectors

T = TypeVar("T")

# Characters tokenised before other requests get a turn on the loop: about 2 ms of work.
SLICE_CHARACTERS = 2048
# A single text larger than this is tokenised beside the loop: handing it to a thread costs 0.1 ms,
# and 10 MB without a space take seconds.
HUGE_CHARACTERS = 65_536
# For each lane, of small requests that wait. One of a core with VNNI computes 12,000 a second, so that a
# server answers as usual again two seconds after it was asked for ten times what it can.
QUEUE_TOKENS = 16_384
# Of all texts whose tokens are told one by one: each takes 70 bytes of the reply, and 200 before.
MAX_TOLD_CHARACTERS = 262_144
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
class Times:
    """Seconds of one request: tokenising, then until its first batch, then until its last vector."""

    tokenize_s: float
    queue_s: float
    infer_s: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one request.

    vectors: float32 (B, D), rows in the order of the texts. tokens: those of all texts, special
    tokens included, after truncation. truncated: indices of texts that were cut.
    """

    vectors: Vectors
    tokens: int
    truncated: Sequence[int]
    times: Times


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
        self.model = model
        # No longer served: what is still asked is answered, and nothing of it need be remembered.
        self.retired = False
        self._config = config
        self._metrics = metrics
        self._loop = loop
        self._looking = False
        self._waking = False
        self._company_until = 0.0
        self._lanes = lanes
        limits = batch_limits(config, model.manifest.text.max_tokens)
        self._tenant = lanes.admit(model.encoder, limits, model.wide)
        metrics.batch_tokens_max.set(limits.batch_tokens)
        metrics.queue_tokens_limit.labels("interactive").set(limits.interactive_queue_tokens)
        metrics.queue_tokens_limit.labels("bulk").set(limits.bulk_queue_tokens)

    @property
    def manifest(self) -> Manifest:
        return self.model.manifest

    def retire(self) -> None:
        """Let the lanes forget the model as soon as nothing waits for it."""
        self.retired = True
        self._lanes.dismiss(self._tenant)

    @cached_property
    def origin(self) -> Origin:
        """What this machine makes of the model."""
        return origin_here(self.model.self_test_vectors)

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
        keep: Kept = "beginning",
        dimensions: int | None = None,
    ) -> Embedded:
        """Embed texts in order; raises a CallerError, Overloaded, ShuttingDown or InferenceFailed.

        keep: what is left of a text that is cut. dimensions: cut vectors to this size and normalise
        them again, if the model allows it.

        Cancelling the caller abandons the job: what has not been computed yet never will be.
        """
        self.check(texts)
        self._check_dimensions(dimensions)
        # No text has less than one token.
        self._check_room(len(texts), len(texts))
        try:
            tokens, tokenize_s = await self._tokenize(texts, input_type, keep)
            if tokens.truncated and not truncate:
                index = tokens.truncated[0]
                raise await self._too_long(index, texts[index], input_type)
            job = await self._compute(tokens.ids)
        except asyncio.CancelledError:
            self._metrics.abandoned.inc()
            raise
        times = self._count(tokens, tokenize_s, job)
        return Embedded(cut(job.vectors, dimensions), job.tokens, tokens.truncated, times)

    async def tokens(
        self, texts: Sequence[str], input_type: InputType, *, special: bool
    ) -> list[list[Token]]:
        """The tokens of each text as a whole, beyond what the model reads; raises a CallerError."""
        self.check(texts)
        _check_told(sum(map(len, texts)), "characters")
        tell = partial(self.model.tokenizer.tokens, input_type=input_type, special=special)
        found: list[list[Token]] = []
        for begin, end in _slices(texts):
            part = texts[begin:end]
            size = sum(map(len, part))
            found += await _beside(size, partial(tell, part), most=SLICE_CHARACTERS)
            await asyncio.sleep(0)
        return found

    async def decode(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """The text of each row of token ids; raises a CallerError."""
        size = sum(map(len, ids))
        _check_told(size, "token ids")
        tell = partial(self.model.tokenizer.decode, skip_special=skip_special)
        try:
            return await _beside(size, partial(tell, ids), most=SLICE_CHARACTERS)
        except ValueError as error:
            raise InvalidRequest(str(error), param="ids") from None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a whole, without special tokens; from any thread."""
        return self.model.tokenizer.count(texts)

    def check(self, texts: Sequence[str]) -> None:
        """Refuse no texts, an empty one, or more than one request may carry."""
        if not texts:
            raise EmptyInput("no texts: the list is empty")
        if len(texts) > self._config.max_texts:
            raise TooManyTexts(
                f"{len(texts)} texts in one request, at most {self._config.max_texts} are allowed"
            )
        for index, text in enumerate(texts):
            if not text:
                raise EmptyInput(f"text {index} is empty")

    # --- the steps of a request -------------------------------------------------------------------

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

    async def _too_long(self, index: int, text: str, input_type: InputType) -> TextTooLong:
        read = self.manifest.text.max_tokens
        # Nobody waits seconds to be told how much too long it is.
        length = "more"
        if len(text) <= HUGE_CHARACTERS:
            count = partial(self.model.tokenizer.length, text, input_type)
            tokens = await _beside(len(text), count, most=SLICE_CHARACTERS)
            length = f"{tokens} tokens, more"
        return TextTooLong(
            f"text {index} has {length} than the {read} tokens that the model reads;"
            " shorten it or allow truncation"
        )

    def _check_room(self, texts: int, tokens: int) -> None:
        """Refuse what could not be queued now, before more of it is tokenised."""
        try:
            self._lanes.check_room(self._tenant, texts, tokens)
        except (Overloaded, RequestTooLarge):
            self._metrics.refused.inc()
            raise

    async def _tokenize(
        self, texts: Sequence[str], input_type: InputType, keep: Kept
    ) -> tuple[Tokens, float]:
        """The tokens, and the seconds that they took."""
        started = now()
        try:
            tokens = await self._slice_and_tokenize(texts, input_type, keep)
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"a text is not valid Unicode: {error.reason}") from None
        finally:
            seconds = now() - started
            self._metrics.tokenize_seconds.observe(seconds)
            spans.note("tokenise", started, started + seconds)
        return tokens, seconds

    async def _slice_and_tokenize(
        self, texts: Sequence[str], input_type: InputType, keep: Kept
    ) -> Tokens:
        encode: Callable[[Sequence[str], InputType], Tokens] = self.model.tokenizer.encode
        if keep == "end":
            encode = partial(self.model.tokenizer.encode, keep=keep)
        if sum(map(len, texts)) <= SLICE_CHARACTERS:
            return encode(texts, input_type)
        ids: list[Ids] = []
        truncated: list[int] = []
        found = 0
        for begin, end in _slices(texts):
            self._check_room(len(texts), found + len(texts) - begin)
            part = texts[begin:end]
            tokens = await _beside(sum(map(len, part)), partial(encode, part, input_type))
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
            usage.add(len(ids), job.tokens)
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
            usage.add(len(job.ids), job.tokens)
            self._wake_lanes()
        except (Overloaded, RequestTooLarge):
            self._metrics.refused.inc()
            raise
        try:
            await waiter
        except asyncio.CancelledError:
            self._lanes.abandon(self._tenant, job)
            raise

    def _wake_lanes(self) -> None:
        """Once for all requests that are handled in this turn of the loop.

        A lane that sleeps would take the first of several alone: 8 % of the batches of 16 clients
        had one text, with this 4 %, and they were answered 5 % faster (2026-11-25, 2 cores).
        """
        if not self._waking:
            self._waking = True
            self._loop.call_soon(self._woken)

    def _woken(self) -> None:
        self._waking = False
        self._lanes.wake()

    def _count(self, tokens: Tokens, tokenize_s: float, job: Job) -> Times:
        metrics = self._metrics
        metrics.texts.inc(len(tokens.ids))
        metrics.tokens.inc(job.tokens)
        if tokens.truncated:
            metrics.truncated.inc(len(tokens.truncated))
        assert job.started is not None and job.finished is not None
        times = Times(tokenize_s, job.started - job.arrived, job.finished - job.started)
        spans.note("queue", job.arrived, job.started)
        spans.note("infer", job.started, job.finished)
        metrics.queue_seconds.observe(times.queue_s)
        metrics.infer_seconds.observe(times.infer_s)
        return times


def lanes_for(config: Config, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> Lanes:
    """Lanes that deliver to this loop, one wake-up for all jobs that a batch finished."""

    def deliver(jobs: Sequence[Job]) -> None:
        # A closed loop has nobody left to be answered.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, jobs)

    return Lanes(metrics, deliver, lane_count(config), config.hang_s)


def batch_limits(config: Config, max_tokens: int) -> BatchLimits:
    """Of a model that reads `max_tokens`, one of which always fits."""
    queue_tokens = config.interactive_queue_tokens
    if not queue_tokens:
        queue_tokens = max(QUEUE_TOKENS * lane_count(config), max_tokens)
    return BatchLimits(
        batch_tokens=config.batch_tokens,
        interactive_tokens=config.interactive_tokens,
        interactive_queue_tokens=queue_tokens,
        bulk_queue_tokens=config.bulk_queue_tokens,
    )


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


async def _beside(characters: int, work: Callable[[], T], most: int = HUGE_CHARACTERS) -> T:
    """What `work` returns; in a thread if it is about more than `most` characters."""
    return await asyncio.to_thread(work) if characters > most else work()


def _check_told(count: int, what: str) -> None:
    if count > MAX_TOLD_CHARACTERS:
        raise RequestTooLarge(
            f"the request has {count} {what}, at most {MAX_TOLD_CHARACTERS} are taken at once"
        )


def _slices(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Consecutive ranges of about SLICE_CHARACTERS characters, each at least one text."""
    bounds, begin, size = [], 0, 0
    for index, text in enumerate(texts):
        if size and size + len(text) > SLICE_CHARACTERS:
            bounds.append((begin, index))
            begin, size = index, 0
        size += len(text)
    return [*bounds, (begin, len(texts))]
