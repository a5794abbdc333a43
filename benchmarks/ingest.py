"""How fast are documents indexed, beside the encoder alone on the same texts?

    python -m benchmarks.ingest [--texts FILE] [--count 3000] [--turns 3]

In turn within one run, each turn with other texts: the raw lanes (the server's own queue and threads,
fed with token ids made before) and `python -m server index` into an empty folder with one vector per
document, by the time the command prints: reading, tokenising, embedding, words, SQLite with every
batch on the disk, and the index. FILE: JSON lines with "text", also .gz, or a JSON list; without it,
texts with the lengths of law articles. One JSON line.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, workloads
from benchmarks.arguments import parser
from benchmarks.serve import index
from server.config import Config
from server.inference.batching import BatchLimits, Job
from server.inference.lanes import Lanes
from server.inference.model import Model
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves
from server.telemetry.metrics import Metrics
from server.types import Ids

PORTION = 256
PORTIONS_AT_ONCE = 4
SECONDS = re.compile(r"(\d+\.\d+) s\s*$")


def main() -> None:
    arguments = _arguments()
    texts = texts_of(arguments.texts, arguments.count * arguments.turns)
    model = Model(arguments.model, cpu_budget())
    raw, indexed, sizes = [], [], []
    for turn in range(arguments.turns):
        some = texts[turn * arguments.count : (turn + 1) * arguments.count]
        raw.append(len(some) / asyncio.run(_raw_seconds(model, some)))
        with tempfile.TemporaryDirectory() as scratch:
            indexed.append(len(some) / _index_seconds(arguments.model, some, Path(scratch)))
            files = (Path(scratch) / "data").rglob("*")
            sizes.append(sum(file.stat().st_size for file in files if file.is_file()))
    ratios = [ours / theirs for ours, theirs in zip(indexed, raw, strict=True)]
    line = {
        "case": "ingest",
        "documents": arguments.count,
        "turns": arguments.turns,
        "raw_per_s": round(statistics.median(raw), 1),
        "indexed_per_s": round(statistics.median(indexed), 1),
        "ratio": round(statistics.median(ratios), 3),
        "bytes_per_document": round(statistics.median(sizes) / arguments.count),
    }
    machine.show(line, arguments)


async def _raw_seconds(model: Model, texts: Sequence[str]) -> float:
    """Return the seconds of the lanes alone, which always have more work than they can run at once."""
    ids = [each for text in texts for each in model.tokenizer.encode([text]).ids]
    config, loop = Config(), asyncio.get_running_loop()
    limits = BatchLimits(config.batch_tokens, config.interactive_tokens, 1 << 30, 1 << 30)

    def deliver(jobs: Sequence[Job]) -> None:
        for job in jobs:
            loop.call_soon_threadsafe(job.waiter.set_result, None)

    lanes = Lanes(Metrics(), deliver, cpu_budget())
    tenant = lanes.admit(model.encoder, limits, model.wide)
    gate = asyncio.Semaphore(PORTIONS_AT_ONCE)

    async def portion(some: Sequence[Ids]) -> None:
        async with gate:
            waiter: asyncio.Future[None] = loop.create_future()
            lanes.submit(tenant, Job(some, waiter, time.perf_counter()))
            lanes.wake()
            await waiter

    started = time.perf_counter()
    await asyncio.gather(
        *(portion(ids[begin : begin + PORTION]) for begin in range(0, len(ids), PORTION))
    )
    seconds = time.perf_counter() - started
    await asyncio.to_thread(lanes.close, 10)
    return seconds


def _index_seconds(model: Path, texts: Sequence[str], scratch: Path) -> float:
    source = scratch / "texts.jsonl"
    rows = ({"id": str(number), "text": text} for number, text in enumerate(texts))
    workloads.write_bodies(source, rows)
    printed = index(model, source, scratch / "data", "--chunk-tokens", "0")
    found = SECONDS.search(printed)
    if found is None:
        sys.exit(f"`server index` printed no seconds: {printed}")
    return float(found[1])


def add_texts(options: argparse.ArgumentParser) -> None:
    """Add the option whose value `texts_of` takes."""
    options.add_argument("--texts", type=Path, help="JSON lines with text, or a JSON list")


def texts_of(path: Path | None, count: int) -> list[str]:
    """Return texts of a file, or made ones; ends the benchmark if the file has fewer."""
    if path is None:
        return workloads.generate("laws", count)
    if path.suffix == ".json":
        found = [str(text) for text in json.loads(path.read_text(encoding="utf-8"))]
    else:
        found = [str(row["text"]) for row in workloads.json_lines(path)]
    if len(found) < count:
        sys.exit(f"{path} has {len(found)} texts, {count} are needed: ask for fewer")
    return found[:count]


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, turns=3)
    add_texts(options)
    options.add_argument("--count", type=int, default=3000, help="documents per turn")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
