"""The capacity of a server: lanes, threads, the sizes of batches, and how much work may wait."""

from server.config import Config
from server.inference.batching import BatchLimits
from server.system.cpu import cpu_budget

# Seconds of small requests that may wait, at the model's measured speed. A server then answers as usual
# again two seconds after it was asked for ten times what it can. With bge-small-zh-v1.5 on a core with VNNI,
# which computes 12,000 tokens a second of small requests, that is 18,000 tokens a lane (2026-11-25).
QUEUE_S = 1.5
# A short text is too little work for more: parts of 0.1 ms cost as much to hand out as to do.
MAX_WIDE_THREADS = 8


def batch_limits(config: Config, max_tokens: int) -> BatchLimits:
    """Return the bounds for a model that reads `max_tokens`, one text of which always fits."""
    tokens, seconds = config.interactive_queue_tokens, 0.0
    if not tokens:
        # A slow model, too, takes any request that counts as small.
        tokens, seconds = max(max_tokens, config.interactive_tokens), QUEUE_S
    return BatchLimits(
        batch_tokens=config.batch_tokens,
        interactive_tokens=config.interactive_tokens,
        interactive_queue_tokens=tokens,
        bulk_queue_tokens=config.bulk_queue_tokens,
        interactive_queue_s=seconds,
    )


def lane_count(config: Config) -> int:
    """Return how many threads compute, each a batch of its own."""
    return config.lanes or cpu_budget()


def wide_threads(config: Config) -> int:
    """Return how many threads compute a lone request together: those of all lanes, within reason."""
    return min(lane_count(config), MAX_WIDE_THREADS)
