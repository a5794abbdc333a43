"""Texts to results in bulk: synchronous, without an event loop, settings or metrics.

Bulk jobs and benchmarks call this. Batches follow the server's own policy, so the results are the
server's. Everything is computed on the calling thread; several threads may share a model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from server.inference.batching import BatchLimits, Job, Queue
from server.inference.model import Model
from server.inference.tokenizer import check_known
from server.types import Encoder, Ids, InputType, Vectors

# Past 256 tokens a batch brings no throughput on a CPU.
BATCH_TOKENS = 256
# Texts that are tokenised and sorted at a time: enough to fill batches with texts of similar length.
PORTION = 4096


def embed(
    model: Model,
    texts: Sequence[str],
    input_type: InputType = "document",
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Vectors:
    """Return the texts' vectors in their order, float32 (N, D), with a model of dense vectors.

    Open an artifact with `Model(folder)`. A text that the model cannot read whole is cut. Raises EmptyInput for a
    text without any token.
    """
    rows = []
    for begin in range(0, len(texts), PORTION):
        ids = model.tokenizer.encode(texts[begin : begin + PORTION], input_type).ids
        check_known(ids)
        rows += encode_all(model.encoder, ids, batch_tokens)
    return np.array(rows, np.float32).reshape(len(rows), model.manifest.dimension)


def encode_all(encoder: Encoder, ids: Sequence[Ids], batch_tokens: int = BATCH_TOKENS) -> list[Any]:
    """Return one result a row of token ids, in order; texts of similar length share a batch."""
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    job = Job([ids[index] for index in order], None, 0.0)
    # All of it is one job that always fits, and of one kind.
    limits = BatchLimits(batch_tokens, job.tokens, job.tokens, job.tokens)
    queue = Queue(limits, encoder.packing)
    queue.add(job, 0.0, 1.0)
    results: list[Any] = [None] * len(ids)
    while batch := queue.take(0.0):
        found = encoder.encode([item.ids for item in batch])
        for item, result in zip(batch, found, strict=True):
            results[order[item.position]] = result
        queue.ended(batch, 0.0)
    return results
