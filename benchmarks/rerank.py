"""How fast does a reranker score pairs, and how long does a query with its candidates take?

    python -m benchmarks.rerank --model ARTIFACT [--shapes 50x64 50x128 50x64-512] [--turns 5]

A shape is a number of candidates and the tokens of each pair, the query's included: 50x64-512 are 50 pairs
whose lengths are spread evenly from 64 to 512. The server's engine scores them, without HTTP and tokeniser,
with its own queue and a lane on every core. latency_ms is one such request alone; pairs_s and ktok_s are
of several at once, which keep every lane busy. Each is the median of the turns. One JSON line per shape.
"""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from server.config import Config
from server.inference.capacity import wide_threads
from server.inference.engine import Engine, lanes_for
from server.inference.model import Model
from server.system.output import until_reader_leaves
from server.telemetry.metrics import Metrics
from server.types import Ids

SHAPES = ("50x64", "50x128", "50x256", "50x512", "50x64-512")
# Requests at once, where the rate is measured.
REQUESTS = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The pairs of a request. lengths: tokens of each."""

    name: str
    lengths: Sequence[int]

    @classmethod
    def of(cls, name: str) -> "Shape":
        """Return the shape of this name; raises ArgumentTypeError."""
        found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,4})(?:-([1-9]\d{0,4}))?", name)
        if found is None:
            raise argparse.ArgumentTypeError(f"{name!r} is no shape such as 50x128 or 50x64-512")
        number, least, most = (int(each or found[2]) for each in found.groups())
        return cls(name, [round(each) for each in np.linspace(least, most, number)])


def main() -> None:
    arguments = _arguments()
    config = Config()
    model = Model(arguments.model, wide_threads(config))
    for shape in arguments.shapes:
        line = asyncio.run(measured(model, config, shape, arguments.turns))
        machine.show({"case": "rerank", "shape": shape.name, **line}, arguments)


async def measured(model: Model, config: Config, shape: Shape, turns: int) -> machine.Line:
    """Return the latency of one request, and the rate of several; exits where the model reads less."""
    ids = pairs_of(model, shape.lengths)
    loop = asyncio.get_running_loop()
    lanes = lanes_for(config, Metrics(), loop)
    engine = Engine(model, config, Metrics(), loop, lanes)
    try:
        await engine.compute(ids)
        alone = [await _seconds(engine, ids, 1) for _ in range(turns)]
        together = [await _seconds(engine, ids, REQUESTS) for _ in range(turns)]
    finally:
        await asyncio.to_thread(lanes.close, config.shutdown_s)
    busy_s = median(together) / REQUESTS
    return {
        "pairs": len(ids),
        "tokens": sum(shape.lengths),
        "latency_ms": round(1000 * median(alone), 2),
        "pairs_s": round(len(ids) / busy_s, 1),
        "ktok_s": round(sum(shape.lengths) / busy_s / 1000, 2),
    }


def pairs_of(model: Model, lengths: Sequence[int]) -> list[Ids]:
    """Return token ids of these lengths; those of the self-test again and again."""
    most = model.manifest.text.max_tokens
    if max(lengths) > most:
        raise SystemExit(
            f"{model.name} reads {most} tokens of a pair, not {max(lengths)}; give other --shapes"
        )
    tests = [(test.text, test.second) for test in model.manifest.self_test]
    pairs = [(first, second) for first, second in tests if second is not None]
    if not pairs:
        raise SystemExit(f"{model.name} gives no scores of pairs; give a reranker with --model")
    sample = np.concatenate(model.tokenizer.encode_pairs(pairs).ids)
    return [np.resize(sample, length) for length in lengths]


async def _seconds(engine: Engine, ids: Sequence[Ids], requests: int) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(engine.compute(ids) for _ in range(requests)))
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, turns=5)
    shapes = [Shape.of(name) for name in SHAPES]
    options.add_argument("--shapes", nargs="+", type=Shape.of, default=shapes, metavar="NxTOKENS")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
