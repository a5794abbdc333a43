"""Texts in, vectors or scores out, for one model: tokenises, queues, waits; what dialects and the store call.

The engine lives on one event loop. Lanes deliver finished jobs to that loop, one wake-up a batch.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from server.clock import now
from server.config import Config
from server.errors import (
    EmptyInput,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    TextTooLong,
    TooManyTexts,
)
from server.inference.answers import (
    Computed,
    Embedded,
    Scored,
    Times,
    check_finite,
    check_vectors,
    cut,
)
from server.inference.batching import Job
from server.inference.capacity import batch_limits, lane_count
from server.inference.cpu_provenance import CpuProvenance, provenance_here
from server.inference.lanes import Lanes
from server.inference.manifest import Manifest
from server.inference.model import Model
from server.inference.tokenization.loop_tokenizer import CheckRoom, LoopTokenizer
from server.inference.tokenization.pair_instruction import template_of
from server.inference.tokenizer import Kept, Token, check_known
from server.telemetry import spans, usage
from server.telemetry.metrics import Metrics
from server.types import Ids, InputType, Pair, Tokens, Vectors

# A lone text that this model computes in less time runs on the loop itself: waking a lane and being woken by
# it costs 0.3 to 0.6 ms where cores sleep in between. Other requests must not wait longer than this for it.
# A request that comes meanwhile sends all to the lanes for COMPANY_S: with 16 clients, one request in some
# hundred is computed on the loop. TURNS: of the loop, in which such a request is read, parsed and handed here.
LOOP_S = 0.003
COMPANY_S = 0.25
TURNS = 4

# Tokenises the texts of a request; makes the error for the text at a place.
Read = Callable[[CheckRoom], Awaitable[Tokens]]
TooLong = Callable[[int], Awaitable[TextTooLong]]


class Engine:
    """Serves one model on the given loop, by lanes that it shares with others.

    `embed` is for models of dense vectors, `score` for models of scores. `compute_texts` and `compute` are for
    any: their results are what the model's task gives.
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        lanes: Lanes,
    ) -> None:
        self.model = model
        # No longer served: pending requests are answered, and nothing of the model need be cached.
        self.retired = False
        self._config = config
        self._metrics = metrics
        self._loop = loop
        self._tokenizer = LoopTokenizer(model.tokenizer)
        self._looking = False
        self._waking = False
        self._company_until = 0.0
        self._lanes = lanes
        limits = batch_limits(config, model.manifest.text.max_tokens)
        self._tenant = lanes.admit(model.encoder, limits, model.wide, model.rate)
        metrics.batch_tokens_max.set(limits.batch_tokens)

    @property
    def manifest(self) -> Manifest:
        return self.model.manifest

    def retire(self) -> None:
        """Let the lanes forget the model as soon as nothing waits for it."""
        self.retired = True
        self._lanes.dismiss(self._tenant)

    @cached_property
    def provenance(self) -> CpuProvenance:
        """The kind of CPU that computes this model's vectors here."""
        return provenance_here(self.model.self_test_results)

    @property
    def max_texts(self) -> int:
        """The number of texts or pairs that one request may have."""
        return self._config.max_texts

    @property
    def max_reply_bytes(self) -> int:
        """The number of bytes that a reply of any size may have."""
        return self._config.max_reply_bytes

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
        found = await self.compute_texts(texts, input_type, truncate=truncate, keep=keep)
        vectors = cut(_stacked(found.results, self.manifest.dimension), dimensions)
        check_vectors(vectors)
        return Embedded(vectors, found.tokens, found.truncated, found.times)

    async def compute_texts(
        self,
        texts: Sequence[str],
        input_type: InputType = "document",
        *,
        truncate: bool = True,
        keep: Kept = "beginning",
        admit: Callable[[Tokens], None] = lambda _: None,
    ) -> Computed:
        """Return the model's results for texts that `check` has accepted; raises what `embed` raises.

        admit: called with the tokens before anything is computed; may raise a CallerError.
        """
        # No text has less than one token.
        self.check_room(len(texts))

        async def too_long(index: int) -> TextTooLong:
            return await self._too_long(index, texts[index], input_type)

        async def read(check_room: CheckRoom) -> Tokens:
            tokens = await self._tokenizer.encode(texts, input_type, keep, check_room)
            admit(tokens)
            return tokens

        done = await self._computed(len(texts), read, None if truncate else too_long)
        tokens, job, times = done
        return Computed(job.results, job.tokens, tokens.truncated, times)

    async def score(
        self,
        pairs: Sequence[Pair],
        *,
        truncate: bool = True,
        keep: Kept = "beginning",
        instruction: str = "",
    ) -> Scored:
        """Score pairs of texts in order; raises what `embed` raises.

        keep: what is left of a pair that is cut; the longer text is cut first. Equal pairs have equal scores.
        instruction: in place of the one in the model's prompt.

        Cancelling the caller abandons the job.
        """
        self.check_pairs(pairs)
        template = template_of(instruction, self.model.tokenizer, self.manifest.model_id)
        self.check_room(len(pairs))

        async def too_long(index: int) -> TextTooLong:
            read = self.manifest.text.max_tokens
            return TextTooLong(
                f"text {index} and its query have more than the {read} tokens that the model reads"
                " of both; shorten them or allow truncation"
            )

        read = partial(self._tokenizer.encode_pairs, pairs, keep, template=template)
        done = await self._computed(len(pairs), read, None if truncate else too_long)
        tokens, job, times = done
        # subtle: the last digit of a result depends on its batch, and equal pairs would change places.
        logits = _stacked(job.results, 1)[_first_equal(pairs), 0]
        check_finite(logits)
        return Scored(logits, self.manifest.activation, job.tokens, tokens.truncated, times)

    async def tokens(
        self, texts: Sequence[str], input_type: InputType, *, special: bool
    ) -> list[list[Token]]:
        """Return the tokens of each text as a whole, beyond what the model reads; raises a CallerError."""
        self.check(texts)
        return await self._tokenizer.tokens(texts, input_type, special=special)

    async def decode(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """Return the text of each row of token ids; raises a CallerError."""
        return await self._tokenizer.decode(ids, skip_special=skip_special)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text as a whole, without special tokens; from any thread."""
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

    def check_pairs(self, pairs: Sequence[Pair]) -> None:
        """Refuse pairs as `check` does texts."""
        self.check([second for _, second in pairs])
        self.check([first for first, _ in pairs])

    async def compute(self, ids: Sequence[Ids]) -> Job:
        """Return a finished job with a result for each row of token ids.

        Raises Overloaded, RequestTooLarge, ShuttingDown or InferenceFailed. Cancelling the caller
        abandons the job.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        job = Job(ids, waiter, arrived=now())
        if self._seems_alone(job) and self._lanes.run_here(self._tenant, job, LOOP_S):
            usage.add(len(ids), job.tokens)
            await self._look_around()
        else:
            await self._wait_for_lanes(job, waiter)
        if job.error is not None:
            raise job.error
        return job

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
        read, most = self.manifest.text.max_tokens, self.manifest.text.max_characters
        tokens = await self._tokenizer.length(text, input_type)
        if most is not None and tokens is not None and tokens <= read:
            return TextTooLong(
                f"text {index} has {len(text)} characters, more than the {most} that the model reads;"
                " shorten it or allow truncation"
            )
        length = "more" if tokens is None else f"{tokens} tokens, more"
        return TextTooLong(
            f"text {index} has {length} than the {read} tokens that the model reads;"
            " shorten it or allow truncation"
        )

    def check_room(self, texts: int, tokens: int = 0) -> None:
        """Raise Overloaded or RequestTooLarge for what could not be queued now, before more is done for it.

        tokens: of all texts, at least; no text has less than one.
        """
        try:
            self._lanes.check_room(self._tenant, texts, max(texts, tokens))
        except (Overloaded, RequestTooLarge):
            self._metrics.refused.inc()
            raise

    async def _computed(
        self, texts: int, read: Read, too_long: TooLong | None
    ) -> tuple[Tokens, Job, Times]:
        """Tokenise and compute; counts a caller that is cancelled.

        read: returns the tokens of so many texts. too_long: makes the error for one that was cut; None where
        texts may be cut.
        """
        try:
            tokens, tokenize_s = await self._tokenize(texts, read)
            if tokens.truncated and too_long is not None:
                raise await too_long(tokens.truncated[0])
            check_known(tokens.ids)
            job = await self.compute(tokens.ids)
        except asyncio.CancelledError:
            self._metrics.abandoned.inc()
            raise
        return tokens, job, self._count(tokens, tokenize_s, job)

    async def _tokenize(self, texts: int, read: Read) -> tuple[Tokens, float]:
        """Return the tokens, and the seconds that they took."""
        started = now()
        try:
            tokens = await read(partial(self.check_room, texts))
        finally:
            seconds = now() - started
            self._metrics.tokenize_seconds.observe(seconds)
            spans.note("tokenise", started, started + seconds)
        return tokens, seconds

    def _seems_alone(self, job: Job) -> bool:
        if self._looking:
            self._company_until = job.arrived + COMPANY_S
        return len(job.ids) == 1 and job.arrived >= self._company_until

    async def _look_around(self) -> None:
        """Let requests in that came while the loop was computing; they find that it was."""
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
        """Wake lanes once for all requests that are handled in this turn of the loop.

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
    """Return lanes that deliver to this loop, one wake-up for all jobs that a batch finished."""

    def deliver(jobs: Sequence[Job]) -> None:
        # On a closed loop no client waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, jobs)

    return Lanes(metrics, deliver, lane_count(config), config.hang_s)


def pairs_with(query: str, texts: Sequence[str]) -> list[Pair]:
    """Return the query with each of the texts; raises EmptyInput for an empty query."""
    if not query:
        raise EmptyInput("query is empty")
    return [(query, text) for text in texts]


def _first_equal(pairs: Sequence[Pair]) -> list[int]:
    """Return for each pair the place of the first pair that is equal to it."""
    places: dict[Pair, int] = {}
    return [places.setdefault(pair, place) for place, pair in enumerate(pairs)]


def _stacked(results: Sequence[Any], dimension: int) -> Vectors:
    """Return the vectors of a job as one array, float32 (B, dimension)."""
    # subtle: a copy also of a single one, which would otherwise keep its whole batch in memory.
    vectors: Vectors = np.concatenate(results)
    if vectors.size != len(results) * dimension:
        raise InferenceFailed(
            f"the computation failed: {vectors.size} numbers for {len(results)} vectors of {dimension}"
        )
    return vectors.reshape(len(results), dimension)


def _resolve(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.waiter.done():
            job.waiter.set_result(None)
